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
    """Shows the progress of a sweep. Use it as a context manager and pass `report` to what trains."""

    def __init__(self, total_steps: int, runs: int, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.runs = runs
        self.steps: dict[str, int] = {}
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
        self.sweep = (
            self.bars.add_task("all runs (steps)", total=total_steps, numbers="") if self.bars and runs > 1 else None
        )

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
        first = self.steps.setdefault(progress.run_id, progress.step)
        if self.bars:
            self._move_bars(progress, first)
        elif progress.row and not self.quiet:
            print(plain_line(progress), file=sys.stderr, flush=True)

    def _move_bars(self, progress: Progress, first: int) -> None:
        assert self.bars
        if progress.run_id not in self.tasks:
            self.tasks[progress.run_id] = self.bars.add_task(progress.run_id, total=progress.steps, numbers="")
        task = self.tasks[progress.run_id]
        numbers = _numbers(progress.row) if progress.row else f"running {_running(progress)}"
        self.bars.update(task, completed=progress.step, numbers=numbers)
        if progress.step >= progress.steps:
            self.bars.remove_task(task)
            del self.tasks[progress.run_id]
        if self.sweep is not None:
            self.bars.advance(self.sweep, progress.step - self.steps[progress.run_id])
        self.steps[progress.run_id] = progress.step


def plain_line(progress: Progress) -> str:
    """Return one line that says where a run stands and what its evaluation gave."""
    assert progress.row
    where = f"{progress.run_id} step {progress.step}/{progress.steps}"
    running = f" running {_running(progress)}" if not math.isnan(progress.running_loss) else ""
    return f"{where}{running} {_numbers(progress.row)}".rstrip()


def _running(progress: Progress) -> str:
    return f"loss {progress.running_loss:.3f} error {progress.running_error:.1f} %"


def _numbers(row: dict[str, float]) -> str:
    shown = [f"{split} {row[f'{split}_error']:.1f} %" for split in ("train", "val", "test") if f"{split}_error" in row]
    return " ".join(shown)
