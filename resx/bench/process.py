"""Speed and memory of training: resx's engine against a conventional loop and against the machine's own limit.

Everything is measured in one run and in turns, so that a busy spell hits all alike, each subject in a process of its
own.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from resx.bench.plan import CONVENTIONAL, ENGINE, Plan
from resx.bench.roofline import machine_limit, work
from resx.bench.subjects import SUBJECTS, Subject
from resx.engines.signals import start_without_interrupts
from resx.store.environment import describe_environment
from resx.training.machine import computing

BUSY_SHARE = 0.9  # of a core that a measured process must get
PROFILED_STEPS = 3


@dataclass(frozen=True)
class Sample:
    """One measurement: steps (or batches), images, seconds on the clock, and core-seconds with those of workers."""

    steps: int
    images: int
    wall: float
    core: float


def _core_seconds(workers: Sequence[int]) -> float:
    """Return the core-seconds that this process and its workers have used so far."""
    total = time.process_time()
    for process in workers:
        with suppress(OSError):  # where there is no /proc only this process counts
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def _timed(subject: Subject, what: str, n: int) -> Sample:
    act = subject.train if what == "train" else subject.evaluate
    images = subject.train_images if what == "train" else subject.evaluate_images
    steps = 1 if what == "train" else subject.evaluate_steps
    core, wall = _core_seconds(subject.workers()), time.perf_counter()
    act(n)
    wall = time.perf_counter() - wall
    return Sample(n * steps, n * images, wall, _core_seconds(subject.workers()) - core)


def _serve(connection: Connection, name: str, plan: Plan, depth: int) -> None:
    """Measure what the parent asks for until it closes the connection."""
    torch.set_num_threads(plan.threads)
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # the profiler's complaints about absent devices
    before = _peak_memory(plan.device)
    counts: dict[str, int] = {}
    with suppress(EOFError, OSError), computing(plan.precision):
        try:
            with SUBJECTS[name](plan, depth) as subject:
                for what in ("train", "evaluate"):
                    _timed(subject, what, 1)
                    counts[what] = max(1, round(plan.seconds / _timed(subject, what, 1).wall))
                counts["train"] = max(2, counts["train"])
                connection.send("ready")
                while True:
                    question = connection.recv()
                    if question in counts:
                        connection.send(_timed(subject, question, counts[question]))
                    elif question == "profile":
                        connection.send(_profile(subject, plan.device))
                    else:
                        connection.send(_peak_memory(plan.device) - before)
        except (EOFError, OSError):
            raise
        except Exception as error:  # the parent raises it
            connection.send(error)


class _Process:
    """A subject in a process of its own."""

    def __init__(self, name: str, plan: Plan, depth: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, there = context.Pipe()
        self.process = context.Process(target=_serve, args=(there, name, plan, depth))
        start_without_interrupts(self.process)
        there.close()

    def ask(self, question: str) -> Any:
        self.connection.send(question)
        return self.answer()

    def answer(self) -> Any:
        try:
            answer = self.connection.recv()
        except EOFError:
            self.process.join()
            raise RuntimeError(f"a measuring process ended with code {self.process.exitcode}") from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        self.connection.close()
        self.process.join()


def _peak_memory(device: str) -> int:
    """Return the most bytes held so far: on the device, or by this process."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_reserved(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _profile(subject: Subject, device: str) -> dict[str, float]:
    """Return the share of each kind of operation in the time of a training step, the largest first."""
    cuda = device.startswith("cuda")
    kinds = [torch.profiler.ProfilerActivity.CPU, *([torch.profiler.ProfilerActivity.CUDA] if cuda else [])]
    with torch.profiler.profile(activities=kinds, acc_events=True) as profile:
        subject.train(PROFILED_STEPS)
    times = {
        event.key: event.self_device_time_total if cuda else event.self_cpu_time_total
        for event in profile.key_averages()
    }
    total = sum(times.values())
    largest = sorted(times.items(), key=lambda item: item[1], reverse=True)[:8]
    return {name: time / total for name, time in largest if total}


def measure(plan: Plan, tell: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Measure everything the plan names and return one document of plain numbers, lists and strings.

    rows: a dictionary a line of the table. ratios, limits: [median, least, most]. warnings: lines for the reader.
    `tell` is given a line of progress now and then.
    """
    load = os.getloadavg()[0]
    device = torch.device(plan.device)
    environment = describe_environment(plan.device, plan.threads)
    cores = 1 if device.type == "cuda" else plan.processes
    rows: list[dict[str, Any]] = []
    ratios: list[dict[str, Any]] = []
    limits: list[tuple[float, float]] = []
    profiles: dict[str, dict[str, float]] = {}
    shares: list[float] = []
    for depth in plan.depths:
        tell(f"depth {depth}: starting")
        samples, peaks, profiles[str(depth)] = _measure_depth(plan, depth, cores, limits, tell)
        shares += [sample.core / sample.wall for sample in samples[ENGINE, "train"]]
        least = work(plan, depth)
        flops_rate, bandwidth = (statistics.median(values) for values in zip(*limits, strict=True))
        for (name, what), taken in samples.items():
            limit = least[what].seconds(flops_rate, bandwidth)
            if what == "train" and name == ENGINE:
                limit *= plan.networks  # which one step trains
            per_step = [sample.wall / sample.steps for sample in taken]
            rows.append(
                {
                    "depth": depth,
                    "loop": name,
                    "what": what,
                    "ms_per_step": _spread([1000 * seconds for seconds in per_step]),
                    "images_per_second": _spread([sample.images / sample.wall for sample in taken]),
                    "images_per_core_second": _spread([sample.images / sample.core for sample in taken]),
                    "share_of_limit": _spread([limit / seconds for seconds in per_step]) if "×" not in name else None,
                    "peak_memory": peaks.get(name),
                }
            )
        ratios += _ratios(depth, samples, device.type == "cuda")
    warnings = [] if device.type == "cuda" else _busy(shares, load)
    return {
        "environment": environment,
        "plan": {**asdict(plan), "depths": list(plan.depths)},
        "limits": {
            "flops_per_second": _spread([limit[0] for limit in limits]),
            "bytes_per_second": _spread([limit[1] for limit in limits]),
        },
        "rows": rows,
        "ratios": ratios,
        "profiles": profiles,
        "warnings": warnings,
    }


Samples = dict[tuple[str, str], list[Sample]]


def _measure_depth(
    plan: Plan, depth: int, cores: int, limits: list[tuple[float, float]], tell: Callable[[str], None]
) -> tuple[Samples, dict[str, int], dict[str, float]]:
    """Measure one depth in turns; the machine's limit is measured in every turn, too, and added to `limits`."""
    with ExitStack() as stack:
        subjects: list[_Process] = []
        for name in [*[ENGINE] * cores, CONVENTIONAL]:  # one starts after the other, so that each finds its pace
            subjects.append(_Process(name, plan, depth))
            stack.callback(subjects[-1].close)
            subjects[-1].answer()
        engines, baseline = subjects[:-1], subjects[-1]
        samples: Samples = {}

        def add(name: str, what: str, sample: Sample) -> None:
            samples.setdefault((name, what), []).append(sample)

        for repetition in range(plan.repetitions):
            for what in ("train", "evaluate"):
                add(CONVENTIONAL, what, baseline.ask(what))
                add(ENGINE, what, engines[0].ask(what))
            if cores > 1:
                for process in engines:
                    process.connection.send("train")
                add(f"{ENGINE} × {cores}", "train", _joined([process.answer() for process in engines]))
            threads = torch.get_num_threads()
            torch.set_num_threads(plan.threads)
            with computing(plan.precision):
                limits.append(machine_limit(torch.device(plan.device), plan.precision))
            torch.set_num_threads(threads)
            tell(f"depth {depth}: {repetition + 1} of {plan.repetitions}")
        peaks = {ENGINE: engines[0].ask("memory"), CONVENTIONAL: baseline.ask("memory")}
        return samples, peaks, engines[0].ask("profile")


def _joined(parts: Sequence[Sample]) -> Sample:
    """Return what several processes did at once as one measurement; it lasts until the last is done."""
    return Sample(
        sum(part.steps for part in parts),
        sum(part.images for part in parts),
        max(part.wall for part in parts),
        sum(part.core for part in parts),
    )


def _ratios(depth: int, samples: Mapping[tuple[str, str], list[Sample]], cuda: bool) -> list[dict[str, Any]]:
    """Compare measurements turn by turn: by core-seconds on a CPU, by the clock on a GPU or with several processes."""

    def ratio(name: str, other: str, what: str, by: str) -> dict[str, Any]:
        values = [
            (mine.images / getattr(mine, by)) / (its.images / getattr(its, by))
            for mine, its in zip(samples[name, what], samples[other, what], strict=True)
        ]
        per = {"core": "images per core-second", "wall": "images/s"}[by]
        return {"depth": depth, "what": f"{what}: {name} / {other}, {per}", "ratio": _spread(values)}

    found = [ratio(ENGINE, CONVENTIONAL, what, "wall" if cuda else "core") for what in ("train", "evaluate")]
    return found + [ratio(name, ENGINE, "train", "wall") for name, _ in samples if name.startswith(f"{ENGINE} ×")]


def _spread(values: Sequence[float]) -> list[float]:
    """Return [median, least, most], to five significant digits."""
    return [float(f"{value:.5g}") for value in (statistics.median(values), min(values), max(values))]


def _busy(shares: Sequence[float], load: float) -> list[str]:
    """Say so where other processes took the cores: the engine's process waits for nothing else."""
    share = statistics.median(shares)
    if share >= BUSY_SHARE:
        return []
    return [
        f"other processes took the cores: a measured process got {share:.0%} of one (load average {load:.1f} at the "
        "start); times on the clock are too long, measure again on a quiet machine"
    ]
