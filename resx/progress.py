"""Progress on stderr: bars in a terminal, a line that changes in a notebook, a line per evaluation elsewhere."""

from __future__ import annotations

import math
import sys

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Column

from resx.training.loop import MEASURING, Progress

NOTEBOOK = 120  # characters of a line in a notebook
WIDE = 120  # characters that a terminal needs for epochs and losses


class Display:
    """Shows the progress of a sweep. Use it as a context manager and pass on its `report`.

    A terminal has a bar for the sweep, one for each run in training, one for measuring and, if it is wide and there is
    one run, one for its epoch.
    """

    def __init__(self, steps: dict[str, int], *, quiet: bool = False, console: Console | None = None) -> None:
        """steps: of every run that is left to train, by its id. console: by default stderr's."""
        self.quiet = quiet
        self.done = dict.fromkeys(steps, 0)
        self.tasks: dict[str, TaskID] = {}
        console = console or Console(stderr=True)
        self.is_notebook = console.is_jupyter
        self.is_wide = console.width >= WIDE
        self.bars = (
            Bars(
                TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
                BarColumn(bar_width=24 if self.is_wide else 8),
                TextColumn("{task.percentage:3.0f} %", table_column=Column(no_wrap=True)),
                TextColumn("{task.fields[numbers]}", table_column=Column(no_wrap=True)),
                TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
                console=console,
                expand=True,
                transient=True,
            )
            if console.is_terminal and not quiet
            else None
        )
        self.sweep = self._add(f"{len(steps)} runs", sum(steps.values())) if self.bars and len(steps) > 1 else None
        self.epoch = self._add("epoch", 100) if self.bars and len(steps) == 1 and self.is_wide else None

    def _add(self, description: str, total: int) -> TaskID:
        assert self.bars
        return self.bars.add_task(description, total=total, numbers="")

    def __enter__(self) -> Display:
        if self.bars:
            self.bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.bars:
            self.bars.stop()
        if self.is_notebook:
            self._rewrite("")

    def report(self, progress: Progress) -> None:
        """Show where a run stands."""
        if self.bars:
            self._move_bars(self.bars, progress)
        elif self.is_notebook and (progress.row or progress.run_id == MEASURING):
            run = "measured" if progress.run_id == MEASURING else f"{_shown(progress.run_id)} step {progress.step}"
            self.say(f"{run}: {self._words(progress)}")
        elif progress.row:
            self.say(plain_line(progress))

    def say(self, line: str) -> None:
        """Show a line of progress."""
        if self.is_notebook:
            self._rewrite(line)
        elif self.bars:
            self.bars.console.print(line)
        elif not self.quiet:
            print(line, file=sys.stderr, flush=True)

    def _rewrite(self, line: str) -> None:
        """Replace the last line, as notebooks do after a carriage return."""
        if not self.quiet:
            print(f"\r{line:<{NOTEBOOK}.{NOTEBOOK}}", end="" if line else "\r", file=sys.stderr, flush=True)

    def _move_bars(self, bars: Bars, progress: Progress) -> None:
        if progress.run_id not in self.tasks:
            self.tasks[progress.run_id] = self._add(_shown(progress.run_id), progress.steps)
        task = self.tasks[progress.run_id]
        bars.update(task, completed=progress.step, numbers=self._words(progress))
        if progress.run_id == MEASURING:
            return
        if self.epoch is not None:
            bars.update(
                self.epoch, completed=100 * (progress.epoch % 1), description=f"epoch {int(progress.epoch) + 1}"
            )
        if self.sweep is not None:
            bars.advance(self.sweep, progress.step - self.done[progress.run_id])
            self.done[progress.run_id] = progress.step
            if progress.step >= progress.steps:
                bars.remove_task(self.tasks.pop(progress.run_id))

    def _words(self, progress: Progress) -> str:
        """Return the text next to a bar: where there is little room, the errors alone."""
        if progress.run_id == MEASURING:
            return f"{progress.step} of {progress.steps}"
        if self.is_wide:
            numbers = _numbers(progress.row) if progress.row else f"running {_running(progress)}"
            return f"epoch {progress.epoch:.1f} {numbers}"
        return _numbers(progress.row) if progress.row else f"running error {progress.running_error:.1f} %"


def is_watched() -> bool:
    """Whether a person sees stderr, in a terminal or a notebook."""
    console = Console(stderr=True)
    return console.is_terminal or console.is_jupyter


def _shown(run_id: str) -> str:
    """Return a run id with its hash first, since its end is cut where there is little room."""
    name, dash, short = run_id.rpartition("-")
    return f"{short} {name}" if dash else run_id


def plain_line(progress: Progress) -> str:
    """Return a line with a run's progress and the numbers of its evaluation."""
    assert progress.row
    where = f"{progress.run_id} step {progress.step}/{progress.steps} epoch {progress.epoch:.1f}"
    running = f" running {_running(progress)}" if not math.isnan(progress.running_loss) else ""
    return f"{where}{running} {_numbers(progress.row)}".rstrip()


def _running(progress: Progress) -> str:
    return f"loss {progress.running_loss:.3f} error {progress.running_error:.1f} %"


def _numbers(row: dict[str, float]) -> str:
    shown = [f"{split} {row[f'{split}_error']:.1f} %" for split in ("train", "val", "test") if f"{split}_error" in row]
    return f"error {' '.join(shown)}" if shown else ""
