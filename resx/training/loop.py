"""The training loop: one loop that drives a list of networks, each with its own batches and its own folder.

Recipe: He et al. 2016, section 4.2. Losses are read, progress is reported, and snapshots, rows and checkpoints are
written between chunks of steps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from typing import Any

import torch

from resx import model
from resx.data import Dataset
from resx.spec import RunSpec
from resx.store.environment import describe_environment
from resx.store.files import StoreError
from resx.store.run import OUTCOMES, RunFolder
from resx.training.drive import Driver
from resx.training.evaluate import Evaluation, evaluate, evaluation_batch
from resx.training.machine import Machine
from resx.training.ranks import Ranks, packed
from resx.training.schedule import evaluation_steps, snapshot_steps
from resx.training.step import Learner, drive, load_chunk, make_feeds, make_learner

CHECKPOINT_SHARE = 0.05  # of the time that may go into writing checkpoints


@dataclass(frozen=True)
class Progress:
    """Where a run stands: after `step` of `steps`. epoch: passes over the training images, with a fraction.

    row: the numbers of an evaluation, if there was one.
    """

    run_id: str
    step: int
    steps: int
    epoch: float
    running_loss: float
    running_error: float
    row: dict[str, float] | None = None


MEASURING = "measuring"  # instead of a run id: `step` of `steps` finished runs are measured
Report = Callable[[Progress], None]


class Stopped(Exception):
    """A process was asked to stop, by `signal` if it was one. A run in training has left a checkpoint at `step`."""

    def __init__(self, run_id: str = "", step: int = 0, signal: int | None = None) -> None:
        super().__init__(run_id, step, signal)  # all of them, so that it can be pickled
        self.run_id, self.step, self.signal = run_id, step, signal


@dataclass
class Running:
    """Sums over the training steps since the last row of the metrics: losses, errors (fractions), and how many."""

    loss: float = 0.0
    error: float = 0.0
    steps: float = 0.0

    def means(self) -> tuple[float, float]:
        """Return the mean loss and the mean error in percent, nan where there were no steps."""
        return (self.loss / self.steps, 100 * self.error / self.steps) if self.steps else (math.nan, math.nan)


@dataclass(eq=False)
class Trainee:
    """One run in training."""

    folder: RunFolder
    dataset: Dataset
    learner: Learner
    snapshots: str
    step: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)
    running: Running = field(default_factory=Running)
    diverged: bool = False

    @property
    def spec(self) -> RunSpec:
        return self.folder.spec

    @property
    def is_done(self) -> bool:
        """Whether no step is left."""
        return self.diverged or self.step >= self.spec.train.steps

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        running = list(astuple(self.running))
        return {"step": self.step, **self.learner.state(), "since": running, "diverged": self.diverged}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a checkpoint's state. Raises StoreError where it is another network's."""
        try:
            self.learner.restore(state)
            self.step, self.running, self.diverged = state["step"], Running(*state["since"]), state["diverged"]
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            path = self.folder.path / "checkpoint.pt"
            raise StoreError(f"{path}: does not fit this network; move it away to start this run over") from error


def train_networks(
    folders: Sequence[RunFolder],
    dataset: Dataset,
    machine: Machine,
    *,
    ranks: Ranks | None = None,
    report: Report = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Train networks side by side, from their checkpoints where they have any, until all are done.

    They share the data set, the number of steps and the evaluation interval; a network that is behind the others
    catches up first. ranks: the processes that train a single network together; this is the first of them. Raises
    Stopped (after a checkpoint) when `should_stop` says so, StoreError where a record cannot be read, written or
    resumed.
    """
    feeds = make_feeds([folder.spec for folder in folders], dataset, torch.device(machine.device))
    trainees = []
    for folder, feed in zip(folders, feeds, strict=True):
        with _noted(lambda: "at step 0"):
            learner = make_learner(folder.spec, dataset, feed, machine.results, machine.checkpoint_activations, ranks)
        trainees.append(Trainee(folder, dataset, learner, machine.snapshots))
        _start(trainees[-1], machine.allow_change)
        learner.ranks.say(packed(learner.state()))
    attempt = _Attempt(trainees)
    for trainee in trainees:
        if trainee.step == 0 and not trainee.rows:
            _record(trainee, report)
    attempt.commit()
    _train(trainees, attempt, report, should_stop)
    for trainee in trainees:
        _finish(trainee)


def _start(trainee: Trainee, allow_change: bool) -> None:
    saved = trainee.folder.load_checkpoint()
    if saved is None:
        if 0 in snapshot_steps(trainee.spec.train, trainee.snapshots):
            trainee.folder.save_snapshot(0, trainee.learner.network.state_dict())
        return
    if not allow_change:
        _refuse_change(trainee.folder, _environment(trainee.learner))
    state, trainee.rows = saved
    trainee.restore(state)


def _environment(learner: Learner) -> dict[str, Any]:
    processes = {"processes": learner.ranks.size} if learner.ranks.size > 1 else {}
    return describe_environment(str(learner.rate.device), torch.get_num_threads()) | processes


def _refuse_change(folder: RunFolder, now: Mapping[str, Any]) -> None:
    attempts = folder.attempts()
    before = {"processes": 1, **attempts[-1]} if attempts else {}
    now = {"processes": 1, **now}
    for key in ("device", "torch", "processes", *(("hardware", "cudnn") if now["device"] == "cuda" else ())):
        if before.get(key, now[key]) != now[key]:
            raise StoreError(
                f"{folder.path}: was trained with {key} {before[key]}, this is {now[key]}, so its numbers would differ "
                "from an uninterrupted run's; --allow-change goes on all the same and records it"
            )


def _train(trainees: Sequence[Trainee], attempt: _Attempt, report: Report, should_stop: Callable[[], bool]) -> None:
    driver: Driver | None = None
    driven: list[Trainee] = []
    first = stops = 0
    device = trainees[0].learner.feed.device

    def ask() -> bool:  # on a CPU it is asked between two steps
        nonlocal stops
        stops += 1
        return should_stop()

    def where() -> str:
        return f"at step {first + stops + 1}" if device.type == "cpu" else f"after step {first}"

    while active := [trainee for trainee in trainees if not trainee.is_done]:
        group, end = _next_chunk(active)
        learners = [trainee.learner for trainee in group]
        n_steps = end - group[0].step
        load_chunk(learners, group[0].step, n_steps)
        if driver is None or group != driven:
            driver = None  # a graph's memory is given back before the next is captured
            driver, driven = drive(learners), group
            attempt.note(driver.mode)
        first, stops = group[0].step, 0
        with _noted(where):
            done = driver.run(n_steps, ask)
        for trainee in group:
            _read_chunk(trainee, done)
            _keep(trainee, report)
        active = [trainee for trainee in active if not trainee.is_done]
        if done < n_steps or (active and should_stop()):
            attempt.commit()
            raise Stopped(active[0].folder.run_id, active[0].step)
        if not active or attempt.is_due():
            attempt.commit()


@contextmanager
def _noted(where: Callable[[], str]) -> Iterator[None]:
    """Note on an exception where it was raised: a user's plugin may raise any."""
    try:
        yield
    except BaseException as error:  # SystemExit, too
        if not getattr(error, "__notes__", None):
            error.add_note(where())
        raise


def _next_chunk(active: Sequence[Trainee]) -> tuple[list[Trainee], int]:
    """Return the networks that are furthest behind, and the step up to which they train together.

    That is the next step at which something is kept or where other networks stand, or the end of a full chunk.
    """
    train = active[0].spec.train
    start = min(trainee.step for trainee in active)
    group = [trainee for trainee in active if trainee.step == start]
    full = start + min(trainee.learner.chunk.rows for trainee in group)
    ahead = [trainee.step for trainee in active if trainee.step > start]
    marks = [step for step in evaluation_steps(train) | snapshot_steps(train) if step > start]
    return group, min([full, *ahead, *marks])


def _read_chunk(trainee: Trainee, n_steps: int) -> None:
    """Read the losses of a chunk back; the first that is not finite ends the run as diverged."""
    chunk, running = trainee.learner.chunk, trainee.running
    for loss, error in zip(chunk.losses[:n_steps].tolist(), chunk.errors[:n_steps].tolist(), strict=True):
        trainee.step += 1
        running.loss += loss
        running.error += error
        running.steps += 1
        if not math.isfinite(loss):
            trainee.diverged = True
            return


def _keep(trainee: Trainee, report: Report) -> None:
    train = trainee.spec.train
    if trainee.step in snapshot_steps(train, trainee.snapshots) and not trainee.diverged:
        trainee.folder.save_snapshot(trainee.step, trainee.learner.network.state_dict())
    if trainee.diverged or trainee.step in evaluation_steps(train):
        _record(trainee, report)
    else:
        report(_progress(trainee))


def _progress(trainee: Trainee, row: dict[str, float] | None = None) -> Progress:
    train = trainee.spec.train
    epoch = trainee.step * train.batch_size / len(trainee.dataset.train_x)
    return Progress(trainee.folder.run_id, trainee.step, train.steps, epoch, *trainee.running.means(), row)


def _record(trainee: Trainee, report: Report) -> None:
    """Add a row to the metrics: the running numbers, and an evaluation unless the run diverged."""
    row: dict[str, float] = {"step": trainee.step, "lr": float(f"{float(trainee.learner.rate):.6g}")}
    if trainee.running.steps:
        loss, error = trainee.running.means()
        row |= {"running_loss": loss} | ({"running_error": error} if trainee.learner.task == "classification" else {})
    if not trainee.diverged:
        for split in ("train", "val", "test") if trainee.dataset.val_x is not None else ("train", "test"):
            with _noted(lambda: f"at step {trainee.step}, in its evaluation"):
                numbers = _evaluate(trainee, split)
            _save_outputs(trainee, numbers)
            row |= {f"{split}_loss": numbers.loss}
            row |= {f"{split}_error": numbers.error} if trainee.learner.task == "classification" else {}
        if not all(math.isfinite(value) for value in row.values()):
            # only finite numbers are recorded. Before the end, running statistics may not have seen the data yet: at
            # initialisation, where they are 0 and 1, a residual network of 1202 layers overflows, but trains
            trainee.diverged = trainee.step == trainee.spec.train.steps
            row = {key: value for key, value in row.items() if key not in OUTCOMES}
    trainee.rows.append(row)
    report(_progress(trainee, row))
    trainee.running = Running()


def _evaluate(trainee: Trainee, split: str) -> Evaluation:
    train, feed = trainee.spec.train, trainee.learner.feed
    last = trainee.step == train.steps
    batch = evaluation_batch(train.batch_size, trainee.dataset.input_shape, feed.device)
    return evaluate(
        trainee.learner.network,
        feed.batches.evaluation(split, None if last else train.eval_images, batch),
        trainee.learner.task,
        train.precision,
        keep_outputs=last and split == "test",
    )


def _save_outputs(trainee: Trainee, numbers: Evaluation) -> None:
    if numbers.outputs is not None and numbers.labels is not None:
        trainee.folder.save_predictions(numbers.outputs.numpy(), numbers.labels.numpy())


def _finish(trainee: Trainee) -> None:
    spec, dataset, folder = trainee.spec, trainee.dataset, trainee.folder
    if not trainee.diverged and not folder.has_predictions():  # they were damaged or lost since
        _save_outputs(trainee, _evaluate(trainee, "test"))
    complexity = model.count(spec.model, dataset.input_shape, dataset.n_outputs)
    status = "diverged" if trainee.diverged else "finished"
    finish(folder, dataset, status, trainee.rows[-1], complexity.parameters, complexity.multiply_adds)


def finish(
    folder: RunFolder,
    dataset: Dataset,
    status: str,
    row: Mapping[str, float],
    parameters: int,
    multiply_adds: int | None,
) -> None:
    """Write a run's result. row: the last of its metrics."""
    folder.finish(
        {
            "run_id": folder.run_id,
            "status": status,
            "steps_done": int(row["step"]),
            **{outcome: row.get(outcome) for outcome in OUTCOMES},
            "seconds": round(sum(attempt["seconds"] for attempt in folder.attempts()), 2),
            "data_label": dataset.label,
            "reference": dataset.reference,
            "train_images": len(dataset.train_x),
            "test_images": len(dataset.test_x),
            "parameters": parameters,
            "multiply_adds": multiply_adds,
        }
    )


class _Attempt:
    """What this process adds to its runs: checkpoints, and an entry in each environment.json.

    Networks that train side by side share the seconds. On a GPU an entry says how many they were (cohort), and whether
    steps were replayed as a graph or started one by one (mode).
    """

    def __init__(self, trainees: Sequence[Trainee]) -> None:
        self.first_steps = {trainee: trainee.step for trainee in trainees}
        self.environment = _environment(trainees[0].learner)
        if self.environment["device"] == "cuda":
            self.environment["cohort"] = len(trainees)
        self.started = self.committed = time.monotonic()
        self.cost = 0.0  # seconds that the last commit took
        for trainee in trainees:
            trainee.folder.record_attempt(self._entry(trainee), replace=False)

    def _entry(self, trainee: Trainee) -> dict[str, Any]:
        steps = {"first_step": self.first_steps[trainee], "last_step": trainee.step}
        seconds = (time.monotonic() - self.started) / len(self.first_steps)
        return {**self.environment, **steps, "seconds": round(seconds, 2)}

    def note(self, mode: str) -> None:
        """Record how steps are driven: `eager` as soon as any were."""
        if "cohort" in self.environment and self.environment.get("mode") != "eager":
            self.environment["mode"] = mode

    def is_due(self) -> bool:
        """Whether writing checkpoints now would take only a small share of the time."""
        return time.monotonic() - self.committed > self.cost / CHECKPOINT_SHARE

    def commit(self) -> None:
        """Write the checkpoints of all networks."""
        begun = time.monotonic()
        for trainee in self.first_steps:
            trainee.folder.record_attempt(self._entry(trainee), replace=True)
            trainee.folder.save_checkpoint(trainee.state(), trainee.rows)
        self.committed = time.monotonic()
        self.cost = self.committed - begun
