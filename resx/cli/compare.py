"""`resx compare`: the probe `degradation` with short flags, plain against residual networks at several depths and
seeds."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from resx.cli.options import DryRun, Given, Json, Quiet, TableFormat, parse_list, training_options
from resx.cli.probe import ExperimentFile, Publish, Report, Seeds, Set, execute


@training_options("depth", "shortcut")
def compare(
    given: Given,
    experiment: ExperimentFile = None,
    depths: Annotated[
        str | None,
        typer.Option(help="Depths to compare, such as 20,32,44,56. [dim]default: 20,56[/dim]", show_default=False),
    ] = None,
    shortcut: Annotated[
        list[str] | None,
        typer.Option(help="Shortcut to compare with plain and identity; repeat for several.", show_default=False),
    ] = None,
    seeds: Seeds = None,
    set_: Set = None,
    publish: Publish = None,
    report: Report = None,
    json: Json = False,
    format: TableFormat = None,
    quiet: Quiet = False,
    dry_run: DryRun = False,
) -> None:
    """Train plain and residual networks at several depths and say what depth does to each.

    Prints errors per network, and the effect of depth among plain nets, among residual nets, and their difference,
    each paired by seed. What is finished already is not trained again.

    Examples: [bold]resx compare[/bold],
    [bold]resx compare --depths 20,32,44,56 --seeds 6[/bold],
    [bold]resx compare experiments/digits-depths.toml[/bold]
    """
    grid: dict[str, list[Any]] = {}
    if depths:
        grid["depth"] = parse_list(depths, "depths")
    if shortcut:
        grid["shortcut"] = list(shortcut)
    options: dict[str, Any] = {
        "publish": publish,
        "page": report,
        "json": json,
        "quiet": quiet,
        "dry_run": dry_run,
        "form": format,
    }
    execute("degradation", given, experiment, grid=grid, seeds=seeds, pairs=set_ or [], **options)
