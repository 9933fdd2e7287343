"""`resx probe NAME`: one command per study, found without importing any of them, so that help stays quick."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from resx.cli.options import DryRun, Json, Quiet, Request, flowing, load_experiment, parse_seeds, training_options
from resx.probes import study_names
from resx.spec import SpecError

if TYPE_CHECKING:
    from resx.lab import Done

probe_app = typer.Typer(
    no_args_is_help=True,
    help="""Take residual learning apart: train what is missing, measure, judge, draw.

    Each study names its runs, its primary outcome and its criteria beforehand; `resx probe NAME --help` tells them.""",
)


def _command(name: str) -> Callable[..., None]:
    def probe(
        request: Request,
        experiment: Annotated[
            Path | None,
            typer.Argument(help="A TOML file with \\[run], \\[grid] and \\[study].", show_default=False),
        ] = None,
        seeds: Annotated[
            str | None, typer.Option(help="Number of seeds, or a list such as 3,4,5.", show_default=False)
        ] = None,
        set_: Annotated[
            list[str] | None,
            typer.Option("--set", help="A setting of the study, as key=value; repeat for several.", show_default=False),
        ] = None,
        publish: Annotated[
            Path | None,
            typer.Option(help="Also copy tables, figures and text records here, to be committed."),
        ] = None,
        json: Json = False,
        quiet: Quiet = False,
        dry_run: DryRun = False,
    ) -> None:
        _run(name, request, experiment, seeds, set_ or [], publish, json, quiet, dry_run)

    return training_options()(probe)


def _run(
    name: str,
    request: Request,
    experiment: Path | None,
    seeds: str | None,
    pairs: list[str],
    publish: Path | None,
    json: bool,
    quiet: bool,
    dry_run: bool,
) -> None:
    from resx.cli.progress import Display
    from resx.cli.show import print_estimate, print_failures, print_json, six_seeds
    from resx.engines import left_to_train, train_all
    from resx.lab import conclude, load_frames, measure_all
    from resx.probes import load_study
    from resx.probes.publish import publish as publish_study
    from resx.probes.study import Order, planned
    from resx.stats import MIN_SEEDS
    from resx.store.run import read_run
    from resx.training.resolve import resolve

    study, written, machine = load_study(name), load_experiment(experiment), request.machine()
    settings = study.settings({**written.study, **_settings(pairs)})
    wanted = parse_seeds(seeds) if seeds else [int(seed) for seed in written.grid.get("seed", range(study.seeds))]
    grid = {key: values for key, values in written.grid.items() if key != "seed"}
    order = Order(request.base_fields(written.run), wanted, settings, grid, lambda fields: resolve(fields, machine))
    specs = planned(study, order)
    if dry_run:
        print_estimate(specs, machine, as_json=json)
        return

    def say(line: str) -> None:
        if not quiet:
            typer.echo(line, err=True)

    with Display(left_to_train(specs, machine), quiet=quiet) as display:
        outcomes = train_all(specs, machine, display.report)
    print_failures(outcomes)
    measure_all(name, study, outcomes, settings, machine, say)
    done_ids = [outcome.spec.run_id for outcome in outcomes if outcome.result]
    folder = machine.results / "studies" / (written.name or name)
    done = conclude(study, load_frames(machine.results, done_ids), settings, folder)
    if publish:
        folders = [read_run(machine.results / "runs" / run_id) for run_id in done_ids]
        publish_study(folders, done.files, publish, study.measures)
    if json:
        findings = done.findings
        print_json(
            {
                "runs": [item.summary(machine.results) for item in outcomes],
                "tables": {key: table.to_dict("records") for key, table in findings.tables.items()},
                "verdicts": [
                    {
                        "hypothesis": verdict.hypothesis,
                        "criterion": verdict.criterion,
                        "word": verdict.word,
                        "estimates": [vars(estimate) for estimate in verdict.estimates],
                    }
                    for verdict in findings.verdicts
                ],
                "answer": findings.answer,
                "files": done.files,
            }
        )
    else:
        _print(done)
        seconds = sum(outcome.result["seconds"] for outcome in outcomes if outcome.result)
        if len(wanted) < MIN_SEEDS:
            counted = "1 seed" if len(wanted) == 1 else f"{len(wanted)} seeds"
            typer.echo(f"{counted}: screening. {six_seeds(len(wanted), seconds / machine.jobs)}")
    if len(done_ids) < len(outcomes):
        raise typer.Exit(1)


def _settings(pairs: list[str]) -> dict[str, str]:
    given = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise SpecError(f"--set {pair}: write key=value")
        given[key.strip()] = value.strip()
    return given


def _print(done: Done) -> None:
    from resx.cli.show import print_frame, print_table

    for name, table in done.findings.tables.items():
        print_frame(table, title=name)
    for verdict in done.findings.verdicts:
        typer.echo(f"\n{verdict.hypothesis}: {verdict.word.upper()}\n  criterion: {verdict.criterion}")
        rows = [[item.name, f"{item.mean:+.3g}", item.interval, str(item.n)] for item in verdict.estimates]
        print_table(rows, ["<measured", "mean", "95 % interval", "seeds"])
    if done.findings.answer:
        typer.echo(f"\n{done.findings.answer}\n")
    for file in done.files:
        if file.suffix in (".png", ".csv", ".txt"):
            typer.echo(f"written: {file}")


for _name, _docstring in study_names().items():
    probe_app.command(_name, help=flowing(escape(_docstring)))(_command(_name))
