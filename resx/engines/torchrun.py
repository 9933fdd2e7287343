"""One network after the other, each trained by all processes that torchrun has started.

    torchrun --standalone --nproc-per-node=4 -m resx train --depth 56

The first process runs the command as usual: it plans, writes, evaluates, measures and reports. The others only train
along, so they print nothing and need no results folder. A process that is lost ends all of them; with --max-restarts
torchrun starts them again, and the command resumes from the checkpoint.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NoReturn

import torch

from resx import data
from resx.engines import here
from resx.engines.signals import Stop, stop_signals
from resx.engines.tasks import ENGINES, Ended, Task, failure
from resx.spec import RunSpec
from resx.training.loop import Report
from resx.training.machine import Machine, computing, own_settings
from resx.training.ranks import Ranks, join, unpacked
from resx.training.resolve import load_plugin_of
from resx.training.step import drive, load_chunk, make_feeds, make_learner


@ENGINES.register("torchrun")
def run(tasks: Sequence[Task], machine: Machine, report: Report, ended: Ended) -> dict[str, str]:
    """Run every task in this process, and train with the others."""
    return here.run(tasks, _at_own_card(machine), report, ended, join())


def together(command: Callable[[], int]) -> int:
    """Run a command in the first process while the others train along, and return the exit code."""
    ranks = join()
    if ranks.rank:
        _end(_train_along(ranks))
    try:
        code = command()
    finally:
        ranks.dismiss()
    return code if ranks.size == 1 else _end(code)


def _end(code: int) -> NoReturn:
    """End this process at once: torch's threads abort one in eight that Python ends. It has nothing left to write."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _train_along(ranks: Ranks) -> int:
    """Train what the first process announces until it dismisses this one, and return the exit code."""
    with stop_signals() as stop, own_settings():
        while True:
            try:
                work = ranks.hear()
            except RuntimeError:  # the first process is gone, and torchrun reports it
                return 1
            if work is None:
                return 0
            spec, machine = work
            try:
                _train(spec, _at_own_card(machine), ranks, stop)
            except Exception as error:
                line = failure(Task(spec.run_id, lambda desk: None), error, machine)
                print(f"resx: process {ranks.rank + 1} of {ranks.size}: {line}", file=sys.stderr)
                return 1


def _train(spec: RunSpec, machine: Machine, ranks: Ranks, stop: Stop) -> None:
    load_plugin_of(spec, machine)
    with computing(spec.train.precision):
        dataset = data.load(spec.data, machine.data_dir)
        [feed] = make_feeds([spec], dataset, torch.device(machine.device))
        spec = spec.model_copy(update={"init_from": None})  # all weights come from the first process
        learner = make_learner(spec, dataset, feed, machine.results, machine.checkpoint_activations, ranks)
        state = ranks.hear()
        if state is None:  # the first process refused to resume from its checkpoint
            return
        learner.restore(unpacked(state))
        driver = None
        while (chunk := ranks.hear()) is not None:
            first_step, n_steps = chunk
            load_chunk([learner], first_step, n_steps)
            driver = driver or drive([learner])
            driver.run(n_steps, stop.asked)


def _at_own_card(machine: Machine) -> Machine:
    return replace(machine, device=f"cuda:{os.environ['LOCAL_RANK']}") if machine.device == "cuda" else machine
