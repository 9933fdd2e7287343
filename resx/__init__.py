"""resx: a laboratory for residual learning (He et al. 2016, Deep Residual Learning for Image Recognition).

`RunSpec` describes a run, `train` makes one, `run` runs a probe, `load_runs` reads what is recorded; `adopt` finds the
blocks of any trained network and `measure` measures it. They are loaded on first use, so that `resx --help` does not
wait for torch, and a signal is handled before anything that takes time.
"""

from __future__ import annotations

import getpass
import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resx.lab import compare, load, plot, run, train
    from resx.measurements.adopt import adopt, measure
    from resx.spec import RunSpec, SpecError, build_spec
    from resx.store.tables import load_runs

__all__ = [
    "RunSpec",
    "SpecError",
    "adopt",
    "build_spec",
    "compare",
    "load",
    "load_runs",
    "measure",
    "plot",
    "run",
    "train",
]

_NAMES = {
    "resx.lab": ("compare", "load", "plot", "run", "train"),
    "resx.measurements.adopt": ("adopt", "measure"),
    "resx.spec": ("RunSpec", "SpecError", "build_spec"),
    "resx.store.tables": ("load_runs",),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}

try:
    getpass.getuser()
except (KeyError, OSError):  # a container's user without a name, on which torch would fail
    os.environ["LOGNAME"] = f"user-{os.getuid()}"


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("resx")
    raise AttributeError(f"module 'resx' has no attribute '{name}'")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
