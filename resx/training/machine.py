"""The machine: device, jobs and folders of runs, and how torch computes there."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from resx.registry import Plugin
from resx.spec import SpecError, first_line
from resx.store.files import results_root, say_once
from resx.training.ranks import is_torchrun

COHORT = 10  # networks at a time on a GPU at most; `resx bench --networks 1,2,4,10` measures what is best on a card
MAX_JOBS = 1024  # networks at a time
NO_CARD = "this machine has no CUDA device"
NVIDIA_CARD = Path("/dev/nvidia0")
TENSOR_CORES = (8, 0)  # compute capability from which a card computes in bfloat16 and TF32


@dataclass(frozen=True)
class Machine:
    """Where and how runs are made; nothing here can change a number of a CPU run.

    results: the folder that holds runs/. data_dir: the folder of data sets. jobs: runs at a time. plugin: users' files.
    checkpoint_activations: less memory, more time, the same numbers. snapshots: which weights are kept on the way,
    none, the first and the last, or about 8; probes of weights need them. weights: files or folders with weights that
    were trained elsewhere, found by their content. code: a user's file whose function makes a network. wait: for runs
    that another process works on; otherwise they are left to it. engine: where tasks run: local, ray, slurm, torchrun
    or a plugin's. slurm: what jobs request from the queue, as key=value,key=value. detach: submit jobs and do not wait
    for them. address: of a Ray cluster. gpus_per_task: the share of a GPU that Ray gives a task.
    """

    results: Path = field(default_factory=results_root)
    data_dir: Path | None = None
    device: str = "cpu"
    jobs: int = 1
    allow_change: bool = False
    plugin: Path | tuple[Path | Plugin, ...] = ()
    checkpoint_activations: bool = False
    snapshots: Literal["none", "ends", "log"] = "log"
    weights: tuple[str, ...] = ()
    code: Path | None = None
    wait: bool = True
    engine: str = "local"
    slurm: str | None = None
    detach: bool = False
    address: str | None = None
    gpus_per_task: float | None = None

    @property
    def is_here(self) -> bool:
        """Whether the device belongs to this machine, so that torch knows its properties."""
        return self.engine in ("local", "torchrun") or self.device == "cpu"

    def places(self) -> list[Machine]:
        """Return the machine as each worker has it: `jobs` times on a CPU; on GPUs once for each card.

        `cuda` is all cards that are visible, `cuda:1` that one.
        """
        if not self.device.startswith("cuda"):
            return [self] * self.jobs
        if torch.device(self.device).index is not None or torch.cuda.device_count() < 2:
            return [self]
        return [replace(self, device=f"cuda:{number}") for number in range(torch.cuda.device_count())]


def default_device() -> str:
    """Return `cuda` where torch can compute on a card, else `cpu`; the log names a card that it cannot use."""
    reason = why_unusable("cuda")
    if reason is None:
        return "cuda"
    if reason != NO_CARD:
        say_once(f"the CPU is used: {reason}")
    return "cpu"


def why_unusable(device: str) -> str | None:
    """Return a line on why torch cannot compute on a CUDA device, or None where it can: one operation is tried."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's are several lines long; the line says the same
        if not torch.cuda.is_available():
            return _why_absent()
        number, count = torch.device(device).index or 0, torch.cuda.device_count()
        if number >= count:
            return f"there is no {device}: torch sees {count}, of which the first is cuda:0"
        try:
            torch.zeros(1, device=device).add_(1).item()
            return None
        except RuntimeError as error:
            return _why_unsupported(device) or f"{device} does not work ({first_line(error)})"


def _why_absent() -> str:
    if torch.version.cuda is None:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
        has_card = NVIDIA_CARD.exists() and not hidden
        return f"there is a CUDA device, but this torch ({torch.__version__}) has no CUDA" if has_card else NO_CARD
    if torch.cuda.device_count() == 0:  # asks the driver's own library, which an old driver has too
        return NO_CARD
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return f"torch cannot use this machine's CUDA device ({first_line(error)})"
    return NO_CARD


def _why_unsupported(device: str) -> str | None:
    """Return which torch a card needs, or None where this one is built for it."""
    capability = torch.cuda.get_device_capability(device)
    built = torch.cuda.get_arch_list()
    oldest = min((int(name.rpartition("_")[2].rstrip("af")) for name in built), default=0)
    if capability[0] * 10 + capability[1] >= oldest:
        return None
    card = f"{torch.cuda.get_device_name(device)} (compute capability {capability[0]}.{capability[1]})"
    return (
        f"{card} is too old for this torch ({torch.__version__}, from {oldest / 10} on); "
        "install torch for CUDA 12.6, which takes 5.0 to 9.0"
    )


def wait_for(device: torch.device) -> None:
    """Wait until a device has finished its work; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def check_precision(precision: str, device: str) -> None:
    """Raise SpecError where a device cannot compute in this precision."""
    is_cuda = device.startswith("cuda")
    if precision == "tf32" and not is_cuda:
        raise SpecError("precision: tf32 needs a CUDA device; use fp32")
    if precision != "fp32" and is_cuda:
        capability = torch.cuda.get_device_capability(device)
        if capability < TENSOR_CORES:
            have, need = (".".join(map(str, pair)) for pair in (capability, TENSOR_CORES))
            raise SpecError(
                f"precision: {precision} needs a card of compute capability {need} or later, and "
                f"{torch.cuda.get_device_name(device)} has {have}; use fp32"
            )


def make_machine(
    *, device: str | None = None, jobs: int | None = None, results: Path | None = None, **settings: Any
) -> Machine:
    """Return a machine, with defaults for the device and the number of jobs.

    Raises SpecError for a device that torch cannot use, and for settings that do not fit together.
    """
    settings = {"engine": "torchrun" if is_torchrun() else "local", **settings}
    if settings["engine"] != "torchrun" and is_torchrun():
        raise SpecError(f"--engine {settings['engine']}: torchrun has started this; leave one of them out")
    device = device or default_device()
    for option, engine in (("slurm", "slurm"), ("detach", "slurm"), ("address", "ray"), ("gpus_per_task", "ray")):
        if settings.get(option) is not None and settings["engine"] != engine:
            raise SpecError(f"--{option.replace('_', '-')}: is for --engine {engine}")
    if settings.get("gpus_per_task") is not None and not 0 < settings["gpus_per_task"] <= 1:
        raise SpecError(f"--gpus-per-task: more than 0 and at most 1, not {settings['gpus_per_task']}")
    try:
        kind = torch.device(device).type
    except RuntimeError:
        kind = None
    if kind not in ("cpu", "cuda"):
        raise SpecError(f"--device: no '{device}'; write cpu, cuda or cuda:N")
    if settings.get("snapshots", "log") not in ("none", "ends", "log"):
        raise SpecError(f"--snapshots: write none, ends or log, not '{settings['snapshots']}'")
    if jobs is not None and not 1 <= jobs <= MAX_JOBS:
        raise SpecError(f"--jobs: must be at least 1 and at most {MAX_JOBS:,}, not {jobs:,}")
    if settings["engine"] == "torchrun":
        jobs = 1  # all processes are one network's
    jobs = jobs or (COHORT if kind == "cuda" else available_cores())
    machine = Machine(results=results_root(results), device=device, jobs=jobs, **settings)
    reason = why_unusable(device) if machine.is_here and kind == "cuda" else None
    if reason:
        raise SpecError(f"--device {device}: {reason}; or use --device cpu")
    return machine


def default_preset(machine: Machine) -> tuple[str, str]:
    """Return a machine's default preset, and why in a few words."""
    cuda = machine.device.startswith("cuda")
    return ("paper", "a CUDA device is here") if cuda else ("digits", "no CUDA device is used")


def available_cores() -> int:
    """Return how many cores this process may use: the least of its affinity, its container's quota, its SLURM task."""
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
def computing(precision: str = "fp32") -> Iterator[None]:
    """Compute in this precision and reproducibly, and restore the caller's settings.

    The one place that decides it, for training, measurements and timings. Only `tf32` lets matrix products and
    convolutions round float32 to TF32; torch's own default does so in convolutions. cuDNN takes algorithms that give
    the same bits every time, chosen by rule, not by timing. A CPU computes in float32, with oneDNN.
    """
    cudnn: Any = torch.backends.cudnn
    onednn: Any = torch.backends.mkldnn
    parts: list[Any] = [torch.backends.cuda.matmul]
    parts += [cudnn.conv, cudnn.rnn, onednn.matmul, onednn.conv, onednn.rnn]
    before = [part.fp32_precision for part in parts]
    choices, by_old_names = (cudnn.deterministic, cudnn.benchmark, onednn.enabled), _tf32_by_old_names()
    try:
        tf32 = precision == "tf32"
        _set_tf32_by_old_names("high" if tf32 else "highest", tf32)
        for part in parts:
            part.fp32_precision = "tf32" if tf32 else "ieee"
        cudnn.deterministic, cudnn.benchmark, onednn.enabled = True, False, True
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark, onednn.enabled = choices
        _set_tf32_by_old_names(*by_old_names)
        for part, value in zip(parts, before, strict=True):
            part.fp32_precision = value


def _tf32_by_old_names() -> tuple[str, bool]:
    """Return the settings under torch's old names for TF32, or its defaults where a caller has used the new ones."""
    try:
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    except RuntimeError:
        return "highest", True


def _set_tf32_by_old_names(products: str, convolutions: bool) -> None:
    torch.set_float32_matmul_precision(products)
    torch.backends.cudnn.allow_tf32 = convolutions


@contextmanager
def own_settings() -> Iterator[None]:
    """Give torch the settings of every task, and restore the caller's, random state included.

    One thread, float32, gradients, no autocast.
    """
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.random.fork_rng(devices=[]))
        if torch.get_default_device().type != "cpu":  # a context that says cpu would slow every operation down
            stack.enter_context(torch.device("cpu"))
        for kind in ("cpu", "cuda"):
            stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(computing("fp32"))
        try:
            torch.set_num_threads(1)
            torch.set_default_dtype(torch.float32)
            yield
        finally:
            torch.set_num_threads(threads)
            torch.set_default_dtype(dtype)
