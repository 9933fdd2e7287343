"""`resx runs export` and `resx runs import`: runs for other machines and other tools."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from resx.cli.options import Results, Where
from resx.cli.runs.which import Names, live_root, select_runs


class Format(StrEnum):
    """What `export` writes."""

    csv = "csv"
    parquet = "parquet"
    bundle = "bundle"
    tables = "tables"
    tensorboard = "tensorboard"
    mlflow = "mlflow"
    trackio = "trackio"
    wandb = "wandb"


class Table(StrEnum):
    """Of which things a row of an exported table is."""

    curves = "curves"
    runs = "runs"


def export(
    target: Annotated[
        str, typer.Argument(help="File or folder to write; mlflow: its URI or database; trackio, wandb: the project.")
    ],
    names: Names = None,
    kind: Annotated[
        Format | None,
        typer.Option(
            "--format",
            help="csv (the default) or parquet: one table; bundle: one file for `runs import`; tables: text to commit; "
            "tensorboard, mlflow, trackio, wandb: for that tool. A file that ends in .parquet is one.",
            show_default=False,
        ),
    ] = None,
    table: Annotated[
        Table, typer.Option(help="A row for each evaluation (curves) or for each run, with the fields of the run.")
    ] = Table.curves,
    where: Where = None,
    results: Results = None,
) -> None:
    """Write runs as a table, as one bundle for another machine, as text tables, or for another tool.

    A tool gets the spec, the curves, every table and the status; a second export adds only what is new.

    A damaged run is left out with a line, unless it is named.

    Examples: [bold]resx runs export curves.csv[/bold], [bold]resx runs export --table runs runs.parquet[/bold],
    [bold]resx runs export --format bundle gpu-runs.zip[/bold],
    [bold]resx runs export --format mlflow mlflow.db[/bold]
    """
    from resx import exporters
    from resx.store.bundle import export_bundle
    from resx.store.tables import export_table, export_tables

    runs = select_runs(live_root(results), names, where)
    kind = kind or (Format.parquet if target.endswith(".parquet") else Format.csv)
    if kind in exporters.EXPORTERS:
        new = exporters.export(kind, runs, target)
        typer.echo(f"{len(runs)} runs exported to {target}, {new} of them with anything new")
        return
    if kind is Format.bundle:
        export_bundle(runs, Path(target))
    elif kind is Format.tables:
        export_tables(runs, Path(target))
    else:
        export_table(runs, Path(target), table, parquet=kind is Format.parquet)
    typer.echo(f"{len(runs)} runs written to {target}")


def import_runs(
    bundle: Annotated[Path, typer.Argument(help="A file that `resx runs export --format bundle` wrote.")],
    results: Results = None,
) -> None:
    """Take in the runs of a bundle; a run that is here already stays as it is."""
    from resx.store.bundle import import_bundle
    from resx.store.files import results_root

    new, others = import_bundle(bundle, results_root(results))
    typer.echo(f"{len(new)} runs imported, {len(others)} were here already and stay as they are")
