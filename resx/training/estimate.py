"""What a set of runs will cost, told before any of them starts: measured on a few real steps, scaled to the rest."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from resx import data, model
from resx.spec import RunSpec
from resx.store.run import finished_result
from resx.training.machine import Machine, own_settings
from resx.training.schedule import SNAPSHOTS, evaluation_steps
from resx.training.step import drive, load_chunk, make_feeds, make_learner

TIMED_STEPS = 3
BYTES_PER_PARAMETER = 4 * (SNAPSHOTS + 2)  # snapshots, and the checkpoint with its momentum


@dataclass(frozen=True)
class Cost:
    """runs: all of them; to_train: those not finished yet; seconds on this machine at `jobs` runs at a time."""

    runs: int
    to_train: int
    seconds: float
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
    low, high = costs.index(min(costs)), costs.index(max(costs))
    low_time, high_time = _step_seconds(todo[low], machine), _step_seconds(todo[high], machine)
    span = max(costs) - min(costs)
    seconds = 0.0
    for spec, cost in zip(todo, costs, strict=True):
        share = (cost - min(costs)) / span if span else 1.0
        step = low_time + share * (high_time - low_time)
        evaluated = 2 * len(evaluation_steps(spec.train)) * (spec.train.eval_images or 10_000)
        seconds += step * (spec.train.steps + evaluated / spec.train.batch_size / 3)
    # networks that share a GPU share its time; how much a cohort gains is not promised
    at_a_time = 1 if machine.device.startswith("cuda") else min(machine.jobs, len(todo))
    return Cost(len(specs), len(todo), seconds / at_a_time, sum(sizes))


def _step_seconds(spec: RunSpec, machine: Machine) -> float:
    dataset = data.load(spec.data, machine.data_dir)
    parentless = spec.model_copy(update={"init_from": None})  # a parent may not be trained yet, and costs no time
    device = torch.device(machine.device)
    with own_settings():
        [feed] = make_feeds([parentless], dataset, device)
        learner = make_learner(parentless, dataset, feed, machine.results, machine.checkpoint_activations)
        load_chunk([learner], 0, TIMED_STEPS)
        driver = drive([learner])
        driver.run(1, lambda: False)
        if device.type == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        driver.run(TIMED_STEPS, lambda: False)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - started) / TIMED_STEPS
