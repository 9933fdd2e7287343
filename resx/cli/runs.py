"""`resx runs`: list, show, export, import and remove what is recorded."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resx.cli.options import Json, Results
from resx.spec import SpecError

if TYPE_CHECKING:
    from resx.store.run import RunFolder

runs_app = typer.Typer(no_args_is_help=True, help="List, show, export, import and remove recorded runs.")


class Format(StrEnum):
    """What `export` writes."""

    csv = "csv"
    bundle = "bundle"
    tables = "tables"
    tensorboard = "tensorboard"


Names = Annotated[
    list[str] | None,
    typer.Argument(help="Run ids, or how they begin or end; none for all.", show_default=False),
]


@runs_app.command("list")
def list_runs(results: Results = None, json: Json = False) -> None:
    """List every recorded run with its status and errors."""
    from resx.cli.terminal import number, print_json, print_table
    from resx.store.files import results_root
    from resx.store.tables import load_runs

    runs, _ = load_runs(results)
    if json:
        print_json(runs.to_dict("records"))
        return
    rows = [
        [
            str(row["run_id"]),
            str(row["status"]),
            f"{row['steps']:,}",
            number(row["train_error"]),
            number(row["test_error"]),
            number(row["seconds"], 0),
        ]
        for _, row in runs.iterrows()
    ]
    title = f"{len(runs)} runs in {results_root(results) / 'runs'}"
    print_table(rows, ["<run", "<status", "steps", "training error %", "test error %", "seconds"], title=title)
    if runs.empty:
        typer.echo("Nothing is recorded yet: `resx compare` trains four small networks in about a minute.", err=True)


@runs_app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="A run id, or how it begins or ends.")],
    results: Results = None,
    json: Json = False,
) -> None:
    """Show one run: its spec, its result, and on what it was made."""
    from resx.cli.terminal import number, print_json, print_table
    from resx.store.files import results_root
    from resx.store.run import find_run

    run = find_run(results_root(results), name)
    content = {
        "run_id": run.run_id,
        "spec": run.spec.model_dump(mode="json", exclude_none=True),
        "result": run.result,
        "attempts": run.attempts(),
        "snapshots": list(run.snapshots()),
        "folder": run.path,
    }
    if json:
        print_json(content)
        return
    fields = [[key, str(value)] for key, value in run.spec.flat().items() if value is not None]
    print_table(fields, ["<field", "<value"], title=run.run_id)
    result = run.result or {"status": "unfinished"}
    print_table(
        [[key, number(value, 4) if isinstance(value, float) else str(value)] for key, value in result.items()],
        ["<result", "<value"],
    )
    for attempt in run.attempts():
        typer.echo(
            f"steps {attempt['first_step']}–{attempt['last_step']}: {attempt['seconds']:.0f} s on "
            f"{attempt['hardware']} ({attempt['device']}, torch {attempt['torch']}, commit {attempt['commit']}), "
            f"{attempt['started']}"
        )


@runs_app.command("export")
def export(
    target: Annotated[Path, typer.Argument(help="File or folder to write.")],
    names: Names = None,
    kind: Annotated[
        Format,
        typer.Option(
            "--format",
            help="csv: curves; bundle: one file for `runs import`; tables: text to commit; tensorboard: events.",
        ),
    ] = Format.csv,
    results: Results = None,
) -> None:
    """Write runs as CSV, as one bundle for another machine, as text tables, or for tensorboard.

    Examples: [bold]resx runs export curves.csv[/bold],
    [bold]resx runs export --format bundle gpu-runs.zip[/bold]
    """
    from resx.store.bundle import export_bundle
    from resx.store.files import results_root
    from resx.store.tables import export_csv, export_tables

    chosen = _chosen(results_root(results), names)
    if kind is Format.csv:
        export_csv(chosen, target)
    elif kind is Format.bundle:
        export_bundle(chosen, target)
    elif kind is Format.tables:
        export_tables(chosen, target)
    else:
        _export_tensorboard(chosen, target)
    typer.echo(f"{len(chosen)} runs written to {target}")


def _export_tensorboard(runs: list[RunFolder], target: Path) -> None:
    """Write each run's metrics as scalars of tensorboard's event files."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise SpecError("tensorboard is not installed: pip install 'resx[tensorboard]'") from error
    import pandas as pd

    for run in runs:
        with SummaryWriter(str(target / run.run_id)) as writer:
            for _, row in pd.read_csv(run.path / "metrics.csv").iterrows():
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

    new, kept = import_bundle(bundle, results_root(results))
    typer.echo(f"{len(new)} runs imported, {len(kept)} were here already and stay as they are")


@runs_app.command("rm")
def remove(
    names: Annotated[list[str], typer.Argument(help="Run ids, or how they begin or end.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    results: Results = None,
) -> None:
    """Remove recorded runs with everything measured on them."""
    from resx.store.files import results_root
    from resx.store.run import remove_run

    chosen = _chosen(results_root(results), names)
    listed = ", ".join(run.run_id for run in chosen)
    if not yes:
        typer.confirm(f"Remove {listed}?", abort=True, err=True)
    for run in chosen:
        remove_run(run.path)
    typer.echo(f"removed {listed}")


def _chosen(results: Path, names: list[str] | None) -> list[RunFolder]:
    from resx.store.run import find_run, find_runs, read_run

    chosen = [find_run(results, name) for name in names] if names else [read_run(path) for path in find_runs(results)]
    if not chosen:
        raise SpecError(
            f"nothing is recorded in {results / 'runs'}; `resx compare` makes some, --results looks elsewhere"
        )
    return chosen
