"""Runs of well under a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from resx.spec import RunSpec
from resx.training.machine import Machine
from resx.training.resolve import resolve

SMALL = {
    "dataset": "synthetic:classes=3,size=8,train=96,test=48",
    "depth": 8,
    "width": 4,
    "steps": 6,
    "batch_size": 16,
    "eval_every": 3,
    "eval_images": 40,
}


def specs_of(machine: Machine, *variants: dict[str, Any]) -> list[RunSpec]:
    return resolve([{**SMALL, **variant} for variant in variants], machine)


def metrics(results: Path, spec: RunSpec) -> bytes:
    return (results / "runs" / spec.run_id / "metrics.csv").read_bytes()


def is_gone(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
