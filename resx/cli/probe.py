"""`resx probe NAME` and `resx run FILE`: a command per probe, found without importing any, so that help stays quick."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperCommand

from resx.claims import help_lines
from resx.cli import complete
from resx.cli.options import (
    DryRun,
    ExperimentFile,
    Format,
    Given,
    Json,
    PrintSpec,
    Quiet,
    TableFormat,
    flowing,
    training_options,
)
from resx.probes import load_probe, probe_names
from resx.spec import Experiment, SpecError, load_toml

if TYPE_CHECKING:
    from resx.training.machine import Machine

probe_app = typer.Typer(
    help="""Take residual learning apart: train what is missing, measure, judge, draw.

    Each probe names its runs, its primary outcome and its claims beforehand; `resx probe NAME --help` shows them.""",
)

Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting of the probe, as key=value; repeat for several.", show_default=False),
]
FOREIGN, FOREIGN_OPTIONS = "Networks that others trained", ("network", "weights", "blocks")
Network = Annotated[
    list[str] | None,
    typer.Option(
        help="Measure a trained network instead: akamaster/resnet56, torchvision/NAME, timm/NAME or FILE.py:FUNCTION; "
        "repeat for several, each with its --weights.",
        rich_help_panel=FOREIGN,
        show_default=False,
    ),
]
Weights = Annotated[
    list[str] | None,
    typer.Option(
        help="A file of its weights (torch.save or safetensors; nothing in it is executed), a folder that holds those "
        "which an experiment names, or DEFAULT for torchvision's.",
        rich_help_panel=FOREIGN,
        show_default=False,
    ),
]
BlockNames = Annotated[
    str | None,
    typer.Option(
        "--blocks",
        help="Its blocks by name or pattern, with commas between, such as 'layer*.*'; otherwise they are found.",
        rich_help_panel=FOREIGN,
        show_default=False,
    ),
]
Publish = Annotated[
    Path | None, typer.Option(help="Write the experiment here, in the form that is committed.", show_default=False)
]
Report = Annotated[
    Path | None,
    typer.Option(
        "--report", help="Write the page of this experiment here, as `resx report` would.", show_default=False
    ),
]


@dataclass(frozen=True)
class Foreigners:
    """The networks that others trained, as the options name them."""

    networks: Sequence[str] = ()
    weights: Sequence[str] = ()
    blocks: str | None = None

    def applied(self, grid: Mapping[str, Sequence[Any]], machine: Machine) -> tuple[dict[str, Sequence[Any]], Machine]:
        """Return the grid with these networks in it, and the machine that knows where their weights are.

        Raises SpecError where networks and weights do not pair up.
        """
        from resx.training.foreign import describe_foreign

        placed = replace(machine, weights=tuple(self.weights))
        if not self.networks:
            if self.blocks:
                raise SpecError("--blocks: is for a network that --network names")
            return dict(grid), placed
        if len(self.networks) != len(self.weights):
            raise SpecError(
                f"--network: {len(self.networks)} networks and {len(self.weights)} --weights; give a pair each"
            )
        pairs = zip(self.networks, self.weights, strict=True)
        files = [Path(name.rpartition(":")[0]) for name in self.networks if ".py:" in name]
        values = [describe_foreign(network, weights, self.blocks) for network, weights in pairs]
        return {**grid, "foreign": values}, replace(placed, code=files[0] if files else None)


def _is_foreign(written: Experiment | None, grid: Mapping[str, Sequence[Any]] | None) -> bool:
    return any("foreign" in one for one in (*(written.grids if written else ()), grid or {}))


@dataclass(frozen=True)
class Output:
    """Where findings are written and in what form they are printed; with dry_run or print_spec there are none."""

    publish: Path | None
    page: Path | None
    json: bool
    form: Format | None
    quiet: bool
    dry_run: bool
    print_spec: bool


def execute(
    name: str,
    given: Given,
    experiment: Path | None,
    output: Output,
    pairs: Sequence[str] | None = None,
    foreign: Foreigners | None = None,
) -> None:
    """Run a probe and print its findings. Exit code 1 where a run failed."""
    from resx import lab
    from resx.cli.progress import Display
    from resx.cli.report import write_page
    from resx.cli.show import print_estimate, print_failures, print_findings, print_tables
    from resx.cli.terminal import print_json
    from resx.engines import left_to_train
    from resx.report.build import refuse
    from resx.store.files import refuse_unwritable

    if output.page:
        refuse(output.page)
    if output.publish:
        refuse_unwritable(output.publish / "runs.csv")
    written = load_toml(experiment) if experiment else None
    machine, grid = given.machine(), given.grid
    if foreign:
        grid, machine = foreign.applied(grid, machine)
    plan = lab.plan(
        name,
        written,
        fields=given.fields if _is_foreign(written, grid) else given.with_preset(written.run if written else {}),
        grid=grid,
        seeds=given.seeds,
        settings=_settings(pairs or ()),
        machine=machine,
    )
    if output.print_spec:
        typer.echo(lab.as_toml(plan), nl=False)
        return
    if output.dry_run and all(spec.foreign for spec in plan.specs):
        typer.echo(f"{len(plan.specs)} networks that others trained are recorded and measured; nothing is trained")
        return
    if output.dry_run:
        print_estimate(plan.specs, plan.machine, as_json=output.json)
        return
    with Display(left_to_train(plan.specs, plan.machine), quiet=output.quiet) as display:
        done = lab.carry_out(plan, display.report, display.say, output.publish)
    if output.page:
        write_page(output.publish or plan.machine.results / "findings" / plan.name, output.page)
    print_failures(done.outcomes)
    if output.json:
        print_json(lab.as_document(done, plan.machine))
    elif output.form:
        print_tables(done.findings, output.form)
    else:
        print_findings(done, plan.machine)
    for line in done.errors:
        typer.echo(f"resx: {line}", err=True)
    if done.errors or any(outcome.result is None or outcome.error for outcome in done.outcomes):
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
