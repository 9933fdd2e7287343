"""The training loop: one loop that drives a list of networks, each with its own data stream and its own folder.

Recipe: He et al. 2016, section 4.2. SGD with momentum and weight decay on every parameter; a step draws nothing and
reads nothing back. Losses are read, and the outside world is told, between blocks of steps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from resx import model
from resx.data import Dataset
from resx.data.batches import Batches, Tables
from resx.seeding import generator
from resx.spec import RunSpec
from resx.store.environment import describe_environment
from resx.store.files import StoreError
from resx.store.run import OUTCOMES, RunFolder
from resx.training.drive import Driver, driver
from resx.training.evaluate import EVAL_BATCH, autocast, evaluate, loss_of
from resx.training.initial import build_network
from resx.training.memory import checkpoint_activations
from resx.training.schedule import (
    WARMUP_FACTOR,
    WARMUP_UNTIL,
    evaluation_steps,
    learning_rates,
    snapshot_steps,
)

BLOCK = 32  # steps between two looks at the losses
CUDA_BLOCK = 250  # a replayed step takes well under a millisecond
CUDA_EVAL_VALUES = 6_000_000  # input values at a time; with more of them, fewer kernels have to be launched
RUNNING_ERROR_WEIGHT = 0.05  # of one batch in the running error that ends the warm-up
CHECKPOINT_SHARE = 0.05  # of the time that may go into writing checkpoints


@dataclass(frozen=True)
class Progress:
    """Where a run stands: after `step` of `steps`, in passes over the training images after `epoch` (a fraction).

    row: an evaluation's numbers, where there was one.
    """

    run_id: str
    step: int
    steps: int
    epoch: float
    running_loss: float
    running_error: float
    row: dict[str, float] | None = None


class Stopped(Exception):
    """Training was asked to stop (by `signal`, where it was one) and has left a checkpoint. `step` is where."""

    def __init__(self, run_id: str, step: int, signal: int | None = None) -> None:
        super().__init__(run_id, step, signal)  # all of them, so that it survives the way between processes
        self.run_id, self.step, self.signal = run_id, step, signal


@dataclass(eq=False)
class Trainee:
    """One network in training, with everything that a step reads or writes in place on the device."""

    folder: RunFolder
    dataset: Dataset
    batches: Batches
    network: nn.Module
    optimizer: torch.optim.Optimizer
    rate: Tensor  # the optimizer's learning rate
    warming: Tensor  # bool: the warm-up still lasts
    running_error: Tensor  # fraction, exponentially averaged
    tables: Tables | None = None
    rates: Tensor | None = None  # [n_steps]
    buffers: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)  # (buffer, its values [n_steps, …])
    losses: Tensor | None = None  # [n_steps]
    errors: Tensor | None = None  # [n_steps], fraction wrong
    step: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)
    since: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])  # loss, error, steps since the last row
    diverged: bool = False

    @property
    def spec(self) -> RunSpec:
        return self.folder.spec

    @property
    def state(self) -> list[Tensor]:
        """Every tensor that a step changes in place."""
        parameters = list(self.network.parameters())
        momentum = [self.optimizer.state[parameter]["momentum_buffer"] for parameter in parameters]
        assert self.losses is not None and self.errors is not None
        flags = [self.rate, self.warming, self.running_error, self.losses, self.errors]
        return [*parameters, *self.network.buffers(), *momentum, *flags]

    @property
    def block(self) -> int:
        """How many steps are loaded at a time; noise can be as large as all activations."""
        quiet = self.rate.device.type == "cuda" and not model.stochastic_modules(self.network)
        return CUDA_BLOCK if quiet else BLOCK


def train_networks(
    folders: Sequence[RunFolder],
    dataset: Dataset,
    *,
    device: torch.device,
    results: Path,
    allow_change: bool = False,
    checkpointed: bool = False,
    report: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Train the networks of some runs side by side, from their checkpoints where they have any, until all are done.

    They share the data set, the number of steps and that between evaluations; one that is behind the others catches up
    first. checkpointed: activations are computed again instead of kept. Raises Stopped (after a checkpoint) when
    `should_stop` says so, StoreError where something recorded cannot be read, written or continued.
    """
    set_precision(folders[0].spec.train.precision)
    trainees = [prepare(folder, dataset, device, results, allow_change, checkpointed) for folder in folders]
    clock = _Clock(trainees, device)
    for trainee in trainees:
        if trainee.step == 0 and not trainee.rows:
            _record(trainee, report)
    clock.commit()
    train = folders[0].spec.train
    marks = sorted(evaluation_steps(train) | snapshot_steps(train))
    active = [trainee for trainee in trainees if not _is_done(trainee)]
    driven: list[Trainee] = []
    run: Driver | None = None
    while active:
        start = min(trainee.step for trainee in active)
        group = [trainee for trainee in active if trainee.step == start]
        ahead = [trainee.step for trainee in active if trainee.step > start]
        block = min(trainee.block for trainee in group)
        end = min(start + block, *ahead, *(mark for mark in marks if mark > start))
        load_block(group, start, end - start)
        if run is None or group != driven:
            run = None  # a graph's memory is given back before the next is captured
            run, driven = drive(group), group
        stopped = run.run(end - start, should_stop)
        for trainee in group:
            _read_block(trainee, stopped)
            if trainee.step in snapshot_steps(train) and not trainee.diverged:
                trainee.folder.save_snapshot(trainee.step, trainee.network.state_dict())
            if trainee.diverged or trainee.step in evaluation_steps(train):
                _record(trainee, report)
            else:
                report(_progress(trainee))
        active = [trainee for trainee in active if not _is_done(trainee)]
        if stopped < end - start or (active and should_stop()):
            clock.commit()
            raise Stopped(active[0].folder.run_id, active[0].step)
        if not active or clock.is_due():
            clock.commit()
    for trainee in trainees:
        _finish(trainee)


def prepare(
    folder: RunFolder,
    dataset: Dataset,
    device: torch.device,
    results: Path,
    allow_change: bool = False,
    checkpointed: bool = False,
) -> Trainee:
    """Build a network, put it on the device, and bring it to where its checkpoint stands."""
    spec = folder.spec
    network = build_network(spec, dataset, results).to(device)
    network.train()
    if checkpointed:
        checkpoint_activations(network)
    rate = torch.tensor(spec.train.lr, device=device)
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=rate,
        momentum=spec.train.momentum,
        weight_decay=spec.train.weight_decay,
        fused=True,
    )
    for parameter in network.parameters():  # zeros give the same first step, and nothing is made inside a step
        optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    trainee = Trainee(
        folder=folder,
        dataset=dataset,
        batches=Batches(dataset, spec.data, spec.train.batch_size, spec.seed, device),
        network=network,
        optimizer=optimizer,
        rate=rate,
        warming=torch.tensor(spec.train.warmup, device=device),
        running_error=torch.ones((), device=device),
    )
    saved = folder.load_checkpoint()
    if saved is None:
        folder.save_snapshot(0, network.state_dict())
    else:
        _refuse_change(folder, device, allow_change)
        state, trainee.rows = saved
        _restore(trainee, state)
    return trainee


def _refuse_change(folder: RunFolder, device: torch.device, allow_change: bool) -> None:
    """Raise StoreError for a resume on another kind of device or another torch, which would change the numbers."""
    before = folder.attempts()[-1] if folder.attempts() else {}
    now = {"device": device.type, "torch": torch.__version__}
    for key, value in now.items():
        if not allow_change and before.get(key, value) != value:
            raise StoreError(
                f"{folder.path}: was trained with {key} {before[key]}, this is {value}, so its numbers would differ "
                "from an uninterrupted run's; --allow-change goes on all the same and records it"
            )


def _state(trainee: Trainee) -> dict[str, Any]:
    momentum = [trainee.optimizer.state[parameter]["momentum_buffer"] for parameter in trainee.network.parameters()]
    return {
        "step": trainee.step,
        "network": trainee.network.state_dict(),
        "momentum": momentum,
        "warming": trainee.warming,
        "running_error": trainee.running_error,
        "since": trainee.since,
        "diverged": trainee.diverged,
    }


def _restore(trainee: Trainee, state: dict[str, Any]) -> None:
    try:
        trainee.network.load_state_dict(state["network"])
        for parameter, saved in zip(trainee.network.parameters(), state["momentum"], strict=True):
            trainee.optimizer.state[parameter]["momentum_buffer"].copy_(saved)
        trainee.warming.copy_(state["warming"])
        trainee.running_error.copy_(state["running_error"])
        trainee.step, trainee.since = state["step"], list(state["since"])
        trainee.diverged = state["diverged"]
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        path = trainee.folder.path / "checkpoint.pt"
        raise StoreError(f"{path}: does not fit this network; move it away to start this run over") from error


def load_block(trainees: Iterable[Trainee], first_step: int, n_steps: int) -> None:
    """Draw what the next n_steps steps need (batches, rates, noise, planned weights) and put it on the device.

    At most `trainee.block` steps. The tensors stay where they are, since a CUDA graph reads them there.
    """
    for trainee in trainees:
        spec, device, rows = trainee.spec, trainee.rate.device, trainee.block
        drawn = trainee.batches.tables(first_step, n_steps)
        tables: dict[str, Any] = {
            name: values if values is None else _load(getattr(trainee.tables, name, None), values, rows)
            for name, values in vars(drawn).items()
        }
        trainee.tables = Tables(**tables)
        trainee.rates = _load(trainee.rates, learning_rates(spec.train, first_step, n_steps).to(device), rows)
        trainee.losses = _load(trainee.losses, torch.zeros(n_steps, device=device), rows)
        trainee.errors = _load(trainee.errors, torch.zeros(n_steps, device=device), rows)
        steps = range(first_step, first_step + n_steps)
        for name, module in model.scheduled_modules(trainee.network):
            values = torch.tensor([module.schedule(step / spec.train.steps) for step in steps], device=device)
            _, loaded = trainee.buffers.get(name, (None, None))
            trainee.buffers[name] = (module.weight, _load(loaded, values, rows))
        for name, module in model.stochastic_modules(trainee.network):
            streams = (generator(spec.seed, "noise", name, step) for step in steps)
            values = torch.stack([module.draw(stream, spec.train.batch_size) for stream in streams]).to(device)
            if module.noise.shape != values.shape[1:]:  # only a draw knows its shape
                module.noise = torch.empty_like(values[0])
            _, loaded = trainee.buffers.get(name, (None, None))
            trainee.buffers[name] = (module.noise, _load(loaded, values, rows))


def _load(held: Tensor | None, values: Tensor, rows: int) -> Tensor:
    """Put values [n, …] into the first rows of what is held, which is made at the first call."""
    if held is None:
        held = values.new_zeros(rows, *values.shape[1:])
    held[: len(values)].copy_(values)
    return held


def drive(trainees: Sequence[Trainee]) -> Driver:
    """Return what runs the loaded steps of all these networks; a block must have been loaded."""
    steps = [partial(train_step, trainee) for trainee in trainees]
    state = [tensor for trainee in trainees for tensor in trainee.state]
    return driver(steps, state, trainees[0].rate.device)


def train_step(trainee: Trainee, k: Tensor) -> None:
    """One SGD step on row k (int64 [1], on the device) of what `load_block` loaded; reads nothing back."""
    assert trainee.tables and trainee.rates is not None
    assert trainee.losses is not None and trainee.errors is not None
    inputs, labels = trainee.batches.assemble(trainee.tables, k)
    for buffer, values in trainee.buffers.values():
        buffer.copy_(values.index_select(0, k)[0])
    base = trainee.rates.index_select(0, k)[0]
    trainee.rate.copy_(torch.where(trainee.warming, base * WARMUP_FACTOR, base))
    with autocast(trainee.spec.train.precision, inputs.device):
        outputs = trainee.network(inputs)
    loss = loss_of(outputs, labels, trainee.dataset.task)
    trainee.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    trainee.optimizer.step()
    with torch.no_grad():
        trainee.losses.index_copy_(0, k, loss.detach().reshape(1))
        if trainee.dataset.task == "classification":
            error = (outputs.argmax(dim=1) != labels).float().mean()
            trainee.errors.index_copy_(0, k, error.reshape(1))
            trainee.running_error.lerp_(error, RUNNING_ERROR_WEIGHT)
            trainee.warming.logical_and_(trainee.running_error >= WARMUP_UNTIL)


def _read_block(trainee: Trainee, n_steps: int) -> None:
    """Read the losses of a block back; the first that is not finite ends the run as diverged."""
    assert trainee.losses is not None and trainee.errors is not None
    losses, errors = trainee.losses[:n_steps].tolist(), trainee.errors[:n_steps].tolist()
    for loss, error in zip(losses, errors, strict=True):
        trainee.step += 1
        trainee.since[0] += loss
        trainee.since[1] += error
        trainee.since[2] += 1
        if not math.isfinite(loss):
            trainee.diverged = True
            return


def _progress(trainee: Trainee, row: dict[str, float] | None = None) -> Progress:
    steps = trainee.since[2]
    running = (trainee.since[0] / steps, 100 * trainee.since[1] / steps) if steps else (math.nan, math.nan)
    train = trainee.spec.train
    epoch = trainee.step * train.batch_size / len(trainee.dataset.train_x)
    return Progress(trainee.folder.run_id, trainee.step, train.steps, epoch, *running, row)


def _record(trainee: Trainee, report: Callable[[Progress], None]) -> None:
    """Add a row to the metrics: the running numbers, and an evaluation unless the run diverged."""
    progress = _progress(trainee)
    row: dict[str, float] = {"step": trainee.step, "lr": float(f"{float(trainee.rate):.6g}")}
    if trainee.since[2]:
        row |= {"running_loss": progress.running_loss}
        if trainee.dataset.task == "classification":
            row |= {"running_error": progress.running_error}
    if not trainee.diverged:
        for split in ("train", "val", "test"):
            row |= _evaluation_row(trainee, split)
    trainee.rows.append(row)
    report(_progress(trainee, row))
    trainee.since = [0.0, 0.0, 0.0]


def _evaluation_row(trainee: Trainee, split: str) -> dict[str, float]:
    """Evaluate one split, on all of it after the last step; the test outputs of the last iterate are kept."""
    if split == "val" and trainee.dataset.val_x is None:
        return {}
    train = trainee.spec.train
    last = trainee.step == train.steps
    numbers = evaluate(
        trainee.network,
        trainee.batches.evaluation(split, None if last else train.eval_images, evaluation_batch(trainee)),
        trainee.dataset.task,
        train.precision,
        keep_outputs=last and split == "test",
    )
    if numbers.outputs is not None and numbers.labels is not None:
        trainee.folder.save_predictions(numbers.outputs.numpy(), numbers.labels.numpy())
    row = {f"{split}_loss": numbers.loss, f"{split}_error": numbers.error}
    return {key: value for key, value in row.items() if not math.isnan(value)}


def evaluation_batch(trainee: Trainee) -> int:
    """Return how many inputs are evaluated at a time; on a CPU always as many, since rounding depends on it."""
    if trainee.rate.device.type == "cpu":
        return EVAL_BATCH
    return max(trainee.spec.train.batch_size, CUDA_EVAL_VALUES // math.prod(trainee.dataset.input_shape))


def _is_done(trainee: Trainee) -> bool:
    return trainee.diverged or trainee.step >= trainee.spec.train.steps


def _finish(trainee: Trainee) -> None:
    """Write the result, from the last row of the metrics."""
    spec, dataset, folder = trainee.spec, trainee.dataset, trainee.folder
    if not trainee.diverged and not folder.has_predictions():  # they were damaged or lost since
        _evaluation_row(trainee, "test")
    complexity = model.count(spec.model, dataset.input_shape, dataset.n_outputs)
    folder.finish(
        {
            "run_id": folder.run_id,
            "status": "diverged" if trainee.diverged else "finished",
            "steps_done": trainee.step,
            **{outcome: trainee.rows[-1].get(outcome) for outcome in OUTCOMES},
            "seconds": round(sum(attempt["seconds"] for attempt in folder.attempts()), 2),
            "data_label": dataset.label,
            "reference": dataset.reference,
            "train_images": len(dataset.train_x),
            "test_images": len(dataset.test_x),
            "parameters": complexity.parameters,
            "multiply_adds": complexity.multiply_adds,
        }
    )


def set_precision(precision: str) -> None:
    """Allow TF32 in matrix products and convolutions exactly where the spec says so."""
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


class _Clock:
    """Decides when a checkpoint is due, so that writing them stays a small share of the time, and records times."""

    def __init__(self, trainees: Sequence[Trainee], device: torch.device) -> None:
        self.trainees = trainees
        self.started = self.last = time.monotonic()
        self.cost = 0.0
        self.attempt = describe_environment(device.type, torch.get_num_threads())
        for trainee in trainees:
            trainee.folder.record_attempt(self._entry(trainee, trainee.step), replace=False)
        self.first = [trainee.step for trainee in trainees]

    def _entry(self, trainee: Trainee, first_step: int) -> dict[str, Any]:
        seconds = round(time.monotonic() - self.started, 2)
        return {**self.attempt, "first_step": first_step, "last_step": trainee.step, "seconds": seconds}

    def is_due(self) -> bool:
        return time.monotonic() - self.last > self.cost / CHECKPOINT_SHARE

    def commit(self) -> None:
        """Write the checkpoints of all networks; what they hold is safe from here on."""
        begun = time.monotonic()
        for trainee, first in zip(self.trainees, self.first, strict=True):
            trainee.folder.record_attempt(self._entry(trainee, first), replace=True)
            trainee.folder.save_checkpoint(_state(trainee), trainee.rows)
        self.last = time.monotonic()
        self.cost = self.last - begun
