"""`resx train`: train one network and record it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from resx.cli import complete
from resx.cli.given import Given, training_options
from resx.cli.options import DryRun, ExperimentFile, Json, PrintSpec, Quiet
from resx.spec import load_toml


@training_options
def train(
    given: Given,
    experiment: ExperimentFile = None,
    plain: Annotated[
        bool | None, typer.Option("--plain/--residual", help="No shortcuts, or identity shortcuts (default).")
    ] = None,
    spec: Annotated[
        Path | None,
        typer.Option(help="The file as an option: what --print-spec printed.", autocompletion=complete.experiments),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    dry_run: DryRun = False,
    print_spec: PrintSpec = False,
) -> None:
    """Train one network and record it; a finished run is only shown, an unfinished one is resumed.

    A file gives the fields; of an experiment of many runs, flags choose one.

    Examples: [bold]resx train --depth 56 --plain[/bold],
    [bold]resx train --depth 20 --shortcut scaled:alpha=0.5 --steps 500[/bold],
    [bold]resx train experiments/digits-depths.toml --depth 56 --seed 3[/bold]
    """
    from resx import lab
    from resx.cli.show import print_estimate, print_failures, print_nothing_done, print_outlook, print_run
    from resx.cli.terminal import print_json
    from resx.engines import left_to_train, train_all
    from resx.exporters import follow
    from resx.progress import Display

    if spec and experiment:
        raise typer.BadParameter("give the file once, with --spec or without")
    file = experiment or spec
    written = load_toml(file) if file else None
    fields = {**given.with_preset(written.run if written else {}), **_shortcut(plain, given)}
    machine = given.machine()
    run = lab.plan_run(written, fields=fields, grid=given.grid, seeds=given.seeds, machine=machine)
    if print_spec:
        typer.echo(lab.as_toml(run), nl=False)
        return
    if dry_run:
        print_estimate([run], machine, as_json=json)
        return
    if "preset" in fields.keys() - given.fields.keys():
        print_outlook([run], machine)
    left = left_to_train([run], machine)
    with (
        Display(left, quiet=quiet) as display,
        follow(given.track, machine.results, [run.run_id], display.report) as report,
    ):
        [outcome] = train_all([run], machine, report)
    print_failures([outcome])
    if outcome.result and not left and not run.foreign:
        print_nothing_done(run, machine.results)
    if json:
        print_json(outcome.summary(machine.results))
    elif outcome.result:
        print_run(outcome.spec, outcome.result, machine.results)
    if outcome.result is None:
        raise typer.Exit(1)


def _shortcut(plain: bool | None, given: Given) -> dict[str, str]:
    """Return the field that --plain or --residual sets, if either was given."""
    if plain is None:
        return {}
    if "shortcut" in {**given.fields, **given.grid}:
        raise typer.BadParameter("give either --plain/--residual or --shortcut")
    return {"shortcut": "none" if plain else "identity"}
