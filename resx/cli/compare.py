"""`resx compare`: the probe `degradation` with short flags, plain against residual networks at several depths and
seeds."""

from __future__ import annotations

from resx.cli.execute import Output, execute
from resx.cli.given import Given, training_options
from resx.cli.options import ExperimentFile


@training_options
def compare(given: Given, output: Output, experiment: ExperimentFile = None) -> None:
    """Train plain and residual networks at several depths and say what depth does to each.

    Prints errors per network, and the effect of depth among plain nets, among residual nets, and their difference,
    each paired by seed. What is finished already is not trained again. Without flags: 20 and 56 layers, one seed.
    Plain and identity are always included; --shortcut adds others.

    Examples: [bold]resx compare[/bold],
    [bold]resx compare --depths 20,32,44,56 --seeds 6[/bold],
    [bold]resx compare experiments/digits-depths.toml[/bold]
    """
    execute("degradation", given, experiment, output)
