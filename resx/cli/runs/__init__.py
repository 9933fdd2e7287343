"""`resx runs`: find, show, compare, check, export, import and remove what is recorded."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resx.cli import complete
from resx.cli.options import Json, Results
from resx.spec import SpecError

if TYPE_CHECKING:
    from resx.store.run import Record, RunFolder

runs_app = typer.Typer(help="Find, show, check, export, import and remove recorded runs.")


class Format(StrEnum):
    """What `export` writes."""

    csv = "csv"
    parquet = "parquet"
    bundle = "bundle"
    tables = "tables"
    tensorboard = "tensorboard"


class Table(StrEnum):
    """Of which things a row of an exported table is."""

    curves = "curves"
    runs = "runs"


class Status(StrEnum):
    """What became of a run."""

    finished = "finished"
    diverged = "diverged"
    unfinished = "unfinished"
    damaged = "damaged"


class Snapshots(StrEnum):
    """Which weights of finished runs `gc` leaves."""

    none = "none"
    ends = "ends"
    log = "log"


Names = Annotated[
    list[str] | None,
    typer.Argument(
        help="Run ids, or how they begin or end; none for all.", show_default=False, autocompletion=complete.runs
    ),
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FIELD=VALUE",
        help="Only runs with this value of a field, such as depth=56; repeat for several.",
        show_default=False,
    ),
]
WithStatus = Annotated[Status | None, typer.Option(help="Only runs of this status.", show_default=False)]
WithTag = Annotated[str | None, typer.Option(help="Only runs with this tag.", show_default=False)]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@runs_app.command("list")
def list_runs(
    where: Where = None,
    status: WithStatus = None,
    tag: WithTag = None,
    sort: Annotated[
        str, typer.Option(metavar="FIELD", help="Order by a field; -FIELD for the largest first.")
    ] = "run_id",
    results: Results = None,
    json: Json = False,
) -> None:
    """List recorded runs: status, errors, and the fields in which they differ.

    The first column names a run in every other command. Columns that do not fit are left out; --json has all.

    Examples: [bold]resx runs list --where depth=56 --sort -test_error[/bold],
    [bold]resx runs list --status unfinished[/bold]
    """
    from resx.cli.terminal import print_json
    from resx.store.files import results_root
    from resx.store.select import sort_records

    root = results_root(results)
    records = sort_records(_records(root, where, status, tag), sort)
    for record in records:
        if record.damage:
            typer.echo(f"resx: {record.damage}", err=True)
    if json:
        print_json([{**record.row, **(record.run.notes() if record.run else {})} for record in records])
        return
    _print_records(records, f"{len(records)} runs in {root / 'runs'}")
    if not records and not any((where, status, tag)):
        typer.echo("Nothing is recorded yet: `resx compare` trains four small networks in about a minute.", err=True)


def _records(
    root: Path, where: Sequence[str] | None = None, status: Status | None = None, tag: str | None = None
) -> list[Record]:
    """Return the records of the runs that are meant, those of a published experiment too."""
    from resx.store.run import Record, find_runs, read_record
    from resx.store.select import matches, parse_where

    wanted = parse_where([*(where or []), *([f"status={status}"] if status else [])])
    if (root / "fields.json").is_file():
        from resx.store.tables import load_runs

        rows = load_runs(root)[0].to_dict("records")
        records = [Record({str(key): value for key, value in row.items()}) for row in rows]
    else:
        records = [read_record(path) for path in find_runs(root)]
    records = [record for record in records if matches(record, wanted)]
    return [record for record in records if not tag or (record.run and tag in record.run.notes()["tags"])]


def _print_records(records: Sequence[Record], title: str) -> None:
    """Print a line a run: as many columns as fit, the most telling first; a name is never cut."""
    from resx.cli.terminal import CONSOLE, number, print_table
    from resx.store.select import as_text, differing

    def steps(row: dict[str, Any]) -> str:
        return f"{row['steps_done']:,}" if isinstance(row.get("steps_done"), int) else "–"

    def tags(record: Record) -> str:
        return " ".join(record.run.notes()["tags"]) if record.run else ""

    columns: dict[str, list[str]] = {
        "<run": [record.row["run_id"][-8:] for record in records],
        "<status": [record.row["status"] for record in records],
        "train %": [number(record.row.get("train_error")) for record in records],
        "test %": [number(record.row.get("test_error")) for record in records],
        **{f"<{name}": [_cell(as_text(record.row.get(name))) for record in records] for name in differing(records)},
        "<tags": [tags(record) for record in records],
        "steps": [steps(record.row) for record in records],
        "seconds": [number(record.row.get("seconds"), 0) for record in records],
        "<id": [record.row["run_id"] for record in records],
    }
    if not any(columns["<tags"]):
        del columns["<tags"]
    room, shown = CONSOLE.width if sys.stdout.isatty() else sys.maxsize, []
    for name, cells in columns.items():
        needed = max(len(cell) for cell in (name.removeprefix("<"), *cells)) + 3
        if needed <= room:
            shown.append(name)
            room -= needed
    if not sys.stdout.isatty():
        CONSOLE.width = max(140, sum(max(map(len, (name, *columns[name]))) + 3 for name in shown) + 2)
    print_table(list(zip(*(columns[name] for name in shown), strict=True)), shown, title=title)


def _cell(text: str) -> str:
    return text if len(text) <= 24 else f"{text[:23]}…"


@runs_app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="A run id, or how it begins or ends.", autocompletion=complete.runs)],
    results: Results = None,
    json: Json = False,
) -> None:
    """Show one run: its spec, its result, and on what it was made."""
    from resx.cli.terminal import number, print_json, print_lines, print_table
    from resx.store.files import results_root
    from resx.store.run import find_run

    run = find_run(results_root(results), name)
    notes, attempts = run.notes(), run.attempts()
    content = {
        "run_id": run.run_id,
        "spec": run.spec.model_dump(mode="json", exclude_none=True),
        "result": run.result,
        "attempts": attempts,
        "snapshots": list(run.snapshots()),
        "folder": run.path,
        **notes,
    }
    if json:
        print_json(content)
        return
    fields = [[key, str(value)] for key, value in run.spec.flat().items() if value is not None]
    print_table(fields, ["<field", "<value"], title=run.run_id)
    result = content["result"] or {"status": "unfinished"}
    print_table(
        [[key, number(value, 4) if isinstance(value, float) else str(value)] for key, value in result.items()],
        ["<result", "<value"],
    )
    if notes["tags"] or notes["note"]:
        print_lines([f"tags: {' '.join(notes['tags'])}", f"note: {notes['note']}"])
    print_lines([_attempt(attempt) for attempt in attempts])
    if not attempts:
        print_lines(["environment.json is missing or damaged: on what it was made is not known"])


def _attempt(attempt: dict[str, Any]) -> str:
    told = {key: attempt.get(key, "?") for key in ("first_step", "last_step", "hardware", "device", "torch", "commit")}
    return (
        f"steps {told['first_step']}–{told['last_step']}: {attempt['seconds']:.0f} s on {told['hardware']} "
        f"({told['device']}, torch {told['torch']}, commit {told['commit']}), {attempt.get('started', '?')}"
    )


@runs_app.command("diff")
def diff(
    first: Annotated[str, typer.Argument(help="A run id, or how it begins or ends.", autocompletion=complete.runs)],
    second: Annotated[str, typer.Argument(help="Another.", autocompletion=complete.runs)],
    results: Results = None,
    json: Json = False,
) -> None:
    """Show in what two runs differ: fields of their specs, then their results."""
    from resx.cli.terminal import print_json, print_table
    from resx.store.files import results_root
    from resx.store.run import find_path, read_record
    from resx.store.select import NAMES, as_text

    root = results_root(results)
    records = [read_record(find_path(root, name)) for name in (first, second)]
    for record in records:
        if record.damage:
            raise SpecError(record.damage)
    names = [name for name in NAMES if name != "run_id"]
    rows = {name: [as_text(record.row.get(name)) for record in records] for name in names}
    rows = {name: cells for name, cells in rows.items() if cells[0] != cells[1]}
    ids = [record.row["run_id"] for record in records]
    if json:
        print_json(
            {name: {run_id: record.row.get(name) for run_id, record in zip(ids, records, strict=True)} for name in rows}
        )
        return
    print_table([[name, *cells] for name, cells in rows.items()], ["<field", *(f"<{run_id[-8:]}" for run_id in ids)])


@runs_app.command("note")
def note(
    names: Annotated[
        list[str], typer.Argument(help="Run ids, or how they begin or end.", autocompletion=complete.runs)
    ],
    text: Annotated[str | None, typer.Option("--text", help="The note; an empty one removes it.")] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="Add a tag; repeat for several.")] = None,
    untag: Annotated[list[str] | None, typer.Option("--untag", help="Remove a tag; repeat for several.")] = None,
    results: Results = None,
) -> None:
    """Write tags and a note on runs; they are no part of a run or of its id.

    Example: [bold]resx runs note 1a2b3c4d --tag lecture --text "first try"[/bold]
    """
    from resx.spec import printable
    from resx.store.files import results_root

    bad = [word for word in tag or [] if word.split() != [word] or printable(word) != word]
    if bad:
        raise SpecError(f"--tag: one word each, not '{bad[0]}'")
    for run in _chosen(results_root(results), names):
        notes = run.notes()
        tags = dict.fromkeys([*notes["tags"], *(tag or [])])
        run.save_notes([word for word in tags if word not in (untag or [])], notes["note"] if text is None else text)
        typer.echo(f"{run.run_id}: {' '.join(run.notes()['tags']) or 'no tags'}; {run.notes()['note'] or 'no note'}")


@runs_app.command("check")
def check(
    names: Names = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Make again what can be: metrics and predictions from the checkpoint, …")
    ] = False,
    results: Results = None,
) -> None:
    """Read every file of runs as it will be read later, and say what is wrong with which; then exit code 1.

    With --repair what can be made again is: the manifest, metrics.csv, predictions and the result from the
    checkpoint. Nothing else is changed.
    """
    from resx.store.files import StoreError, results_root
    from resx.store.mend import mend, problems
    from resx.store.run import find_path, find_runs

    root = results_root(results)
    paths = [find_path(root, name) for name in names] if names else find_runs(root)
    wrong = 0
    for path in paths:
        lines = problems(path)
        if lines and repair:
            try:
                for line in [*mend(path), *_train_again(path)]:
                    typer.echo(f"resx: {line}", err=True)
                lines = problems(path)
            except (StoreError, SpecError) as error:
                lines = [str(error)]
        for line in lines:
            typer.echo(f"resx: {line}", err=True)
        wrong += bool(lines)
    typer.echo(f"{len(paths)} runs checked, {wrong} damaged")
    if wrong:
        raise typer.Exit(1)


def _train_again(path: Path) -> list[str]:
    """Make the predictions and the result of a run from its checkpoint, where only they are damaged."""
    from resx.store.mend import problems

    damaged = [line for line in problems(path) if "result.json" in line or "predictions.npz" in line]
    if not damaged or len(damaged) < len(problems(path)):
        return []
    from resx.engines import train_all
    from resx.store.run import read_run
    from resx.training.machine import Machine

    [outcome] = train_all([read_run(path).spec], Machine(results=path.parent.parent))
    return [outcome.error] if outcome.error else [f"{line}; made again from checkpoint.pt" for line in damaged]


@runs_app.command("export")
def export(
    target: Annotated[Path, typer.Argument(help="File or folder to write.")],
    names: Names = None,
    kind: Annotated[
        Format | None,
        typer.Option(
            "--format",
            help="csv (the default) or parquet: one table; bundle: one file for `runs import`; tables: text to commit; "
            "tensorboard: events. A file that ends in .parquet is one.",
            show_default=False,
        ),
    ] = None,
    table: Annotated[
        Table, typer.Option(help="A row for each evaluation (curves) or for each run, with the fields of the run.")
    ] = Table.curves,
    where: Where = None,
    results: Results = None,
) -> None:
    """Write runs as a table, as one bundle for another machine, as text tables, or for tensorboard.

    A damaged run is left out with a line, unless it is named.

    Examples: [bold]resx runs export curves.csv[/bold], [bold]resx runs export --table runs runs.parquet[/bold],
    [bold]resx runs export --format bundle gpu-runs.zip[/bold]
    """
    from resx.store.bundle import export_bundle
    from resx.store.files import results_root
    from resx.store.tables import export_table, export_tables

    chosen = _chosen(results_root(results), names, where)
    kind = kind or (Format.parquet if target.suffix == ".parquet" else Format.csv)
    if kind in (Format.csv, Format.parquet):
        export_table(chosen, target, table, parquet=kind is Format.parquet)
    elif kind is Format.bundle:
        export_bundle(chosen, target)
    elif kind is Format.tables:
        export_tables(chosen, target)
    else:
        _export_tensorboard(chosen, target)
    typer.echo(f"{len(chosen)} runs written to {target}")


def _export_tensorboard(runs: list[RunFolder], target: Path) -> None:
    """Write each run's metrics as scalars of tensorboard's event files, in the place of those that were there."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise SpecError("tensorboard is not installed: pip install 'resx[tensorboard]'") from error

    for run in runs:
        curve = run.curve()
        for earlier in (target / run.run_id).glob("events.out.tfevents.*"):
            earlier.unlink()  # else every point would be there twice
        with SummaryWriter(str(target / run.run_id)) as writer:
            for _, row in curve.iterrows():
                for name, value in row.drop("step").dropna().items():
                    writer.add_scalar(str(name), float(value), int(row["step"]))


@runs_app.command("import")
def import_runs(
    bundle: Annotated[Path, typer.Argument(help="A file that `resx runs export --format bundle` wrote.")],
    results: Results = None,
) -> None:
    """Take in the runs of a bundle; a run that is here already stays as it is."""
    from resx.store.bundle import import_bundle
    from resx.store.files import results_root

    new, others = import_bundle(bundle, results_root(results))
    typer.echo(f"{len(new)} runs imported, {len(others)} were here already and stay as they are")


@runs_app.command("rm")
def remove(
    names: Names = None,
    where: Where = None,
    status: WithStatus = None,
    tag: WithTag = None,
    unfinished: Annotated[bool, typer.Option("--unfinished", help="The same as --status unfinished.")] = False,
    yes: Yes = False,
    results: Results = None,
) -> None:
    """Remove recorded runs with everything measured on them, damaged ones too.

    Examples: [bold]resx runs rm 1a2b3c4d[/bold], [bold]resx runs rm --unfinished[/bold],
    [bold]resx runs rm --where lr=1[/bold]
    """
    from resx.store.files import results_root
    from resx.store.run import find_path, remove_run

    root = results_root(results)
    status = Status.unfinished if unfinished else status
    if not (names or where or status or tag):
        raise SpecError("runs rm: say which: run ids, --where, --status, --unfinished or --tag")
    paths = [find_path(root, name) for name in names] if names else None
    if where or status or tag:
        there = {root / "runs" / record.row["run_id"] for record in _records(root, where, status, tag)}
        paths = [path for path in (sorted(there) if paths is None else paths) if path in there]
    paths = list(dict.fromkeys(paths or []))
    if not paths:
        typer.echo("no run is meant; nothing was removed", err=True)
        return
    listed = ", ".join(path.name for path in paths[:8]) + (f" and {len(paths) - 8} more" if len(paths) > 8 else "")
    if not yes:
        typer.confirm(f"Remove {len(paths)} runs: {listed}?", abort=True, err=True)
    for path in paths:
        remove_run(path)
    typer.echo(f"removed {listed}")


@runs_app.command("gc")
def collect(
    snapshots: Annotated[
        Snapshots,
        typer.Option(help="Weights of finished runs that stay: none, ends (first and last) or log (all)."),
    ] = Snapshots.log,
    names: Names = None,
    yes: Yes = False,
    results: Results = None,
) -> None:
    """Free disk space: what kills left behind, and with --snapshots the weights in between of finished runs.

    A probe that needs weights which are gone says so; training the run again after `runs rm` makes them again.
    """
    from resx.store.files import results_root
    from resx.store.mend import remove_leftovers, thin_snapshots

    root = results_root(results)
    if snapshots is not Snapshots.log and not yes:
        typer.confirm(
            f"Remove the weights of finished runs in {root / 'runs'} but for {snapshots}?", abort=True, err=True
        )
    freed = remove_leftovers(root)
    if snapshots is not Snapshots.log:
        freed += sum(thin_snapshots(run, snapshots.value) for run in _chosen(root, names) if run.result)
    typer.echo(f"{freed / 2**20:.1f} MiB freed")


def _chosen(results: Path, names: list[str] | None, where: Sequence[str] | None = None) -> list[RunFolder]:
    """Return the named runs, or all that are meant; damaged ones that are not named are left out with a line."""
    from resx.store.run import find_run

    if names:
        return [find_run(results, name) for name in names]
    records = _records(results, where)
    for record in records:
        if record.damage:
            typer.echo(f"resx: {record.damage}; it is left out", err=True)
    chosen = [record.run for record in records if record.run]
    if not chosen:
        raise SpecError(
            f"nothing is recorded in {results / 'runs'}; `resx compare` makes some, --results looks elsewhere"
        )
    return chosen
