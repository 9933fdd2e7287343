"""Tasks in this process, one after the other; and the training of runs, alone or as cohorts in one CUDA graph."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch

from resx.data import Dataset
from resx.engines.signals import stop_signals
from resx.engines.tasks import Datasets, Desk, Ended, Task, perform
from resx.spec import DataSpec, RunSpec
from resx.store.run import open_run
from resx.training.loop import Report, Stopped, train_networks
from resx.training.machine import Machine, own_settings
from resx.training.memory import memory_needed, memory_warning
from resx.training.resolve import load_plugin_of

LOG = logging.getLogger("resx")


def run(
    tasks: Sequence[Task],
    machine: Machine,
    report: Report = lambda progress: None,
    ended: Ended = lambda name: None,
) -> dict[str, str]:
    """Run every task in this process and return a line for each that failed."""
    errors: dict[str, str] = {}
    with stop_signals() as stop, own_settings():
        desk = Desk(machine, Datasets(machine.data_dir), report, stop)
        for task in tasks:
            error = perform(task, desk)
            if error is not None:
                errors[task.name] = error
            ended(task.name)
            if stop.asked():
                raise Stopped("", 0, stop.signal)
    return errors


def cohorts(specs: Sequence[RunSpec], datasets: Callable[[DataSpec], Dataset], machine: Machine) -> list[list[RunSpec]]:
    """Group specs that can train side by side on a GPU: same data, batch and schedule, as many as fit.

    On a CPU every spec is alone. Logs a line for a run whose memory will probably not suffice.
    """
    if not machine.device.startswith("cuda"):
        return [[spec] for spec in specs]
    alike: dict[Any, list[RunSpec]] = {}
    for spec in specs:
        train = spec.train
        key = (spec.data, train.steps, train.batch_size, train.eval_every, train.precision)
        alike.setdefault(key, []).append(spec)
    free, _ = torch.cuda.mem_get_info(machine.device)
    needs: dict[Any, int] = {}
    groups: list[list[RunSpec]] = []
    for members in alike.values():
        dataset = datasets(members[0].data)
        images = dataset.train_x.nbytes + dataset.test_x.nbytes
        taken = 0
        for position, spec in enumerate(members):
            if spec.model not in needs:
                needs[spec.model] = images + memory_needed(
                    spec, dataset.input_shape, dataset.n_outputs, machine.checkpoint_activations
                )
            need = needs[spec.model]
            warning = memory_warning(need, free, machine.checkpoint_activations)
            if warning:
                LOG.warning("%s: %s", spec.run_id, warning)
            if position == 0 or len(groups[-1]) == machine.jobs or taken + need > free:
                groups.append([])
                taken = 0
            groups[-1].append(spec)
            taken += need
        needs.clear()  # the next data set's inputs are of another size
    return groups


def train_group(specs: Sequence[RunSpec], desk: Desk) -> None:
    """Train specs that share data and schedule side by side in this process, and record them."""
    machine = desk.machine
    for spec in specs:
        load_plugin_of(spec, machine)
    with ExitStack() as stack:
        folders = [stack.enter_context(open_run(machine.results, spec)) for spec in specs]
        train_networks(
            folders,
            desk.datasets(specs[0].data),
            device=torch.device(machine.device),
            results=machine.results,
            allow_change=machine.allow_change,
            checkpointed=machine.checkpoint_activations,
            snapshots=machine.snapshots,
            report=desk.report,
            should_stop=desk.stop.asked,
        )
