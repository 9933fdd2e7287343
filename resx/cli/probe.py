"""`resx probe NAME` and `resx run FILE`: a command per probe, found without importing any, so that help stays quick."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperCommand

from resx.claims import help_lines
from resx.cli import complete
from resx.cli.execute import Output, Publish, Report, Set, execute
from resx.cli.foreign import FOREIGN_OPTIONS, BlockNames, Foreigners, Network, Weights
from resx.cli.given import Given, training_options
from resx.cli.options import DryRun, ExperimentFile, Json, PrintSpec, Quiet, TableFormat
from resx.cli.terminal import flowing
from resx.probes import load_probe, probe_names
from resx.spec import SpecError, load_toml

if TYPE_CHECKING:
    pass

probe_app = typer.Typer(
    help="""Take residual learning apart: train what is missing, measure, judge, draw.

    Each probe names its runs, its primary outcome and its claims beforehand; `resx probe NAME --help` shows them.""",
)


def _command(name: str) -> Callable[..., None]:
    def probe(
        given: Given,
        experiment: ExperimentFile = None,
        set_: Set = None,
        network: Network = None,
        weights: Weights = None,
        blocks: BlockNames = None,
        publish: Publish = None,
        report: Report = None,
        json: Json = False,
        format: TableFormat = None,
        quiet: Quiet = False,
        dry_run: DryRun = False,
        print_spec: PrintSpec = False,
    ) -> None:
        output = Output(publish, report, json, format, quiet, dry_run, print_spec)
        execute(name, given, experiment, output, set_, Foreigners(network or (), weights or (), blocks))

    return training_options()(probe)


@training_options()
def run(
    given: Given,
    experiment: Annotated[
        Path,
        typer.Argument(help="An experiment's TOML file, which names its probe.", autocompletion=complete.experiments),
    ],
    set_: Set = None,
    weights: Weights = None,
    publish: Publish = None,
    report: Report = None,
    json: Json = False,
    format: TableFormat = None,
    quiet: Quiet = False,
    dry_run: DryRun = False,
    print_spec: PrintSpec = False,
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
    output = Output(publish, report, json, format, quiet, dry_run, print_spec)
    execute(name, given, experiment, output, set_, Foreigners(weights=weights or ()))


class ProbeCommand(TyperCommand):
    """A command whose help adds the probe's claims and settings, for which the probe is imported."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the docstring, the claims with their criteria, the settings, and the options that the probe reads."""
        probe = load_probe(str(self.name))
        for item in self.params:
            if item.name in (*probe.chooses, *(() if probe.adopts else FOREIGN_OPTIONS)):
                item.hidden = True  # type: ignore[attr-defined]
        claims = [f"* {escape(line)}" for line in help_lines(probe.claims, probe.labels)]
        settings = [f"{key}={_written(field.default)}" for key, field in probe.settings.model_fields.items()]
        meanings = " ".join((probe.settings.__doc__ or "").split())
        parts = [flowing(self.help), f"Seeds: {probe.seeds} by default.", "Claims, fixed beforehand:", *claims]
        if settings:
            parts.append(f"Settings (--set): {escape(', '.join(settings))}. {escape(meanings)}")
        self.help = "\n\n".join(parts)
        super().format_help(ctx, formatter)


def _written(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


for _name, _docstring in probe_names().items():
    probe_app.command(_name, help=flowing(escape(_docstring)), cls=ProbeCommand)(_command(_name))
