"""`resx runs list`: a line a run, as many columns as fit."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resx.cli.options import Json, Results, Where
from resx.cli.runs.which import Older, WithStatus, WithTag, select_records

if TYPE_CHECKING:
    from resx.store.run import Record


def list_runs(
    where: Where = None,
    status: WithStatus = None,
    tag: WithTag = None,
    older: Older = None,
    sort: Annotated[
        str, typer.Option(metavar="FIELD", help="Order by a field; -FIELD for the largest first.")
    ] = "run_id",
    results: Results = None,
    json: Json = False,
) -> None:
    """List recorded runs: status, errors, and the fields in which they differ.

    The first column names a run in every other command. Columns that do not fit are left out; --json has all.

    Examples: [bold]resx runs list --where depth=56 --sort -test_error[/bold],
    [bold]resx runs list --status unfinished --older 7 --sort written[/bold]
    """
    from resx.cli.terminal import print_json
    from resx.store.files import is_published, results_root
    from resx.store.run import read_notes
    from resx.store.select import sort_records

    root = results_root(results)
    place = root if is_published(root) else root / "runs"
    records = sort_records(select_records(root, where, status, tag, older), sort)
    for record in records:
        if record.damage:
            typer.echo(f"resx: {record.damage}", err=True)
    if json:
        print_json([{**record.row, **read_notes(Path(record.row["folder"]))} for record in records])
        return
    if records:
        _print_records(records, f"{len(records)} runs in {place}")
    elif any((where, status, tag, older)):
        typer.echo(f"no run in {place} matches", err=True)
    else:
        typer.echo("Nothing is recorded yet: `resx compare` trains four small networks in about a minute.", err=True)


def _print_records(records: Sequence[Record], title: str) -> None:
    """Print a line a run: as many columns as fit, the most telling first; a name is never cut."""
    from resx.cli.terminal import CONSOLE, number, print_table
    from resx.store.run import read_notes
    from resx.store.select import as_text, differing

    def steps(row: dict[str, Any]) -> str:
        return f"{row['steps_done']:,}" if isinstance(row.get("steps_done"), int) else "–"

    columns: dict[str, list[str]] = {
        "<run": [record.row["run_id"][-8:] for record in records],
        "<status": [record.row["status"] for record in records],
        "train %": [number(record.row.get("train_error")) for record in records],
        "test %": [number(record.row.get("test_error")) for record in records],
        **{f"<{name}": [_cell(as_text(record.row.get(name))) for record in records] for name in differing(records)},
        "<tags": [" ".join(read_notes(Path(record.row["folder"]))["tags"]) for record in records],
        "done": [steps(record.row) for record in records],
        "seconds": [number(record.row.get("seconds"), 0) for record in records],
        "<written": [record.row.get("written") or "" for record in records],
        "<id": [record.row["run_id"] for record in records],
    }
    columns = {name: cells for name, cells in columns.items() if name not in ("<tags", "<written") or any(cells)}
    widths = {name: max(map(len, (name.removeprefix("<"), *cells))) + 3 for name, cells in columns.items()}
    if not sys.stdout.isatty():
        CONSOLE.width = max(140, sum(widths.values()) + 2)
    room, shown = CONSOLE.width, []
    for name, width in widths.items():
        if width <= room:
            shown.append(name)
            room -= width
    print_table(list(zip(*(columns[name] for name in shown), strict=True)), shown, title=title)


def _cell(text: str) -> str:
    return text if len(text) <= 24 else f"{text[:23]}…"
