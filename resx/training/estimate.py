"""What a set of runs will cost, before any of them starts: measured on a few real steps, scaled to the rest."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from resx import data, model
from resx.spec import RunSpec
from resx.store.run import finished_result
from resx.training.machine import Machine, computing, own_settings, wait_for
from resx.training.schedule import SNAPSHOTS, evaluation_steps
from resx.training.step import drive, load_chunk, make_feeds, make_learner

TIMED_STEPS = 3  # on a CPU; on a GPU chunks of steps until enough time has passed, since a step takes less than a clock
TIMED_SECONDS = 0.5
BYTES_PER_PARAMETER = 4 * (SNAPSHOTS + 2)  # snapshots, and the checkpoint with its momentum


@dataclass(frozen=True)
class Cost:
    """runs: all of them; to_train: those not finished yet; seconds on this machine at `jobs` runs at a time.

    seconds: None where the runs are made on another machine's GPU. On a GPU an upper bound: what networks gain from
    training side by side is not counted.
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
    costs, size = [], 0
    for spec in todo:
        facts = data.facts(spec.data, machine.data_dir)
        complexity = model.count(spec.model, facts.shape, facts.outputs)
        costs.append(complexity.multiply_adds * spec.train.batch_size)
        size += complexity.parameters * BYTES_PER_PARAMETER
    if not machine.is_here:
        return Cost(len(specs), len(todo), None, size)
    low, high = min(costs), max(costs)
    times = {cost: _step_seconds(todo[costs.index(cost)], machine) for cost in {low, high}}
    seconds = 0.0
    for spec, cost in zip(todo, costs, strict=True):
        share = (cost - low) / max(high - low, 1)
        step = times[low] + share * (times[high] - times[low])
        evaluated = 2 * len(evaluation_steps(spec.train)) * (spec.train.eval_images or 10_000)
        seconds += step * (spec.train.steps + evaluated / spec.train.batch_size / 3)
    return Cost(len(specs), len(todo), seconds / min(len(machine.places()), len(todo)), size)


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
