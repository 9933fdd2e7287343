"""What a set of runs will cost, before any of them starts: measured on a few real steps, scaled to the rest."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from resx import data, model
from resx.spec import RunSpec
from resx.store.run import finished_result
from resx.training.machine import TENSOR_CORES, Machine, computing, own_settings, wait_for
from resx.training.schedule import SNAPSHOTS, evaluation_steps
from resx.training.step import drive, load_chunk, make_feeds, make_learner

TIMED_STEPS = 3  # on a CPU; on a GPU chunks of steps until enough time has passed, since a step takes less than a clock
TIMED_SECONDS = 0.5
BYTES_PER_PARAMETER = 4 * (SNAPSHOTS + 2)  # snapshots, and the checkpoint with its momentum


@dataclass(frozen=True)
class Cost:
    """runs: all of them; to_train: those not finished yet; seconds on this machine at `jobs` runs at a time.

    seconds: None where the runs are made on another machine's GPU.
    On a GPU the seconds are at most these: what networks gain from training side by side is not counted.
    """

    runs: int
    to_train: int
    seconds: float | None
    bytes: int


def estimate_cost(specs: Sequence[RunSpec], machine: Machine) -> Cost:
    """Time a few steps of the cheapest and the dearest network and scale the others by their multiply-adds.

    Evaluations count as a third of a training step per image. Nothing is written to the results.
    """
    todo = [spec for spec in specs if finished_result(spec, machine.results) is None]
    if not todo:
        return Cost(len(specs), 0, 0.0, 0)
    costs, sizes = [], []
    complexities: dict[tuple[str, str], model.Complexity] = {}
    for spec in todo:
        key = (spec.model.model_dump_json(), spec.data.model_dump_json())
        if key not in complexities:
            dataset = data.load(spec.data, machine.data_dir)
            complexities[key] = model.count(spec.model, dataset.input_shape, dataset.n_outputs)
        costs.append(complexities[key].multiply_adds * spec.train.batch_size)
        sizes.append(complexities[key].parameters * BYTES_PER_PARAMETER)
    if not machine.is_here:
        return Cost(len(specs), len(todo), None, sum(sizes))
    low, high = costs.index(min(costs)), costs.index(max(costs))
    span = max(costs) - min(costs)
    high_time = _step_seconds(todo[high], machine)
    low_time = _step_seconds(todo[low], machine) if span else high_time
    seconds = 0.0
    for spec, cost in zip(todo, costs, strict=True):
        share = (cost - min(costs)) / span if span else 1.0
        step = low_time + share * (high_time - low_time)
        evaluated = 2 * len(evaluation_steps(spec.train)) * (spec.train.eval_images or 10_000)
        seconds += step * (spec.train.steps + evaluated / spec.train.batch_size / 3)
    return Cost(len(specs), len(todo), seconds / min(machine.at_once, len(todo)), sum(sizes))


def outlook(specs: Sequence[RunSpec], machine: Machine) -> str | None:
    """Return a line on how long runs take on a GPU and what takes less; None on a CPU, and where none is to be trained.

    For someone who has not asked for the long runs that a machine with a GPU takes by default.
    """
    if not machine.device.startswith("cuda") or not machine.is_here:
        return None
    cost = estimate_cost(specs, machine)
    if not cost.to_train or cost.seconds is None:
        return None
    card = torch.cuda.get_device_name(machine.device)
    line = f"{cost.to_train} runs to train: at most about {_hours(cost.seconds)} on {card}"
    capable = torch.cuda.get_device_capability(machine.device) >= TENSOR_CORES
    if capable and all(spec.train.precision == "fp32" for spec in specs):
        faster = [
            spec.model_copy(update={"train": spec.train.model_copy(update={"precision": "tf32"})}) for spec in specs
        ]
        line += f", {_hours(estimate_cost(faster, machine).seconds or 0.0)} with --precision tf32"
    return f"{line}. Shorter: --preset small (minutes), --preset digits (a minute), or --steps N"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 5400 else f"{max(1, round(seconds / 60))} minutes"


def _step_seconds(spec: RunSpec, machine: Machine) -> float:
    dataset = data.load(spec.data, machine.data_dir)
    parentless = spec.model_copy(update={"init_from": None})  # a parent may not be trained yet, and costs no time
    device = torch.device(machine.device)
    with own_settings(), computing(spec.train.precision):
        [feed] = make_feeds([parentless], dataset, device)
        learner = make_learner(parentless, dataset, feed, machine.results, machine.checkpoint_activations)
        steps = TIMED_STEPS if device.type == "cpu" else learner.chunk.rows
        load_chunk([learner], 0, steps)
        driver = drive([learner])
        driver.run(1, lambda: False)
        wait_for(device)
        started, done = time.perf_counter(), 0
        while True:
            done += driver.run(steps, lambda: False)
            wait_for(device)
            seconds = time.perf_counter() - started
            if device.type == "cpu" or seconds >= TIMED_SECONDS:
                return seconds / done
