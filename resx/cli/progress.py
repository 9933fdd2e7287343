"""Progress on stderr: bars for the sweep and each run where a person watches, a plain line per evaluation elsewhere."""

from __future__ import annotations

import math
import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from resx.training.loop import Progress


class Display:
    """Shows the progress of a sweep. Use it as a context manager and pass `report` to what trains.

    On a terminal: a bar for the sweep, one for each run in training, and for a single run one for its epoch.
    """

    def __init__(self, steps: dict[str, int], *, quiet: bool = False) -> None:
        """steps: of every run that is left to train, by its id."""
        self.quiet = quiet
        self.done = dict.fromkeys(steps, 0)
        self.tasks: dict[str, TaskID] = {}
        console = Console(stderr=True)
        self.bars = (
            Bars(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[numbers]}"),
                TimeRemainingColumn(),
                console=console,
                transient=True,
            )
            if console.is_terminal and not quiet
            else None
        )
        self.sweep = self._add(f"{len(steps)} runs", sum(steps.values())) if self.bars and len(steps) > 1 else None
        self.epoch = self._add("epoch", 100) if self.bars and len(steps) == 1 else None

    def _add(self, description: str, total: int) -> TaskID:
        assert self.bars
        return self.bars.add_task(description, total=total, numbers="")

    def __enter__(self) -> Display:
        if self.bars:
            self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bars:
            self.bars.stop()

    def report(self, progress: Progress) -> None:
        """Show where a run stands."""
        if self.bars:
            self._move_bars(self.bars, progress)
        elif progress.row and not self.quiet:
            print(plain_line(progress), file=sys.stderr, flush=True)

    def say(self, line: str) -> None:
        """Show a line of progress."""
        if not self.quiet:
            (self.bars.console.print if self.bars else _to_stderr)(line)

    def _move_bars(self, bars: Bars, progress: Progress) -> None:
        if progress.run_id not in self.tasks:
            self.tasks[progress.run_id] = self._add(progress.run_id, progress.steps)
        task = self.tasks[progress.run_id]
        numbers = _numbers(progress.row) if progress.row else f"running {_running(progress)}"
        bars.update(task, completed=progress.step, numbers=f"epoch {progress.epoch:.1f} {numbers}")
        if self.epoch is not None:
            bars.update(
                self.epoch, completed=100 * (progress.epoch % 1), description=f"epoch {int(progress.epoch) + 1}"
            )
        if self.sweep is not None:
            bars.advance(self.sweep, progress.step - self.done[progress.run_id])
            self.done[progress.run_id] = progress.step
            if progress.step >= progress.steps:
                bars.remove_task(self.tasks.pop(progress.run_id))


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def plain_line(progress: Progress) -> str:
    """Return one line that says where a run stands and what its evaluation gave."""
    assert progress.row
    where = f"{progress.run_id} step {progress.step}/{progress.steps} epoch {progress.epoch:.1f}"
    running = f" running {_running(progress)}" if not math.isnan(progress.running_loss) else ""
    return f"{where}{running} {_numbers(progress.row)}".rstrip()


def _running(progress: Progress) -> str:
    return f"loss {progress.running_loss:.3f} error {progress.running_error:.1f} %"


def _numbers(row: dict[str, float]) -> str:
    shown = [f"{split} {row[f'{split}_error']:.1f} %" for split in ("train", "val", "test") if f"{split}_error" in row]
    return " ".join(shown)
