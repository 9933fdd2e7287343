"""Tasks in this process, one after the other; and the training of runs, alone or as cohorts in one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch

from resx.data import Dataset
from resx.engines.signals import stop_signals
from resx.engines.tasks import Desk, Ended, Task, perform
from resx.spec import DataSpec, RunSpec, SpecError
from resx.store.files import LOG, Busy, StoreError
from resx.store.run import RunFolder, finished_result, open_run
from resx.training.loop import Report, Stopped, train_networks
from resx.training.machine import Machine, computing, own_settings
from resx.training.memory import cohort_memory, evaluation_memory, free_memory, memory_needed, memory_warning
from resx.training.ranks import Ranks
from resx.training.resolve import load_plugin_of


def run(
    tasks: Sequence[Task],
    machine: Machine,
    report: Report = lambda progress: None,
    ended: Ended = lambda name: None,
    ranks: Ranks | None = None,
) -> dict[str, str]:
    """Run every task in this process and return a line for each that failed. ranks: processes that train with it."""
    errors: dict[str, str] = {}
    with stop_signals() as stop, own_settings():
        desk = Desk(machine, report, stop, ranks or Ranks())
        for task in tasks:
            error = perform(task, desk)
            if error is not None:
                errors[task.name] = error
            ended(task.name)
            if stop.asked():
                raise Stopped(signal=stop.signal)
    return errors


def cohorts(specs: Sequence[RunSpec], datasets: Callable[[DataSpec], Dataset], machine: Machine) -> list[list[RunSpec]]:
    """Group specs that can train side by side on a GPU: same data, batch and schedule, as many as fit.

    On a CPU every spec is alone. So are those that cannot be built or whose data cannot be read: each fails alone.
    """
    if not machine.device.startswith("cuda"):
        return [[spec] for spec in specs]
    alike: dict[Any, list[RunSpec]] = {}
    for spec in specs:
        train = spec.train
        key = (spec.data, train.steps, train.batch_size, train.eval_every, train.precision)
        alike.setdefault(key, []).append(spec)
    groups: list[list[RunSpec]] = []
    for members in alike.values():
        if not machine.is_here:  # what fits there is unknown; a group that does not fit is halved
            groups += [members[start : start + machine.jobs] for start in range(0, len(members), machine.jobs)]
            continue
        try:
            groups += _packed(members, datasets(members[0].data), machine)
        except (SpecError, StoreError):
            groups += [[spec] for spec in members]
    return groups


def _packed(specs: Sequence[RunSpec], dataset: Dataset, machine: Machine) -> list[list[RunSpec]]:
    """Return groups of at most `jobs` specs that fit into the GPU's memory; warn of a spec that does not fit alone."""
    device = torch.device(machine.device)
    free, shape, outputs = free_memory(device), dataset.input_shape, dataset.n_outputs
    networks = {spec.model: spec for spec in specs}
    training = {
        model: memory_needed(spec, shape, outputs, machine.checkpoint_activations) for model, spec in networks.items()
    }
    needs = {spec: training[spec.model] for spec in specs}
    evaluation = max(evaluation_memory(spec, shape, outputs, device) for spec in networks.values())
    groups: list[list[RunSpec]] = []
    for spec in specs:
        warning = memory_warning(
            cohort_memory([spec], dataset, device, needs, evaluation), free, machine.checkpoint_activations
        )
        if warning:
            LOG.warning("%s: %s", spec.run_id, warning)
        together = [*(groups[-1] if groups else []), spec]
        fits = cohort_memory(together, dataset, device, needs, evaluation) <= free
        if groups and fits and len(together) <= machine.jobs:
            groups[-1] = together
        else:
            groups.append([spec])
    return groups


def train_group(specs: Sequence[RunSpec], desk: Desk) -> None:
    """Train specs that share data and schedule side by side in this process, and record them.

    A run that another process trains is skipped.
    """
    machine = desk.machine
    for spec in specs:
        load_plugin_of(spec, machine)
    with ExitStack() as stack:
        stack.enter_context(computing(specs[0].train.precision))
        folders = [run for spec in specs if (run := _take(spec, machine, stack))]
        if not folders:
            return
        stack.enter_context(desk.ranks.training(folders[0].spec, (folders[0].spec, machine)))
        train_networks(
            folders,
            desk.datasets(specs[0].data),
            machine,
            ranks=desk.ranks,
            report=desk.report,
            should_stop=desk.stop.asked,
        )


def _take(spec: RunSpec, machine: Machine, stack: ExitStack) -> RunFolder | None:
    """Open a run until the stack ends, or return None where another process trains it or has finished it."""
    with ExitStack() as own:
        try:
            run = own.enter_context(open_run(machine.results, spec))
        except Busy:
            return None
        if finished_result(spec, machine.results) is not None:
            return None
        stack.enter_context(own.pop_all())
        return run
