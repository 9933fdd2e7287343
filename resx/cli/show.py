"""What commands that train and judge print on stdout."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import typer

from resx.claims import at_scale
from resx.cli.terminal import CONSOLE, duration, number, print_json, print_lines, print_table
from resx.probes import CLAIM_COLUMNS, Findings, of_others
from resx.probes.page import formatted, latex, markdown, shown_tables
from resx.spec import RunSpec
from resx.stats import MIN_SEEDS

if TYPE_CHECKING:
    from resx.cli.options import Format
    from resx.engines import Outcome
    from resx.lab import Done
    from resx.training.machine import Machine

SHOWN_EFFECTS = 12  # more are in the file


def print_run(spec: RunSpec, result: Mapping[str, Any], results: Path) -> None:
    """Print one run's result as a short table."""
    rows = {
        "status": f"{result['status']} after {result['steps_done']} of {spec.train.steps} steps",
        "data": result["data_label"],
        "training error (eval-mode)": _percent(result["train_error"]),
        "test error": _percent(result["test_error"]),
        "parameters": f"{result['parameters']:,}",
        "time": duration(result["seconds"]),
    }
    typer.echo(f"run: {spec.run_id}")
    print_lines([f" {name:{max(map(len, rows))}}  {value}" for name, value in rows.items()])
    typer.echo(f"folder: {results / 'runs' / spec.run_id}")


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{number(value)} %"


def print_nothing_done(spec: RunSpec, results: Path) -> None:
    """Print a line on stderr that says when a run was trained, which this command did not do again."""
    from resx.store.run import read_run

    attempts = read_run(results / "runs" / spec.run_id).attempts()
    started = attempts[-1].get("started", "earlier") if attempts else "earlier"
    typer.echo(f"{spec.run_id} is finished: it was trained {started}, and nothing was done", err=True)


def print_failures(outcomes: Sequence[Outcome]) -> None:
    """Print a line on stderr for every run that failed."""
    for outcome in outcomes:
        if outcome.error:
            typer.echo(f"resx: failed: {outcome.error}", err=True)


def print_estimate(specs: Sequence[RunSpec], machine: Machine, *, as_json: bool = False) -> None:
    """Print how many runs there are, how long they take here and how much disk they need."""
    from resx.training.estimate import estimate_cost

    own = [spec for spec in specs if not spec.foreign]
    cost = estimate_cost(own, machine)
    if as_json:
        print_json({"runs": len(specs), "to_train": cost.to_train, "seconds": cost.seconds, "bytes": cost.bytes})
        return
    if not own:
        typer.echo(f"{len(specs)} networks that others trained are recorded and measured; nothing is trained")
        return
    where = f"{machine.jobs} at a time on {machine.device}, scaled from a few timed steps"
    time = "how long is not known here" if cost.seconds is None else f"about {duration(cost.seconds)} ({where})"
    disk = f"{cost.bytes / 2**20:.0f} MiB in {machine.results / 'runs'}"
    typer.echo(f"{cost.runs} runs, {cost.to_train} to train: {time}, {disk}")


def print_outlook(specs: Sequence[RunSpec], machine: Machine) -> None:
    """Say on stderr how long runs take on a GPU, and what takes less; nothing on a CPU and where all are finished.

    For a user who did not ask for the long runs that are the default on a machine with a GPU.
    """
    import torch

    from resx.training.estimate import estimate_cost
    from resx.training.machine import TENSOR_CORES

    cost = estimate_cost(specs, machine) if machine.device.startswith("cuda") else None
    if cost is None or not cost.to_train or cost.seconds is None:
        return
    card, capability = torch.cuda.get_device_name(machine.device), torch.cuda.get_device_capability(machine.device)
    line = f"{cost.to_train} runs to train: at most about {duration(cost.seconds)} on {card}"
    if capability >= TENSOR_CORES and all(spec.train.precision == "fp32" for spec in specs):
        train = [spec.train.model_copy(update={"precision": "tf32"}) for spec in specs]
        faster = [spec.model_copy(update={"train": one}) for spec, one in zip(specs, train, strict=True)]
        line += f", {duration(estimate_cost(faster, machine).seconds or 0.0)} with --precision tf32"
    typer.echo(f"{line}. Shorter: --preset small (minutes), --preset digits (a minute), or --steps N", err=True)


def print_frame(frame: pd.DataFrame, title: str) -> None:
    """Print a table of data as resx.probes.page formats it; text to the left."""
    headings, cells = formatted(frame)
    text = [
        all(not any(character.isdigit() for character in row[place]) for row in cells) for place in range(len(headings))
    ]
    print_table(cells, [f"<{name}" if left else name for name, left in zip(headings, text, strict=True)], title=title)


def print_findings(done: Done, machine: Machine) -> None:
    """Print the findings of a probe: its tables, a line per claim, the answer, the files, and what to type next."""
    findings = done.findings
    errors = of_others(findings.frames["runs"])
    for line in errors:
        typer.echo(line)
    for name, table in shown_tables(findings).items():
        print_frame(table, f"{name.replace('_', ' ')}: {at_scale(findings.scale)}")
    _print_effects(findings)
    CONSOLE.print(findings)
    for line in findings.notes():
        if line not in errors:
            typer.echo(line)
    pictures = {file.with_suffix(""): file for file in done.files if file.suffix in (".svg", ".png")}  # one of each
    for file in (*pictures.values(), *(file for file in done.files if file.suffix == ".md")):
        typer.echo(f"written: {file}")
    if sys.stdout.isatty() and not done.errors:
        from resx.figures import FIGURES, terminal

        for figure, drawn in findings.drawings().values():
            CONSOLE.print(terminal.picture(FIGURES[figure](drawn), CONSOLE.width))
    typer.echo(next_step(done, machine.jobs))


def print_tables(findings: Findings, form: Format) -> None:
    """Print the tables of a probe and that of its claims for a page in Markdown or LaTeX, and nothing else."""
    write = {"markdown": markdown, "latex": latex}[form]
    tables = {name: formatted(table) for name, table in shown_tables(findings).items()}
    for name, (headings, cells) in {**tables, "claims": (list(CLAIM_COLUMNS), findings.claim_rows())}.items():
        comment = f"% {name}" if form == "latex" else f"**{name}**"
        typer.echo("\n".join([comment, "", *write(headings, cells), ""]))


def _print_effects(findings: Findings) -> None:
    """Print the effects on the primary outcome, where they are few."""
    judged = findings.effects[findings.effects["family"] == getattr(findings.settings, "primary", "effects")]
    if 0 < len(judged) <= SHOWN_EFFECTS:
        table = judged.rename(columns={"mean": "difference", "low": "difference_low", "high": "difference_high"})
        print_frame(table.drop(columns="family"), "effects, paired by seed; p is the family's")


def next_step(done: Done, jobs: int) -> str:
    """Say what the seeds at hand allow to conclude, and what to type next."""
    if all(outcome.spec.foreign for outcome in done.outcomes):
        return "Networks that others trained, one of each: no verdict is more than screening."
    seeds = len({outcome.spec.seed for outcome in done.outcomes})
    if seeds >= MIN_SEEDS:
        return f"{seeds} seeds: judged. `resx report` makes a page of it, `resx plot` draws the figures again."
    seconds = sum(outcome.result["seconds"] for outcome in done.outcomes if outcome.result)
    word = "1 seed: shown, not judged" if seeds == 1 else f"{seeds} seeds: screening"
    return f"{word}. {six_seeds(seeds, seconds / jobs)}"


def six_seeds(seeds: int, seconds: float) -> str:
    """Say what a judgement costs beyond the seeds at hand, which took `seconds`, and the command for it."""
    command = [argument for argument in sys.argv[1:] if not argument.startswith("--seeds=")]
    if "--seeds" in command:
        position = command.index("--seeds")
        del command[position : position + 2]
    more = duration(seconds / seeds * (MIN_SEEDS - seeds))
    typed = shlex.join(["resx", *command, "--seeds", str(MIN_SEEDS)])
    return f"Six seeds allow a judgement and cost about {more} more here: {typed}"
