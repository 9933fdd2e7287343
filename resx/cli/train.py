"""`resx train`: train one network and record it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from resx.cli.options import DryRun, Given, Json, Quiet, training_options
from resx.spec import Experiment, load_toml


@training_options()
def train(
    given: Given,
    plain: Annotated[
        bool | None, typer.Option("--plain/--residual", help="No shortcuts, or identity shortcuts (default).")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Names every random stream of the run.", show_default=False)] = None,
    spec: Annotated[Path | None, typer.Option(help="A TOML file whose \\[run] table gives the fields.")] = None,
    json: Json = False,
    quiet: Quiet = False,
    dry_run: DryRun = False,
) -> None:
    """Train one network and record it; a finished run is returned, an unfinished one goes on.

    Examples: [bold]resx train --depth 56 --plain[/bold],
    [bold]resx train --depth 20 --shortcut scaled:alpha=0.5 --steps 500[/bold]
    """
    from resx.cli.progress import Display
    from resx.cli.show import print_estimate, print_failures, print_run
    from resx.cli.terminal import print_json
    from resx.engines import left_to_train, train_all
    from resx.training.resolve import resolve

    experiment = load_toml(spec) if spec else Experiment()
    if experiment.grids:
        raise typer.BadParameter(f"{spec} has a [grid]: run it with `resx run {spec}`")
    fields: dict[str, Any] = {**experiment.run, **given.with_preset(experiment.run)}
    if plain is not None:
        if "shortcut" in given.fields:
            raise typer.BadParameter("give either --plain/--residual or --shortcut")
        fields["shortcut"] = "none" if plain else "identity"
    if seed is not None:
        fields["seed"] = seed
    machine = given.machine()
    specs = resolve([fields], machine)
    if dry_run:
        print_estimate(specs, machine, as_json=json)
        return
    with Display(left_to_train(specs, machine), quiet=quiet) as display:
        [outcome] = train_all(specs, machine, display.report)
    print_failures([outcome])
    if json:
        print_json(outcome.summary(machine.results))
    elif outcome.result:
        print_run(outcome.spec, outcome.result, machine.results)
    if outcome.result is None:
        raise typer.Exit(1)
