"""Where and how runs are made: device, jobs, folders. Nothing here can change a number of a CPU run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from resx.spec import SpecError
from resx.store.files import results_root

COHORT = 10  # networks at a time on a GPU: one seed of five depths, plain and residual


@dataclass(frozen=True)
class Machine:
    """Where and how runs are made; nothing here can change a number of a CPU run.

    results: the folder that holds runs/. data_dir: where data sets lie. jobs: runs at a time. plugin: users' files.
    checkpoint_activations: less memory, more time, the same numbers. snapshots: which weights are kept on the way,
    none, the first and the last, or about 8; probes of weights need them. weights: files, or folders of them, where
    weights that were trained elsewhere are looked for by their content. code: a user's file whose function makes a
    network.
    """

    results: Path = field(default_factory=results_root)
    data_dir: Path | None = None
    device: str = "cpu"
    jobs: int = 1
    allow_change: bool = False
    plugin: Path | tuple[Path, ...] = ()
    checkpoint_activations: bool = False
    snapshots: Literal["none", "ends", "log"] = "log"
    weights: tuple[str, ...] = ()
    code: Path | None = None


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
    if settings.get("snapshots", "log") not in ("none", "ends", "log"):
        raise SpecError(f"--snapshots: write none, ends or log, not '{settings['snapshots']}'")
    if jobs is not None and jobs < 1:
        raise SpecError(f"--jobs: must be at least 1, not {jobs}")
    at_a_time = jobs or (COHORT if kind == "cuda" else available_cores())
    return Machine(results=results_root(results), device=device, jobs=at_a_time, **settings)


def default_preset(machine: Machine) -> tuple[str, str]:
    """Return the preset that a machine takes where none is named, and why in a few words."""
    cuda = machine.device.startswith("cuda")
    return ("paper", "a CUDA device is here") if cuda else ("digits", "no CUDA device is used")


def available_cores() -> int:
    """Return how many cores this process may use: its affinity, its container's quota, its SLURM task, the least."""
    cores = [len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1]
    cores += [int(quota) for quota in _quotas(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))]
    slurm = os.environ.get("SLURM_CPUS_PER_TASK", "")
    cores += [int(slurm)] if slurm.isdecimal() else []
    return max(1, min(cores))


def _quotas(own: Path, root: Path) -> Iterator[float]:
    """Yield the CPU quotas, in cores, of this process's control group (version 2) and those above it."""
    try:
        lines = own.read_text().splitlines()
    except (OSError, UnicodeError):
        return
    group = next((line.removeprefix("0::").strip("/") for line in lines if line.startswith("0::")), "")
    for folder in [root / group, *(root / group).parents]:
        try:
            quota, period = (folder / "cpu.max").read_text().split()
            yield float(quota) / float(period)
        except (OSError, ValueError, ZeroDivisionError):  # none: `max 100000`, or not a group
            pass
        if folder == root:
            return


@contextmanager
def own_settings() -> Iterator[None]:
    """Give torch the settings that every run has, whatever the caller's are, and restore those.

    One thread, float32, gradients, no autocast; the caller's random numbers go on as if nothing had been drawn.
    """
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.random.fork_rng(devices=[]))
        if torch.get_default_device().type != "cpu":  # a context that says cpu would slow every operation down
            stack.enter_context(torch.device("cpu"))
        for kind in ("cpu", "cuda"):
            stack.enter_context(torch.autocast(kind, enabled=False))
        try:
            torch.set_num_threads(1)
            torch.set_default_dtype(torch.float32)
            yield
        finally:
            torch.set_num_threads(threads)
            torch.set_default_dtype(dtype)
            torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = tf32
