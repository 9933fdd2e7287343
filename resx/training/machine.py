"""Where and how runs are made: device, jobs, folders. Nothing here can change a number of a CPU run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from resx.spec import SpecError
from resx.store.files import results_root

COHORT = 10  # networks at a time on a GPU: one seed of five depths, plain and residual


@dataclass(frozen=True)
class Machine:
    """Where and how runs are made; nothing here can change a number of a CPU run.

    results: the folder that holds runs/. data_dir: where data sets lie. jobs: runs at a time. plugin: a user's file.
    checkpoint_activations: less memory, more time, the same numbers.
    """

    results: Path = field(default_factory=results_root)
    data_dir: Path | None = None
    device: str = "cpu"
    jobs: int = 1
    allow_change: bool = False
    plugin: Path | None = None
    checkpoint_activations: bool = False


def default_device() -> str:
    """Return `cuda` where there is one, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def make_machine(
    *, device: str | None = None, jobs: int | None = None, results: Path | None = None, **settings: Any
) -> Machine:
    """Fill in what the user left open: the device, as many jobs as it takes. Raises SpecError for an absent device."""
    device = device or default_device()
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise SpecError(f"--device: no '{device}'; write cpu, cuda or cuda:N") from error
    if kind not in ("cpu", "cuda"):
        raise SpecError(f"--device: '{device}' is not supported; write cpu, cuda or cuda:N")
    if kind == "cuda" and not torch.cuda.is_available():
        raise SpecError("--device: this machine has no CUDA device (or torch cannot see one); use --device cpu")
    if jobs is not None and jobs < 1:
        raise SpecError(f"--jobs: must be at least 1, not {jobs}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    at_a_time = jobs or (COHORT if kind == "cuda" else cores)
    return Machine(results=results_root(results), device=device, jobs=at_a_time, **settings)


def default_preset(machine: Machine) -> tuple[str, str]:
    """Return the preset that a machine takes where none is named, and why in a few words."""
    cuda = machine.device.startswith("cuda")
    return ("paper", "a CUDA device is here") if cuda else ("digits", "no CUDA device is used")


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread, as every network on a CPU does, and restore what was set."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
