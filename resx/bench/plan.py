"""Speed and memory of training: resx's engine against a conventional loop and against the machine's own limit.

Everything is measured in one run and in turns, so that a busy spell hits all alike, each subject in a process of its
own. Images are made up, at CIFAR's shape unless told otherwise; the network and the recipe are those of He et al. 2016,
section 4.2. The conventional loop is what most published code is: torchvision transforms on PIL images, a DataLoader
with workers, steps launched one by one, contiguous tensors, SGD that is not fused, the loss read at every step.

Roofline: a step takes at least as long as its arithmetic at the fastest rate that a matrix product or a convolution
reaches here, and at least as long as its memory traffic at the rate of a large copy. The arithmetic is that of
convolutions and linear layers, forward and backward. The traffic is that of unfused operations which read their inputs
from memory and write their outputs to it once each. Both are assumed to overlap perfectly, so the limit is the longer.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms
from torchvision.transforms.functional import to_pil_image

from resx import data, model
from resx.engines.signals import start_without_interrupts
from resx.model.construction import skeleton
from resx.spec import RunSpec
from resx.store.environment import describe_environment
from resx.store.files import write_atomic
from resx.training.evaluate import autocast, evaluate, evaluation_batch, loss_of
from resx.training.machine import Machine, computing, wait_for
from resx.training.resolve import resolve
from resx.training.step import drive, load_chunk, make_feeds, make_learner

TRAIN_IMAGES, TEST_IMAGES = 2048, 1024
BUSY_SHARE = 0.9  # of a core that a measured process must get
PROFILED_STEPS = 3
CONVENTIONAL, ENGINE = "conventional", "resx"


@dataclass(frozen=True)
class Plan:
    """What is measured.

    threads: of each process. processes: how many train at once on a CPU beside one alone. networks: side by side in one
    process on a GPU. workers: of the conventional loop's DataLoader. seconds: of one measurement, of which there are
    `repetitions`.
    """

    depths: tuple[int, ...] = (20, 56)
    batch_size: int = 128
    image_size: int = 32
    shortcut: str = "identity"
    precision: str = "fp32"
    device: str = "cpu"
    threads: int = 1
    processes: int = 2
    networks: int = 1
    workers: int = 2
    repetitions: int = 5
    seconds: float = 1.0
    checkpoint_activations: bool = False

    def spec(self, depth: int, seed: int = 0) -> RunSpec:
        """Return the run whose steps are measured. Raises SpecError for what cannot be trained."""
        fields = {
            "dataset": f"synthetic:classes=10,size={self.image_size},train={TRAIN_IMAGES},test={TEST_IMAGES}",
            "augment": "crop-flip",
            "depth": depth,
            "shortcut": self.shortcut,
            "batch_size": self.batch_size,
            "precision": self.precision,
            "steps": 64_000,
            "lr": 0.1,
            "seed": seed,
        }
        return resolve([fields], Machine(device=self.device))[0]


@dataclass(frozen=True)
class Sample:
    """One measurement: steps (or batches), images, seconds on the clock, and core-seconds with those of workers."""

    steps: int
    images: int
    wall: float
    core: float


@dataclass
class Subject:
    """What a process measures. train, evaluate: do n steps (n passes over the test images) and wait for the end."""

    train: Callable[[int], None]
    evaluate: Callable[[int], None]
    train_images: int  # a step
    evaluate_images: int  # a pass
    evaluate_steps: int  # batches of the training's size that a pass stands for
    workers: Callable[[], list[int]]  # process ids


# --- the two subjects ----------------------------------------------------------------------------------------------


@contextmanager
def engine(plan: Plan, depth: int) -> Iterator[Subject]:
    """Train with resx's own steps: chunks are loaded, driven and read as in every run."""
    device = torch.device(plan.device)
    specs = [plan.spec(depth, seed) for seed in range(plan.networks)]
    dataset = data.load(specs[0].data, None)
    feeds = make_feeds(specs, dataset, device)
    learners = [
        make_learner(spec, dataset, feed, Path(), plan.checkpoint_activations)
        for spec, feed in zip(specs, feeds, strict=True)
    ]
    rows, done = learners[0].chunk.rows, 0
    load_chunk(learners, 0, 1)
    driver = drive(learners)

    def train(n: int) -> None:
        nonlocal done
        while n > 0:
            steps = min(n, rows)
            load_chunk(learners, done, steps)
            driver.run(steps, lambda: False)
            for learner in learners:
                learner.chunk.losses[:steps].tolist()
            done, n = done + steps, n - steps

    def evaluate_test(n: int) -> None:
        batch = evaluation_batch(plan.batch_size, dataset.input_shape, device)
        for learner in learners * n:
            evaluate(
                learner.network, learner.feed.batches.evaluation("test", None, batch), "classification", plan.precision
            )

    images = len(dataset.test_x) * len(learners)
    passes = -(-images // plan.batch_size)
    yield Subject(train, evaluate_test, plan.batch_size * len(learners), images, passes, list)


class Pictures(Dataset[tuple[Tensor, int]]):
    """PIL images behind torchvision transforms, one at a time."""

    def __init__(self, images: Tensor, labels: Tensor, augment: bool) -> None:
        self.images = [to_pil_image(image) for image in images]
        self.labels = labels.tolist()
        steps: list[Any] = [transforms.ToTensor(), transforms.Normalize((0.49, 0.48, 0.45), (0.25, 0.24, 0.26))]
        size = images.shape[-1]
        crop = [transforms.RandomCrop(size, padding=4), transforms.RandomHorizontalFlip()] if augment else []
        self.transform = transforms.Compose([*crop, *steps])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), self.labels[index]


def conventional_step(
    network: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor, labels: Tensor, precision: str
) -> float:
    """Do one SGD step as most code does and return its loss."""
    optimizer.zero_grad()
    with autocast(precision, inputs.device):
        outputs = network(inputs)
    loss = loss_of(outputs, labels, "classification")
    loss.backward()
    optimizer.step()
    return loss.item()


def conventional_optimizer(network: nn.Module, spec: RunSpec) -> torch.optim.Optimizer:
    """Return the recipe's SGD as torch makes it by default."""
    train = spec.train
    return torch.optim.SGD(network.parameters(), train.lr, train.momentum, weight_decay=train.weight_decay)


@contextmanager
def conventional(plan: Plan, depth: int) -> Iterator[Subject]:
    """Train the same network by the same recipe with the conventional loop."""
    device, spec = torch.device(plan.device), plan.spec(depth)
    dataset = data.load(spec.data, None)
    network = model.build(spec.model, dataset.input_shape, dataset.n_outputs, spec.seed)
    network = network.to(device, memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    optimizer = conventional_optimizer(network, spec)
    options: dict[str, Any] = {
        "batch_size": plan.batch_size,
        "num_workers": plan.workers,
        "persistent_workers": plan.workers > 0,
        "pin_memory": device.type == "cuda",
    }
    train_loader = DataLoader(Pictures(dataset.train_x, dataset.train_y, True), shuffle=True, drop_last=True, **options)
    test_loader = DataLoader(Pictures(dataset.test_x, dataset.test_y, False), **options)

    def endless() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from train_loader

    batches = endless()

    def train(n: int) -> None:
        network.train()
        for _ in range(n):
            inputs, labels = next(batches)
            conventional_step(network, optimizer, inputs.to(device), labels.to(device), plan.precision)

    def evaluate_test(n: int) -> None:
        for _ in range(n):
            moved = ((inputs.to(device), labels.to(device)) for inputs, labels in test_loader)
            evaluate(network, moved, "classification", plan.precision)

    def workers() -> list[int]:
        return [process.pid for process in multiprocessing.active_children() if process.pid]

    images = len(dataset.test_x)
    yield Subject(train, evaluate_test, plan.batch_size, images, -(-images // plan.batch_size), workers)


SUBJECTS = {ENGINE: engine, CONVENTIONAL: conventional}


# --- a process for each subject ------------------------------------------------------------------------------------


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


# --- the machine's limit -------------------------------------------------------------------------------------------


class _Traffic(TorchDispatchMode):
    """Adds up the bytes that operations read and write, each input and output once."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
            self.bytes += sum(tensor.nbytes for tensor in tensors)
        return result


@dataclass(frozen=True)
class Work:
    """What a step has to do at least: floating-point operations, and bytes of memory traffic."""

    flops: int
    bytes: int

    def seconds(self, flops_rate: float, bandwidth: float) -> float:
        """Return the roofline's least time."""
        return max(self.flops / flops_rate, self.bytes / bandwidth)


def work(plan: Plan, depth: int) -> dict[str, Work]:
    """Count a training step and the evaluation of one batch, on the meta device."""
    spec = plan.spec(depth)
    network = skeleton(spec.model, (3, plan.image_size, plan.image_size), 10)
    inputs = torch.empty(plan.batch_size, 3, plan.image_size, plan.image_size, device="meta")
    labels = torch.zeros(plan.batch_size, dtype=torch.int64, device="meta")
    size = 2 if plan.precision == "bf16" else 4
    counted = {}
    for what in ("train", "evaluate"):
        network.train(what == "train")
        with torch.set_grad_enabled(what == "train"), FlopCounterMode(display=False) as flops, _Traffic() as traffic:
            loss = loss_of(network(inputs), labels, "classification")
            if what == "train":
                loss.backward()
        counted[what] = Work(flops.get_total_flops(), traffic.bytes * size // 4)
    return counted


def machine_limit(device: torch.device, precision: str) -> tuple[float, float]:
    """Return (FLOP/s, bytes/s) that this device reaches now: the best of matrix products and convolutions; a copy."""
    cuda = device.type == "cuda"
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    n = 8192 if cuda else 1024
    side = torch.randn(n, n, device=device, dtype=kind)
    images = torch.randn(256 if cuda else 64, 256, 16, 16, device=device, dtype=kind)
    images = images.to(memory_format=torch.channels_last)
    rates = [2 * n**3 / _best(lambda: side @ side, device)]
    for kernel in (1, 3):
        weight = torch.randn(256, 256, kernel, kernel, device=device, dtype=kind)
        weight = weight.to(memory_format=torch.channels_last)
        flops = 2 * images.numel() * 256 * kernel**2
        convolve = partial(torch.nn.functional.conv2d, images, weight, padding=kernel // 2)
        rates.append(flops / _best(convolve, device))
    source = torch.ones(2**28 if cuda else 2**26, device=device)
    target = torch.empty_like(source)
    return max(rates), 2 * source.nbytes / _best(lambda: target.copy_(source), device)


def _best(act: Callable[[], Any], device: torch.device, times: int = 4) -> float:
    best = float("inf")
    with torch.no_grad():
        for _ in range(times):
            begun = time.perf_counter()
            act()
            wait_for(device)
            best = min(best, time.perf_counter() - begun)
    return best


# --- everything together -------------------------------------------------------------------------------------------


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


# --- what is kept --------------------------------------------------------------------------------------------------

COLUMNS = ("depth", "what", "loop", "ms/step", "images/s", "of limit", "MiB")


def table_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """Return the cells under COLUMNS: median (least–most); memory is the peak beyond that of a bare process."""
    return [
        [
            str(row["depth"]),
            row["what"],
            row["loop"],
            _cell(row["ms_per_step"]),
            _cell(row["images_per_second"]),
            f"{row['share_of_limit'][0]:.0%}" if row["share_of_limit"] else "–",
            "–" if row["peak_memory"] is None else f"{row['peak_memory'] / 2**20:.0f}",
        ]
        for row in result["rows"]
    ]


def summary_lines(result: Mapping[str, Any]) -> list[str]:
    """Return the ratios, the limit with its assumptions, where a step's time goes, and warnings."""
    lines = [f"depth {item['depth']}, {item['what']}: {_cell(item['ratio'], 2)}" for item in result["ratios"]]
    flops, traffic = result["limits"]["flops_per_second"], result["limits"]["bytes_per_second"]
    lines.append(
        f"limit: {flops[0] / 1e9:.0f} GFLOP/s ({flops[1] / 1e9:.0f}–{flops[2] / 1e9:.0f}), the best of matrix products "
        f"and convolutions; {traffic[0] / 1e9:.0f} GB/s ({traffic[1] / 1e9:.0f}–{traffic[2] / 1e9:.0f}), a large copy. "
        "A step takes at least the longer of its arithmetic (convolutions and linear layers) at the first and its "
        "traffic (unfused operations, inputs and outputs once each) at the second"
    )
    for depth, shares in result["profiles"].items():
        listed = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        lines.append(f"where a training step's time goes at depth {depth}: {listed}")
    return lines + [f"WARNING: {warning}" for warning in result["warnings"]]


def _cell(spread: Sequence[float], digits: int | None = None) -> str:
    def text(value: float) -> str:
        return f"{value:.{digits}f}" if digits is not None else f"{value:.3g}" if value < 100 else f"{value:.0f}"

    return f"{text(spread[0])} ({text(spread[1])}–{text(spread[2])})"


def publish(result: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write the machine's table (Markdown) and numbers (JSON) into a folder, named after the machine."""
    environment, plan = result["environment"], result["plan"]
    words = f"{environment['hardware']}-{plan['precision']}-batch-{plan['batch_size']}"
    slug = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")
    cells = table_rows(result)
    lines = [
        f"# {environment['hardware']}",
        "",
        f"`{environment['command']}`; torch {environment['torch']}, Python {environment['python']}, commit "
        f"{environment['commit']}, {environment['started']}. {plan['precision']}, batch {plan['batch_size']}, images "
        f"{plan['image_size']}×{plan['image_size']}, {plan['threads']} thread(s) a process, median (least–most) of "
        f"{plan['repetitions']} measurements in turns.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
        *("| " + " | ".join(row) + " |" for row in cells),
        "",
        *(f"* {line}" for line in summary_lines(result)),
        "",
    ]
    files = [folder / f"{slug}.md", folder / f"{slug}.json"]
    write_atomic(files[0], "\n".join(lines))
    write_atomic(files[1], json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    return files
