"""`resx compare`: the probe `degradation` with short flags, plain against residual networks at several depths and
seeds."""

from __future__ import annotations

from resx.cli.execute import Output, Publish, Report, Set, execute
from resx.cli.given import Given, training_options
from resx.cli.options import DryRun, ExperimentFile, Json, PrintSpec, Quiet, TableFormat


@training_options()
def compare(
    given: Given,
    experiment: ExperimentFile = None,
    set_: Set = None,
    publish: Publish = None,
    report: Report = None,
    json: Json = False,
    format: TableFormat = None,
    quiet: Quiet = False,
    dry_run: DryRun = False,
    print_spec: PrintSpec = False,
) -> None:
    """Train plain and residual networks at several depths and say what depth does to each.

    Prints errors per network, and the effect of depth among plain nets, among residual nets, and their difference,
    each paired by seed. What is finished already is not trained again. Without flags: 20 and 56 layers, one seed.
    Plain and identity are always in; --shortcut adds others.

    Examples: [bold]resx compare[/bold],
    [bold]resx compare --depths 20,32,44,56 --seeds 6[/bold],
    [bold]resx compare experiments/digits-depths.toml[/bold]
    """
    execute("degradation", given, experiment, Output(publish, report, json, format, quiet, dry_run, print_spec), set_)
