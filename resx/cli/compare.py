"""`resx compare`: the degradation experiment, plain against residual networks at several depths and seeds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resx.cli.options import (
    DryRun,
    Json,
    Quiet,
    Request,
    load_experiment,
    parse_list,
    parse_seeds,
    training_options,
)
from resx.spec import slug

if TYPE_CHECKING:
    import pandas as pd

    from resx.engines import Outcome
    from resx.probes.degradation import Comparison


@training_options("depth", "shortcut")
def compare(
    request: Request,
    experiment: Annotated[
        Path | None, typer.Argument(help="A TOML file with \\[run] and \\[grid].", show_default=False)
    ] = None,
    depths: Annotated[
        str | None,
        typer.Option(help="Depths to compare, such as 20,32,44,56. [dim]default: 20,56[/dim]", show_default=False),
    ] = None,
    shortcut: Annotated[
        list[str] | None,
        typer.Option(
            help="Shortcut beside plain; repeat for several. [dim]default: identity[/dim]", show_default=False
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(help="Number of seeds, or a list such as 3,4,5. [dim]default: 1[/dim]", show_default=False),
    ] = None,
    publish: Annotated[
        Path | None, typer.Option(help="Also copy tables, figures and text records here, to be committed.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    dry_run: DryRun = False,
) -> None:
    """Train plain and residual networks at several depths and say what depth does to each.

    Prints errors per network, and the effect of depth among plain nets, among residual nets, and their difference,
    each paired by seed. What is finished already is not trained again.

    Examples: [bold]resx compare[/bold],
    [bold]resx compare --depths 20,32,44,56 --seeds 6[/bold],
    [bold]resx compare experiments/digits-depths.toml[/bold]
    """
    from resx.cli.progress import Display
    from resx.cli.show import CONSOLE, print_estimate, print_failures, print_json
    from resx.engines import left_to_train, train_all
    from resx.figures import select, terminal
    from resx.probes import degradation as study
    from resx.probes.publish import publish as publish_study
    from resx.store.run import read_run
    from resx.store.tables import load_runs
    from resx.training.resolve import resolve

    written = load_experiment(experiment)
    base = request.base_fields(written.run)
    fields = study.plan(
        base,
        written,
        depths=parse_list(depths, "depths") if depths else None,
        shortcuts=["none", *shortcut] if shortcut else None,
        seeds=parse_seeds(seeds) if seeds else None,
    )
    machine = request.machine()
    specs = resolve(fields, machine)
    if dry_run:
        print_estimate(specs, machine, as_json=json)
        return
    with Display(left_to_train(specs, machine), quiet=quiet) as display:
        outcomes = train_all(specs, machine, display.report)
    print_failures(outcomes)
    done = [outcome for outcome in outcomes if outcome.result]
    runs, curves = load_runs(machine.results)
    runs = runs[runs["run_id"].isin([outcome.spec.run_id for outcome in done])]
    comparison = study.compare(runs, written.study)
    frames = select({"runs": runs, "curves": curves})
    name = written.name or slug(f"compare-{specs[0].data.label or specs[0].data.dataset}")
    files, figure = study.write(comparison, frames, machine.results / "studies" / name)
    if publish:
        folders = [read_run(machine.results / "runs" / outcome.spec.run_id) for outcome in done]
        publish_study(folders, [file for group in files.values() for file in group], publish)
    if json:
        summaries = [{**item.summary(machine.results), "spec": item.spec.flat()} for item in outcomes]
        print_json(
            {
                "runs": summaries,
                "effects": comparison.effects_table().drop(columns="p").to_dict("records"),
                "figures": files["figures"],
                "table": files["table"][0],
            }
        )
    else:
        _print(comparison, files)
        if sys.stdout.isatty():
            CONSOLE.print(terminal.picture(figure, CONSOLE.width))
        typer.echo(_next_step(done, comparison, machine.jobs))
    if len(done) < len(outcomes):
        raise typer.Exit(1)


def _print(comparison: Comparison, files: dict[str, list[Path]]) -> None:
    from resx.cli.show import number, print_table
    from resx.probes.degradation import OUTCOME_NAMES

    def spread(row: pd.Series, outcome: str) -> str:
        return number(row[outcome]) + (f" ± {row[f'{outcome}_std']:.2f}" if row["seeds"] > 1 else "")

    networks = comparison.networks
    rows = [
        [
            str(row["network"]),
            str(row["seeds"]) + (f" ({row['diverged']} diverged)" if row["diverged"] else ""),
            f"{row['parameters']:,}",
            spread(row, "train_error"),
            spread(row, "test_error"),
            number(row["test_binomial"]),
            *([number(row["paper"])] if networks["paper"].notna().any() else []),
        ]
        for _, row in networks.iterrows()
    ]
    paper = ["paper: test"] if networks["paper"].notna().any() else []
    columns = ["<network", "seeds", "parameters", "training error %", "test error %", "binomial ±", *paper]
    print_table(rows, columns, title=f"{comparison.title}: last iterate, mean ± spread over seeds")
    for outcome, effects in comparison.effects.items():
        if not effects or (outcome != comparison.primary and not outcome.endswith("error")):
            continue
        rows = [
            [effect.name, number(effect.mean, sign=True), effect.interval, str(effect.n), number(effect.p, 3)]
            for effect in effects
        ]
        primary = ", the primary outcome" if outcome == comparison.primary else ""
        title = f"effects on {OUTCOME_NAMES[outcome]}{primary}, paired by seed"
        print_table(rows, ["<effect", "mean", "95 % interval", "n", "p (family)"], title=title)
    for what, paths in files.items():
        typer.echo(f"{what}: {', '.join(str(path) for path in paths)}")


def _next_step(outcomes: list[Outcome], comparison: Comparison, jobs: int) -> str:
    """Say what the seeds at hand allow to conclude, and what to type next."""
    from resx.cli.show import six_seeds
    from resx.stats import MIN_SEEDS

    seeds = sorted({outcome.spec.seed for outcome in outcomes})
    if len(seeds) >= MIN_SEEDS:
        return (
            f"Degradation beyond what residual networks show (the last effect): {comparison.word}. "
            "Next: `resx plot degradation`, `resx plot curves`, `resx models`."
        )
    seconds = sum(outcome.result["seconds"] for outcome in outcomes if outcome.result)
    word = "1 seed: shown, not judged" if len(seeds) == 1 else f"{len(seeds)} seeds: {comparison.word}"
    return f"{word}. {six_seeds(len(seeds), seconds / jobs)}"
