"""resx: a laboratory for residual learning (He et al. 2016, Deep Residual Learning for Image Recognition).

`RunSpec` says what a run is, `train` makes it, `load_runs` reads what is recorded. They are loaded on first use, so
that `resx --help` does not wait for torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resx.spec import RunSpec, SpecError, build_spec

if TYPE_CHECKING:
    from resx.lab import train
    from resx.store.tables import load_runs

__all__ = ["RunSpec", "SpecError", "build_spec", "load_runs", "train"]


def __getattr__(name: str) -> Any:
    if name == "train":
        from resx.lab import train

        return train
    if name == "load_runs":
        from resx.store.tables import load_runs

        return load_runs
    raise AttributeError(f"module 'resx' has no attribute '{name}'")
