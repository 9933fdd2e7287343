"""Runs in this process: one after the other on a CPU, as cohorts in one CUDA graph on a GPU."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from resx import data
from resx.data import Dataset
from resx.engines.signals import stop_signals
from resx.spec import DataSpec, RunSpec, SpecError
from resx.store.files import StoreError
from resx.store.run import open_run
from resx.training.loop import Report as Report
from resx.training.loop import Stopped, train_networks
from resx.training.machine import Machine, one_thread
from resx.training.memory import is_out_of_memory, memory_advice, memory_needed, memory_warning

LOG = logging.getLogger("resx")


def train_here(todo: Sequence[RunSpec], machine: Machine, report: Report) -> dict[str, str]:
    errors: dict[str, str] = {}
    datasets = Datasets(machine.data_dir)
    with stop_signals() as received, one_thread():
        groups = list(reversed(cohorts(todo, datasets, machine)))
        while groups:
            group = groups.pop()
            try:
                train_group(group, datasets, machine, report, lambda: bool(received))
                continue
            except (StoreError, SpecError) as error:
                failure = str(error)
            except Stopped as stopped:
                stopped.signal = received[0]
                raise
            gc.collect()  # what the failed group held on the device
            if len(group) == 1:
                errors[group[0].run_id] = failure
            else:  # one of them fails, or they do not fit together: the others go on without it
                half = len(group) // 2
                groups += [group[half:], group[:half]]
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


class Datasets:
    """Loads data sets, and keeps the last, since the runs of a sweep mostly share one."""

    def __init__(self, data_dir: Path | None) -> None:
        self.data_dir = data_dir
        self.last: tuple[DataSpec, Dataset] | None = None

    def __call__(self, spec: DataSpec) -> Dataset:
        if self.last is None or self.last[0] != spec:
            self.last = (spec, data.load(spec, self.data_dir))
        return self.last[1]


def train_group(
    specs: Sequence[RunSpec],
    datasets: Datasets,
    machine: Machine,
    report: Report,
    should_stop: Callable[[], bool],
) -> None:
    """Train specs that share data and schedule side by side in this process. Raises StoreError out of memory, too."""
    try:
        with ExitStack() as stack:
            folders = [stack.enter_context(open_run(machine.results, spec)) for spec in specs]
            train_networks(
                folders,
                datasets(specs[0].data),
                device=torch.device(machine.device),
                results=machine.results,
                allow_change=machine.allow_change,
                checkpointed=machine.checkpoint_activations,
                report=report,
                should_stop=should_stop,
            )
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        advice = memory_advice(machine.checkpoint_activations)
        raise StoreError(f"{specs[0].run_id}: out of memory on {machine.device}; {advice}") from None
