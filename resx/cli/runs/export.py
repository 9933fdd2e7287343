"""`resx runs export` and `resx runs import`: runs for other machines and other tools."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resx.cli.options import Results
from resx.cli.runs.which import Names, Where, select_runs
from resx.spec import SpecError

if TYPE_CHECKING:
    from resx.store.run import RunFolder


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

    runs = select_runs(results_root(results), names, where)
    kind = kind or (Format.parquet if target.suffix == ".parquet" else Format.csv)
    if kind in (Format.csv, Format.parquet):
        export_table(runs, target, table, parquet=kind is Format.parquet)
    elif kind is Format.bundle:
        export_bundle(runs, target)
    elif kind is Format.tables:
        export_tables(runs, target)
    else:
        _export_tensorboard(runs, target)
    typer.echo(f"{len(runs)} runs written to {target}")


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


def import_runs(
    bundle: Annotated[Path, typer.Argument(help="A file that `resx runs export --format bundle` wrote.")],
    results: Results = None,
) -> None:
    """Take in the runs of a bundle; a run that is here already stays as it is."""
    from resx.store.bundle import import_bundle
    from resx.store.files import results_root

    new, others = import_bundle(bundle, results_root(results))
    typer.echo(f"{len(new)} runs imported, {len(others)} were here already and stay as they are")
