"""What `resx compare`, `resx probe` and `resx run` do alike: plan, carry out, print and write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from resx.cli.foreign import Foreigners
from resx.cli.given import Given
from resx.cli.options import DryRun, Json, PrintSpec, Quiet, TableFormat
from resx.spec import Experiment, SpecError, load_toml

Set = Annotated[
    list[str] | None, typer.Option("--set", help="A setting of the probe, as key=value; repeat for several.")
]
Publish = Annotated[Path | None, typer.Option(help="Write the experiment here, in the form that is committed.")]
Report = Annotated[
    Path | None, typer.Option("--report", help="Write the page of this experiment here, as `resx report` would.")
]


@dataclass(frozen=True)
class Output:
    """The options that say with what settings a probe judges, where findings are written and how they are printed."""

    settings: Set = None
    publish: Publish = None
    report: Report = None
    json: Json = False
    format: TableFormat = None
    quiet: Quiet = False
    dry_run: DryRun = False
    print_spec: PrintSpec = False


def execute(
    name: str, given: Given, experiment: Path | None, output: Output, foreign: Foreigners | None = None
) -> None:
    """Run a probe and print its findings. Exit code 1 where a run failed."""
    from resx import lab
    from resx.cli.report import write_page
    from resx.cli.show import print_estimate, print_failures, print_findings, print_outlook, print_tables
    from resx.cli.terminal import print_json
    from resx.engines import left_to_train
    from resx.exporters import follow
    from resx.progress import Display
    from resx.report.build import refuse
    from resx.store.files import refuse_unwritable

    if output.report:
        refuse(output.report)
    if output.publish:
        refuse_unwritable(output.publish / "runs.csv")
    written = load_toml(experiment) if experiment else None
    machine, grid = given.machine(), given.grid
    if foreign:
        grid, machine = foreign.applied(grid, machine)
    fields = given.fields if _is_foreign(written, grid) else given.with_preset(written.run if written else {})
    plan = lab.plan(
        name,
        written,
        fields=fields,
        grid=grid,
        seeds=given.seeds,
        settings=_settings(output.settings or ()),
        machine=machine,
    )
    if output.print_spec:
        typer.echo(lab.as_toml(plan), nl=False)
        return
    if output.dry_run:
        print_estimate(plan.specs, plan.machine, as_json=output.json)
        return
    if "preset" in fields.keys() - given.fields.keys():
        print_outlook(plan.specs, plan.machine)
    run_ids = [spec.run_id for spec in plan.specs]
    with (
        Display(left_to_train(plan.specs, plan.machine), quiet=output.quiet) as display,
        follow(given.track, plan.machine.results, run_ids, display.report) as report,
    ):
        done = lab.carry_out(plan, report, display.say, output.publish)
    if output.report:
        write_page(output.publish or plan.machine.results / "findings" / plan.name, output.report)
    print_failures(done.outcomes)
    if output.json:
        print_json(lab.as_document(done, plan.machine))
    elif output.format:
        print_tables(done.findings, output.format)
    else:
        print_findings(done, plan.machine)
    for line in done.errors:
        typer.echo(f"resx: {line}", err=True)
    if done.errors or any(outcome.result is None or outcome.error for outcome in done.outcomes):
        raise typer.Exit(1)


def _is_foreign(written: Experiment | None, grid: Mapping[str, Sequence[Any]] | None) -> bool:
    return any("foreign" in one for one in (*(written.grids if written else ()), grid or {}))


def _settings(pairs: Sequence[str]) -> dict[str, str]:
    if wrong := [pair for pair in pairs if "=" not in pair]:
        raise SpecError([f"--set {pair}: write key=value" for pair in wrong])
    split = (pair.split("=", 1) for pair in pairs)
    return {key.strip(): value.strip() for key, value in split}
