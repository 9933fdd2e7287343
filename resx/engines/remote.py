"""What engines of other machines share: a task as it runs there, and the progress of runs in a shared folder."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from resx import data
from resx.engines.signals import stop_signals
from resx.engines.tasks import Datasets, Desk, Task, perform
from resx.spec import RunSpec
from resx.store.files import StoreError
from resx.store.run import METRICS, RunFolder
from resx.training.loop import Progress, Report
from resx.training.machine import Machine, own_settings


def absolute(machine: Machine) -> Machine:
    """Return the machine with paths that hold in any working folder."""
    plugins = (machine.plugin,) if isinstance(machine.plugin, Path) else machine.plugin
    return replace(
        machine,
        results=machine.results.resolve(),
        data_dir=data.data_root(machine.data_dir).resolve(),
        plugin=tuple(path.resolve() for path in plugins),
    )


def perform_there(task: Task, machine: Machine, also: Sequence[int] = ()) -> str | None:
    """Run a task that another process sent, alone in this one, and return the line of a failure.

    also: signals that stop it, with a checkpoint, as SIGTERM does. Raises Stopped.
    """
    with stop_signals(also) as stop, own_settings():
        return perform(task, Desk(machine, Datasets(machine.data_dir), lambda progress: None, stop))


class Follower:
    """Reports where runs stand that are trained elsewhere, as far as they have committed it to the shared folder."""

    def __init__(self, machine: Machine, report: Report) -> None:
        self.machine, self.report = machine, report
        self.steps: dict[str, int] = {}  # the last that was reported, by run id

    def look(self, tasks: Sequence[Task]) -> None:
        """Report the runs of these tasks that have got further."""
        for spec in (spec for task in tasks for spec in task.runs):
            with suppress(StoreError):  # it is being written
                rows = RunFolder(self.machine.results / "runs" / spec.run_id, spec).rows()
                if rows and rows[-1][0] > self.steps.get(spec.run_id, -1):
                    self.steps[spec.run_id] = int(rows[-1][0])
                    self.report(self._progress(spec, rows[-1]))

    def _progress(self, spec: RunSpec, cells: Sequence[float]) -> Progress:
        row = {name: cell for name, cell in zip(METRICS, cells, strict=True) if cell == cell}
        images = spec.data.subset or data.facts(spec.data, self.machine.data_dir).train - (spec.data.validation or 0)
        epoch = row["step"] * spec.train.batch_size / images
        running = cells[METRICS.index("running_loss")], cells[METRICS.index("running_error")]
        return Progress(spec.run_id, int(row["step"]), spec.train.steps, epoch, *running, row)
