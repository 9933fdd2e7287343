"""`resx probe NAME` and `resx run FILE`: a command per probe, found without importing any, so that help stays quick."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperCommand

from resx.claims import help_lines
from resx.cli import complete
from resx.cli.execute import Output, execute
from resx.cli.foreign import FOREIGN_OPTIONS, Foreigners, Weights
from resx.cli.given import Given, training_options
from resx.cli.options import ExperimentFile, written
from resx.cli.terminal import flowing
from resx.probes import load_probe, probe_names
from resx.spec import SpecError, load_toml

probe_app = typer.Typer(
    help="""Take residual learning apart: train what is missing, measure, judge, draw.

    Each probe names its runs, its primary outcome and its claims beforehand; `resx probe NAME --help` shows them.""",
)


def _command(name: str) -> Callable[..., None]:
    @training_options
    def probe(given: Given, output: Output, foreign: Foreigners, experiment: ExperimentFile = None) -> None:
        execute(name, given, experiment, output, foreign)

    return probe


@training_options
def run(
    given: Given,
    output: Output,
    experiment: Annotated[
        Path,
        typer.Argument(help="An experiment's TOML file, which names its probe.", autocompletion=complete.experiments),
    ],
    weights: Weights = None,
) -> None:
    """Run an experiment that is written down: its file names the probe, the runs and the settings.

    Example: [bold]resx run experiments/digits-depths.toml[/bold]
    """
    name = load_toml(experiment).probe
    if not name:
        raise SpecError(
            f'{experiment}: names no probe; write probe = "…" at its top, or use `resx probe NAME {experiment}`, or '
            f"`resx train {experiment}` for one network"
        )
    execute(name, given, experiment, output, Foreigners(weights=weights))


class ProbeCommand(TyperCommand):
    """A command whose help adds the probe's claims and settings, for which the probe is imported."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the docstring, the claims with their criteria, the settings, and the options that the probe reads."""
        probe = load_probe(str(self.name))
        for item in self.params:
            if item.name in (*probe.chooses, *(() if probe.adopts else FOREIGN_OPTIONS)):
                item.hidden = True  # type: ignore[attr-defined]
        claims = [f"* {escape(line)}" for line in help_lines(probe.claims, probe.labels)]
        settings = [f"{key}={written(field.default)}" for key, field in probe.settings.model_fields.items()]
        meanings = " ".join((probe.settings.__doc__ or "").split())
        parts = [flowing(self.help), f"Seeds: {probe.seeds} by default.", "Claims, fixed beforehand:", *claims]
        if settings:
            parts.append(f"Settings (--set): {escape(', '.join(settings))}. {escape(meanings)}")
        self.help = "\n\n".join(parts)
        super().format_help(ctx, formatter)


for _name, _docstring in probe_names().items():
    probe_app.command(_name, help=flowing(escape(_docstring)), cls=ProbeCommand)(_command(_name))
