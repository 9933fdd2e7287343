"""resx: a laboratory for residual learning (He et al. 2016, Deep Residual Learning for Image Recognition).

`RunSpec` says what a run is, `train` makes one, `run` runs a probe, `load_runs` reads what is recorded. They are loaded
on first use, so that `resx --help` does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from resx.spec import RunSpec, SpecError, build_spec

if TYPE_CHECKING:
    from resx.lab import run, train
    from resx.store.tables import load_runs

__all__ = ["RunSpec", "SpecError", "build_spec", "load_runs", "run", "train"]

_HOMES = {"run": "resx.lab", "train": "resx.lab", "load_runs": "resx.store.tables"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'resx' has no attribute '{name}'")
