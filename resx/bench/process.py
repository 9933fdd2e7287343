"""Speed and memory of training: resx's engine against a conventional loop and against the machine's own limit.

Each subject has a process of its own, and all are measured in turns, so that a busy spell hits them alike.
"""

from __future__ import annotations

import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from resx.bench.plan import CONVENTIONAL, Plan, loops_of
from resx.bench.roofline import machine_limit, work
from resx.bench.subjects import Subject, conventional, engine
from resx.engines.processes import start
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
    total = time.process_time()
    for process in workers:
        with suppress(OSError):  # where there is no /proc only this process counts
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def timed(subject: Subject, what: str, n: int) -> Sample:
    """Do n steps of training, or n passes of evaluation, and return how long they took."""
    act = subject.train if what == "train" else subject.evaluate
    images = subject.train_images if what == "train" else subject.evaluate_images
    steps = 1 if what == "train" else subject.evaluate_steps
    core, wall = _core_seconds(subject.workers()), time.perf_counter()
    act(n)
    wall = time.perf_counter() - wall
    return Sample(n * steps, n * images, wall, _core_seconds(subject.workers()) - core)


def _serve(connection: Connection, name: str, plan: Plan, depth: int, networks: int) -> None:
    """Answer the parent's questions until it closes the connection."""
    torch.set_num_threads(plan.threads)
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # the profiler's complaints about absent devices
    before = _peak_memory(plan.device)
    counts: dict[str, int] = {}
    with suppress(EOFError, OSError), computing(plan.precision):
        try:
            with conventional(plan, depth) if name == CONVENTIONAL else engine(plan, depth, networks) as subject:
                for what in ("train", "evaluate"):
                    timed(subject, what, 1)
                    counts[what] = max(1, round(plan.seconds / timed(subject, what, 1).wall))
                counts["train"] = max(2, counts["train"])
                connection.send("ready")
                while True:
                    question = connection.recv()
                    if question in counts:
                        connection.send(timed(subject, question, counts[question]))
                    elif question == "mode":
                        connection.send(subject.mode)
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

    def __init__(self, name: str, plan: Plan, depth: int, networks: int = 1) -> None:
        self.process, self.connection = start(_serve, name, plan, depth, networks, daemon=False)

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


def measure(plan: Plan, say: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Measure everything in the plan and return one document of plain numbers, lists and strings.

    rows: a dictionary a line of the table. ratios, limits: [median, least, most]. modes: how steps of each loop are
    driven. warnings: lines for the reader. say: receives a line of progress now and then.
    """
    load = os.getloadavg()[0]
    is_cuda = plan.device.startswith("cuda")
    rows: list[dict[str, Any]] = []
    ratios: list[dict[str, Any]] = []
    limits: list[tuple[float, float]] = []
    profiles: dict[str, dict[str, float]] = {}
    modes: dict[str, str] = {}
    shares: list[float] = []
    for depth in plan.depths:
        say(f"depth {depth}: starting")
        turns = _measure_depth(plan, depth, limits, say)
        profiles[str(depth)] = turns.profile
        modes |= turns.modes
        shares += [sample.core / sample.wall for sample in turns.samples[next(iter(loops_of(plan.networks))), "train"]]
        rows += _rows(plan, depth, turns, limits)
        ratios += _ratios(plan, depth, turns.samples)
    return {
        "environment": describe_environment(plan.device, plan.threads),
        "plan": {**asdict(plan), "depths": list(plan.depths), "networks": list(plan.networks)},
        "limits": {
            "flops_per_second": spread([limit[0] for limit in limits]),
            "bytes_per_second": spread([limit[1] for limit in limits]),
        },
        "rows": rows,
        "ratios": ratios,
        "profiles": profiles,
        "modes": modes,
        "warnings": [] if is_cuda else _busy(shares, load),
    }


Samples = dict[tuple[str, str], list[Sample]]


@dataclass
class Turns:
    """The results at one depth: samples by loop and activity, peaks of memory, modes, and the engine's profile."""

    samples: Samples
    peaks: dict[str, int]
    modes: dict[str, str]
    profile: dict[str, float]


def _measure_depth(plan: Plan, depth: int, limits: list[tuple[float, float]], say: Callable[[str], None]) -> Turns:
    """Measure one depth in turns, each with the machine's limit, which is added to `limits`."""
    engines = loops_of(plan.networks)
    first = next(iter(engines))
    others = 0 if plan.device.startswith("cuda") else plan.processes - 1
    with ExitStack() as stack:

        def start(name: str, networks: int = 1) -> _Process:  # one after the other, so that each finds its pace
            process = _Process(name, plan, depth, networks)
            stack.callback(process.close)
            process.answer()
            return process

        loops = {name: start(name, networks) for name, networks in engines.items()}
        crowd = [loops[first], *(start(first, engines[first]) for _ in range(others))]
        loops = {CONVENTIONAL: start(CONVENTIONAL), **loops}
        samples: Samples = {}
        for repetition in range(plan.repetitions):
            for what in ("train", "evaluate"):
                for name, process in loops.items():
                    samples.setdefault((name, what), []).append(process.ask(what))
            if len(crowd) > 1:
                for process in crowd:
                    process.connection.send("train")
                together = _joined([process.answer() for process in crowd])
                samples.setdefault((f"{first} × {len(crowd)}", "train"), []).append(together)
            limits.append(_limit(plan))
            say(f"depth {depth}: {repetition + 1} of {plan.repetitions}")
        return Turns(
            samples,
            peaks={name: process.ask("memory") for name, process in loops.items()},
            modes={name: process.ask("mode") for name, process in loops.items()},
            profile=loops[first].ask("profile"),
        )


def _limit(plan: Plan) -> tuple[float, float]:
    threads = torch.get_num_threads()
    torch.set_num_threads(plan.threads)
    try:
        with computing(plan.precision):
            return machine_limit(torch.device(plan.device), plan.precision)
    finally:
        torch.set_num_threads(threads)


def _rows(plan: Plan, depth: int, turns: Turns, limits: Sequence[tuple[float, float]]) -> list[dict[str, Any]]:
    """Return the table's rows of one depth; a step of several networks has the arithmetic of all of them."""
    least = work(plan, depth)
    flops_rate, bandwidth = (statistics.median(values) for values in zip(*limits, strict=True))
    rows = []
    for (name, what), samples in turns.samples.items():
        limit = least[what].seconds(flops_rate, bandwidth) * (
            loops_of(plan.networks).get(name, 1) if what == "train" else 1
        )
        per_step = [sample.wall / sample.steps for sample in samples]
        rows.append(
            {
                "depth": depth,
                "loop": name,
                "what": what,
                "ms_per_step": spread([1000 * seconds for seconds in per_step]),
                "images_per_second": spread([sample.images / sample.wall for sample in samples]),
                "images_per_core_second": spread([sample.images / sample.core for sample in samples]),
                "share_of_limit": spread([limit / seconds for seconds in per_step]) if "×" not in name else None,
                "peak_memory": turns.peaks.get(name),
            }
        )
    return rows


def _joined(parts: Sequence[Sample]) -> Sample:
    """Return simultaneous measurements as one, which lasts until the last of them ends."""
    return Sample(
        sum(part.steps for part in parts),
        sum(part.images for part in parts),
        max(part.wall for part in parts),
        sum(part.core for part in parts),
    )


def _ratios(plan: Plan, depth: int, samples: Samples) -> list[dict[str, Any]]:
    """Compare measurements turn by turn: by core-seconds on a CPU, by the clock on a GPU or with several at once."""
    by = "wall" if plan.device.startswith("cuda") else "core"
    first = next(iter(loops_of(plan.networks)))

    def ratio(name: str, other: str, what: str, by: str) -> dict[str, Any]:
        values = [
            (mine.images / getattr(mine, by)) / (its.images / getattr(its, by))
            for mine, its in zip(samples[name, what], samples[other, what], strict=True)
        ]
        per = {"core": "images per core-second", "wall": "images/s"}[by]
        return {"depth": depth, "what": f"{what}: {name} / {other}, {per}", "ratio": spread(values)}

    together = [name for name, what in samples if what == "train" and name not in (first, CONVENTIONAL)]
    return [
        *(ratio(first, CONVENTIONAL, what, by) for what in ("train", "evaluate")),
        *(ratio(name, first, "train", "wall") for name in together),
    ]


def spread(values: Sequence[float]) -> list[float]:
    """Return [median, least, most], to five significant digits."""
    return [float(f"{value:.5g}") for value in (statistics.median(values), min(values), max(values))]


def _busy(shares: Sequence[float], load: float) -> list[str]:
    """Return a warning where other processes took the cores: the engine's process waits for nothing else."""
    share = statistics.median(shares)
    if share >= BUSY_SHARE:
        return []
    return [
        f"other processes took the cores: a measured process got {share:.0%} of one (load average {load:.1f} at the "
        "start); times on the clock are too long, measure again on a quiet machine"
    ]
