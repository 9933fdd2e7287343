"""Where tasks run: RunSpecs in, finished runs out, several at a time; a failure of one leaves the others alone.

On a CPU every network trains on one thread in a process of its own, as many processes as `jobs`: measured, two
processes of one thread beat one of two, and the numbers do not depend on how many there are. On a GPU networks that
share data and schedule train side by side in one process, as branches of one CUDA graph, at most `jobs` of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from resx import data
from resx.engines import here, processes, ray, slurm, torchrun  # noqa: F401  (the last three register themselves)
from resx.engines.tasks import ENGINES, Ended, Task
from resx.registry import load_plugins
from resx.spec import RunSpec
from resx.store.files import LeftToOthers, say_once
from resx.store.run import finished_result, holder
from resx.training.foreign import record_all
from resx.training.loop import Report
from resx.training.machine import Machine

POLL = 0.5  # seconds between two looks at runs that other processes work on
TRIES = 2  # of what is neither done nor held: a process may have let it go before its lock was looked at


@dataclass(frozen=True)
class Outcome:
    """What became of a run. result: its result.json; error: one line where it failed."""

    spec: RunSpec
    result: Mapping[str, Any] | None = None
    error: str | None = None

    def summary(self, results: Path) -> dict[str, Any]:
        """Return what `--json` prints of a run; errors in percent, None where one is missing."""
        result = self.result or {}
        return {
            "run_id": self.spec.run_id,
            "status": result.get("status", "failed"),
            "steps": result.get("steps_done"),
            "train_error": result.get("train_error"),
            "test_error": result.get("test_error"),
            "seconds": result.get("seconds"),
            "folder": str(results / "runs" / self.spec.run_id),
        }


def train_all(specs: Sequence[RunSpec], machine: Machine, report: Report = lambda progress: None) -> list[Outcome]:
    """Train what is not finished yet and return the outcome of every spec, in the order given.

    A diverged run is an outcome; a failed one has `error`. Weights that were trained elsewhere are recorded instead.
    Several processes share the work: runs that another one trains are waited for, last, or raise LeftToOthers at the
    end where the machine does not wait. Raises Stopped, with checkpoints left, on Ctrl-C or SIGTERM.
    """
    errors: dict[str, str] = {}
    load_plugins(machine.plugin)
    ENGINES[machine.engine]  # before anything is done
    todo = [spec for spec in specs if finished_result(spec, machine.results) is None]
    todo.sort(key=lambda spec: spec.model.depth * spec.train.steps, reverse=True)  # the longest first: none waits alone
    for data_spec in dict.fromkeys(spec.data for spec in todo):
        data.fetch(data_spec, machine.data_dir)
    foreign, own = [spec for spec in todo if spec.foreign], [spec for spec in todo if not spec.foreign]
    for generation in [foreign, *_generations(own)]:
        _train_together(generation, machine, report, errors)
    return [Outcome(spec, finished_result(spec, machine.results), errors.get(spec.run_id)) for spec in specs]


def _train_together(specs: Sequence[RunSpec], machine: Machine, report: Report, errors: dict[str, str]) -> None:
    by_id = {spec.run_id: spec for spec in specs}

    def train(left: Sequence[str]) -> dict[str, str]:
        return _train([by_id[run_id] for run_id in left], machine, report)

    def is_finished(run_id: str) -> bool:
        return finished_result(by_id[run_id], machine.results) is not None

    share({run_id: run_id for run_id in by_id}, "trained", train, is_finished, machine, errors)


def _train(specs: Sequence[RunSpec], machine: Machine, report: Report) -> dict[str, str]:
    """Train those runs that no other process works on, and return a line for each that failed, by its id."""
    if specs[0].foreign:
        return record_all(specs, machine)
    errors: dict[str, str] = {}
    load = partial(data.load, data_dir=machine.data_dir)
    tasks = [_task(group) for group in here.cohorts(specs, load, _shared(machine, len(specs)))]
    while tasks:
        failed = run_tasks(tasks, machine, report)
        groups = [task.runs for task in tasks if task.name in failed]
        tasks = []
        for runs in groups:  # where one of a group failed, or they do not fit together, its halves go on
            if len(runs) == 1:
                errors[runs[0].run_id] = failed[runs[0].run_id]
            else:
                half = len(runs) // 2
                tasks += [_task(runs[:half]), _task(runs[half:])]
    return errors


def share(
    todo: Mapping[str, str],
    doing: str,
    carry_out: Callable[[Sequence[str]], dict[str, str]],
    is_done: Callable[[str], bool],
    machine: Machine,
    errors: dict[str, str],
) -> None:
    """Carry out all of `todo` together with other processes; runs that they work on are waited for, last.

    todo: the run of each thing to do, by a name. doing: a participle for the line that names who works on a run.
    carry_out: takes names and returns a line for each that failed, which `errors` receives. Where the machine does not
    wait, LeftToOthers is raised when the rest is done; if something failed, its line goes into `errors` instead.
    """
    left, tries = list(todo), TRIES
    while left and tries:
        errors |= carry_out(left)
        left = [name for name in left if name not in errors and not is_done(name)]
        try:
            waited = _wait_for_others([todo[name] for name in left], machine, doing)
            tries = TRIES if waited else tries - 1
        except LeftToOthers as error:
            if not errors:
                raise
            errors |= dict.fromkeys(left, str(error))
            return


def _wait_for_others(run_ids: Sequence[str], machine: Machine, doing: str) -> bool:
    """Wait until one of the runs that other processes work on is free; return whether there was one.

    Raises LeftToOthers where the machine does not wait.
    """
    waiting: dict[str, str] = {}
    while True:
        holders = {run_id: name for run_id in run_ids if (name := holder(machine.results, run_id))}
        if waiting.keys() - holders.keys() or not holders:
            return bool(waiting)
        if not machine.wait:
            listed = "; ".join(f"{run_id} is being {doing} by {name}" for run_id, name in holders.items())
            raise LeftToOthers(f"{listed}: skipped, the rest is done")
        for run_id in holders.keys() - waiting.keys():
            say_once(f"{run_id}: being {doing} by {holders[run_id]}, waiting")
        waiting |= holders
        time.sleep(POLL)


def run_tasks(
    tasks: Sequence[Task],
    machine: Machine,
    report: Report = lambda progress: None,
    ended: Ended = lambda name: None,
) -> dict[str, str]:
    """Run every task on the machine's engine, and return a line for each that failed, by its name.

    ended: receives the name of every task that has ended. Raises Stopped on Ctrl-C or SIGTERM.
    """
    return ENGINES[machine.engine](tasks, machine, report, ended)


@ENGINES.register("local")
def _run_locally(tasks: Sequence[Task], machine: Machine, report: Report, ended: Ended) -> dict[str, str]:
    """This machine: in this process, or in as many as it has places for."""
    places = machine.places()[: len(tasks)]
    if len(places) <= 1:
        return here.run(tasks, machine, report, ended)
    return processes.run(tasks, places, report, ended)


def _shared(machine: Machine, runs: int) -> Machine:
    """Return the machine with few enough runs side by side that every card has some."""
    return replace(machine, jobs=min(machine.jobs, -(-runs // len(machine.places()))))


def _task(specs: Sequence[RunSpec]) -> Task:
    name = specs[0].run_id if len(specs) == 1 else f"{specs[0].run_id} and {len(specs) - 1} more"
    return Task(name, partial(here.train_group, specs), tuple(specs))


def _generations(todo: Sequence[RunSpec]) -> Iterator[list[RunSpec]]:
    """Yield the specs in groups: a run that starts from another's weights is in a later one."""
    left = list(todo)
    while left:
        ids = {spec.run_id for spec in left}
        ready = [spec for spec in left if spec.init_from is None or spec.init_from.run not in ids]
        yield ready
        left = [spec for spec in left if spec not in ready]


def left_to_train(specs: Sequence[RunSpec], machine: Machine) -> dict[str, int]:
    """Return the steps of every run that is not finished yet, by its id. Raises StoreError where one is damaged."""
    own = [spec for spec in specs if not spec.foreign]
    return {spec.run_id: spec.train.steps for spec in own if finished_result(spec, machine.results) is None}
