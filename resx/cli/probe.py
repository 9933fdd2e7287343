"""`resx probe NAME` and `resx run FILE`: a command per probe, found without importing any, so that help stays quick."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperCommand

from resx.claims import help_lines
from resx.cli.options import DryRun, Format, Given, Json, Quiet, TableFormat, flowing, parse_seeds, training_options
from resx.probes import load_probe, probe_names
from resx.spec import SpecError, load_toml

probe_app = typer.Typer(
    no_args_is_help=True,
    help="""Take residual learning apart: train what is missing, measure, judge, draw.

    Each probe names its runs, its primary outcome and its claims beforehand; `resx probe NAME --help` shows them.""",
)

ExperimentFile = Annotated[
    Path | None, typer.Argument(help="A TOML file with \\[run], \\[grid] and \\[settings].", show_default=False)
]
Shortcut = Annotated[
    list[str] | None,
    typer.Option(
        help="What stands next to a branch: none (plain), identity, scaled:alpha=0.5, …; repeat for several.",
        show_default=False,
    ),
]
Seeds = Annotated[
    str | None, typer.Option(help="Number of seeds, or a list such as 3,4,5.", metavar="N|LIST", show_default=False)
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting of the probe, as key=value; repeat for several.", show_default=False),
]
Publish = Annotated[
    Path | None, typer.Option(help="Write the experiment here, in the form that is committed.", show_default=False)
]


def execute(
    name: str,
    given: Given,
    experiment: Path | None,
    *,
    grid: Mapping[str, Sequence[Any]] | None = None,
    seeds: str | None = None,
    pairs: Sequence[str] = (),
    publish: Path | None = None,
    json: bool = False,
    form: Format | None = None,
    quiet: bool = False,
    dry_run: bool = False,
) -> None:
    """Run a probe and print its findings. Exit code 1 where a run failed."""
    from resx import lab
    from resx.cli.progress import Display
    from resx.cli.show import print_estimate, print_failures, print_findings, print_tables
    from resx.cli.terminal import print_json
    from resx.engines import left_to_train

    written = load_toml(experiment) if experiment else None
    plan = lab.plan(
        name,
        written,
        fields=given.with_preset(written.run if written else {}),
        grid=grid,
        seeds=parse_seeds(seeds) if seeds else None,
        settings=_settings(pairs),
        machine=given.machine(),
    )
    if dry_run:
        print_estimate(plan.specs, plan.machine, as_json=json)
        return
    with Display(left_to_train(plan.specs, plan.machine), quiet=quiet) as display:
        done = lab.carry_out(plan, display.report, display.say, publish)
    print_failures(done.outcomes)
    if json:
        print_json(lab.as_document(done, plan.machine))
    elif form:
        print_tables(done.findings, form)
    else:
        print_findings(done, plan.machine)
    if any(outcome.result is None or outcome.error for outcome in done.outcomes):
        raise typer.Exit(1)


def _settings(pairs: Sequence[str]) -> dict[str, str]:
    values = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise SpecError(f"--set {pair}: write key=value")
        values[key.strip()] = value.strip()
    return values


def _command(name: str) -> Callable[..., None]:
    def probe(
        given: Given,
        experiment: ExperimentFile = None,
        shortcut: Shortcut = None,
        seeds: Seeds = None,
        set_: Set = None,
        publish: Publish = None,
        json: Json = False,
        format: TableFormat = None,
        quiet: Quiet = False,
        dry_run: DryRun = False,
    ) -> None:
        options: dict[str, Any] = {"publish": publish, "json": json, "quiet": quiet, "dry_run": dry_run, "form": format}
        several = {"shortcut": shortcut} if shortcut and len(shortcut) > 1 else {}
        if shortcut and not several:
            given = replace(given, fields={**given.fields, "shortcut": shortcut[0]})
        execute(name, given, experiment, grid=several, seeds=seeds, pairs=set_ or [], **options)

    return training_options("shortcut")(probe)


@training_options()
def run(
    given: Given,
    experiment: Annotated[Path, typer.Argument(help="An experiment's TOML file, which names its probe.")],
    seeds: Seeds = None,
    set_: Set = None,
    publish: Publish = None,
    json: Json = False,
    format: TableFormat = None,
    quiet: Quiet = False,
    dry_run: DryRun = False,
) -> None:
    """Run an experiment that is written down: its file names the probe, the runs and the settings.

    Example: [bold]resx run experiments/digits-depths.toml[/bold]
    """
    name = load_toml(experiment).probe
    if not name:
        raise SpecError(
            f'{experiment}: names no probe; write probe = "…" at its top, or use `resx probe NAME {experiment}`'
        )
    options: dict[str, Any] = {"publish": publish, "json": json, "quiet": quiet, "dry_run": dry_run, "form": format}
    execute(name, given, experiment, seeds=seeds, pairs=set_ or [], **options)


class ProbeCommand(TyperCommand):
    """A command whose help adds the probe's claims and settings, for which the probe is imported."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the docstring, the claims with their criteria, and the settings."""
        probe = load_probe(str(self.name))
        claims = [f"* {escape(line)}" for line in help_lines(probe.claims, probe.labels)]
        settings = [f"{key}={_written(field.default)}" for key, field in probe.settings.model_fields.items()]
        meanings = " ".join((probe.settings.__doc__ or "").split())
        parts = [flowing(self.help), "Claims, fixed beforehand:", *claims]
        if settings:
            parts.append(f"Settings (--set): {escape(', '.join(settings))}. {escape(meanings)}")
        self.help = "\n\n".join(parts)
        super().format_help(ctx, formatter)


def _written(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


for _name, _docstring in probe_names().items():
    probe_app.command(_name, help=flowing(escape(_docstring)), cls=ProbeCommand)(_command(_name))
