"""For engines on other machines: a task as it runs there, and the progress of runs in a shared folder.

Plugins travel with a task. Where the other machine has another results folder, a task returns its runs as a bundle,
which is imported here; a task that needs more than its specs runs here instead.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from resx import data
from resx.engines.signals import stop_signals
from resx.engines.tasks import Desk, Task, perform
from resx.registry import Plugin, read_plugin
from resx.spec import RunSpec, SpecError
from resx.store.bundle import export_bundle, import_bundle
from resx.store.files import StoreError, write_atomic
from resx.store.run import METRICS, RunFolder, finished_result, is_recorded, read_run
from resx.training.loop import Progress, Report
from resx.training.machine import Machine, own_settings


def absolute(machine: Machine) -> Machine:
    """Return the machine with paths that hold in any working folder, and with the content of its plugins."""
    plugins = (machine.plugin,) if isinstance(machine.plugin, Path) else machine.plugin
    return replace(
        machine,
        results=machine.results.resolve(),
        data_dir=data.data_root(machine.data_dir).resolve(),
        plugin=tuple(one if isinstance(one, Plugin) else read_plugin(one.resolve()) for one in plugins),
    )


def perform_there(task: Task, machine: Machine, also: Sequence[int] = ()) -> str | None:
    """Run a task that another process sent, and return a line where it fails.

    also: further signals that stop it, with a checkpoint, as SIGTERM does. Raises Stopped.
    """
    with stop_signals(also) as stop, own_settings():
        return perform(task, Desk(machine, lambda progress: None, stop))


@dataclass(frozen=True)
class Returned:
    """The answer of a task from another results folder. bundle: its runs; None: it did not run."""

    bundle: bytes | None = None


def perform_and_return(task: Task, machine: Machine, mark: str, is_alone: bool) -> str | Returned | None:
    """Run a task as `perform_there` does, on a machine whose results folder may be another one.

    mark: a file in the sender's results folder. is_alone: the task needs nothing of that folder.
    """
    if (machine.results / mark).exists():
        return perform_there(task, machine)
    if not is_alone:
        return Returned()
    error = perform_there(task, machine)
    done = [spec for spec in task.runs if finished_result(spec, machine.results)]
    if error is not None or not done:
        return error or f"{task.name}: is being trained there by another process"
    bundle = machine.results / f".{secrets.token_hex(8)}.zip"
    try:
        export_bundle([read_run(machine.results / "runs" / spec.run_id) for spec in done], bundle)
        return Returned(bundle.read_bytes())
    finally:
        bundle.unlink(missing_ok=True)


@contextmanager
def marked(results: Path) -> Iterator[str]:
    """Put a file into a results folder, by which other machines know whether they see the folder; yield its name."""
    mark = f".seen-{secrets.token_hex(8)}"
    write_atomic(results / mark, "")
    try:
        yield mark
    finally:
        (results / mark).unlink(missing_ok=True)


def is_alone(task: Task, results: Path) -> bool:
    """Whether a task needs nothing of the results folder: it trains runs that are not there yet."""
    begun = any(spec.init_from or is_recorded(results / "runs" / spec.run_id) for spec in task.runs)
    return bool(task.runs) and not begun


def take_in(bundle: bytes, results: Path) -> str | None:
    """Import the runs of a bundle that a task returned; return a line where that fails."""
    file = results / f".{secrets.token_hex(8)}.zip"
    try:
        write_atomic(file, bundle)
        import_bundle(file, results)
        return None
    except (SpecError, StoreError) as error:
        return str(error)
    finally:
        file.unlink(missing_ok=True)


class Follower:
    """Reports the progress of runs that are trained elsewhere, as committed to the shared folder."""

    def __init__(self, machine: Machine, report: Report) -> None:
        self.machine, self.report = machine, report
        self.steps: dict[str, int] = {}  # the last that was reported, by run id

    def look(self, tasks: Sequence[Task]) -> None:
        """Report those runs of these tasks that have made progress."""
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
