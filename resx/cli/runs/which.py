"""Which runs a command of `resx runs` means: the options that say so, and what they select."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resx.cli import complete
from resx.spec import SpecError

if TYPE_CHECKING:
    from resx.store.run import Record, RunFolder


class Status(StrEnum):
    """What became of a run."""

    finished = "finished"
    diverged = "diverged"
    unfinished = "unfinished"
    damaged = "damaged"


Names = Annotated[
    list[str] | None,
    typer.Argument(
        help="Run ids, or how they begin or end; none: all that the options select.",
        show_default=False,
        autocompletion=complete.runs,
    ),
]
WithStatus = Annotated[Status | None, typer.Option(help="Only runs of this status.", show_default=False)]
Older = Annotated[
    float | None,
    typer.Option(
        min=0, metavar="DAYS", help="Only runs that were not written to for this many days.", show_default=False
    ),
]
WithTag = Annotated[str | None, typer.Option(help="Only runs with this tag.", show_default=False)]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def live_root(results: Path | None) -> Path:
    """Return the folder of everything recorded. Raises SpecError for a published experiment: it has no run folders."""
    from resx.store.files import is_published, results_root

    root = results_root(results)
    if is_published(root):
        raise SpecError(
            f"{root}: a published experiment: tables (runs.csv, curves.csv.gz), no folders of runs; "
            "`resx runs list` and `resx plot` read it"
        )
    return root


def select_records(
    root: Path,
    where: Sequence[str] | None = None,
    status: Status | None = None,
    tag: str | None = None,
    older: float | None = None,
) -> list[Record]:
    """Return the records of the runs that are meant, those of a published experiment too.

    A live run's row has `written`, when something was last written to it, as local time. older: days since then.
    """
    from resx.store.files import is_published
    from resx.store.index import read_records
    from resx.store.run import Record, read_notes
    from resx.store.select import matches, parse_where

    conditions = parse_where([*(where or []), *([f"status={status}"] if status else [])])
    if is_published(root):
        from resx.store.tables import load_runs

        rows = load_runs(root)[0].to_dict("records")
        records = [Record({str(key): value for key, value in row.items()}) for row in rows]
    else:
        records = read_records(root)
        for record in records:
            record.row["written"] = _last_written(record.row["folder"])
    if older is not None:
        since = (datetime.now() - timedelta(days=older)).isoformat(" ", "minutes")
        records = [record for record in records if (written := record.row.get("written")) and written <= since]
    records = [record for record in records if matches(record.row, conditions)]
    return [record for record in records if not tag or tag in read_notes(Path(record.row["folder"]))["tags"]]


def _last_written(folder: str) -> str | None:
    """Return when something was last put into a run's folder, to the minute; None where that cannot be read."""
    try:
        return datetime.fromtimestamp(os.stat(folder).st_mtime).isoformat(" ", "minutes")
    except OSError:  # gone meanwhile
        return None


def select_runs(results: Path, names: list[str] | None, where: Sequence[str] | None = None) -> list[RunFolder]:
    """Return the named runs, or all that are meant; damaged ones that are not named are left out with a line."""
    from resx.store.run import find_run, read_run

    if names:
        return [find_run(results, name) for name in names]
    records = select_records(results, where)
    for record in records:
        if record.damage:
            typer.echo(f"resx: {record.damage}; it is left out", err=True)
    runs = [record.run or read_run(Path(record.row["folder"])) for record in records if not record.damage]
    if not runs:
        raise SpecError(
            f"nothing is recorded in {results / 'runs'}; `resx compare` makes some, --results looks elsewhere"
        )
    return runs
