"""`resx claims`: every sentence of the summary, its verdict, its scale and what it rests on; nothing is trained."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resx.cli.options import Json, Results

if TYPE_CHECKING:
    from resx.ledger import Entry, Evidence


def claims(
    number: Annotated[str | None, typer.Argument(help="A statement in full, such as 4 or Q2.")] = None,
    results: Results = None,
    json: Json = False,
) -> None:
    """Show what is true of the summary: each statement with its verdict, scale, effect, and what it rests on.

    Reads the published results and your own; nothing is trained.

    Examples: [bold]resx claims[/bold], [bold]resx claims 4[/bold]
    """
    for name in ("numpy", "pandas", "scipy"):
        sys.modules.setdefault(name, _Later(name))
    from resx import ledger
    from resx.cli.terminal import CONSOLE, print_json, print_lines, print_table
    from resx.store.files import results_root

    root = results_root(results)
    statements = [ledger.statement(number)] if number else ledger.STATEMENTS
    evidence, problems = ledger.collect(root)
    entries = ledger.entries(evidence, statements)
    for line in problems:
        typer.echo(f"resx: not available: {line}", err=True)
    if json:
        print_json({"statements": [_document(entry) for entry in entries]})
    elif number:
        done = [one.experiment.name for one in evidence]
        sections = {
            "What this does not show:": ledger.limits(entries[0]),
            "What would make it stronger here:": ledger.stronger(entries[0], Path("experiments"), done),
        }
        print_lines(_in_full(entries[0]))
        for title, lines in sections.items():
            print_lines(["", title, *(f"  {line}" for line in lines)] if lines else [])
    else:
        columns = ["<", "<statement", "<verdict", "<scale", "<effect", "<rests on"]
        print_table([_line(entry) for entry in entries], columns, title=f"Claims, from {root}")
        CONSOLE.print("`resx claims NUMBER` shows one in full, `resx report` writes the page.")


class _Later(ModuleType):
    """A library that is loaded when it is first used: here never, and loading it would take as long as all the rest.

    What judges imports it; what lists verdicts imports what judges, to know which claims there are.
    """

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)


def _line(entry: Entry) -> list[str]:
    claims = entry.statement.claims
    recorded = ", ".join(entry.experiments) or (f"nothing recorded: {claims[0]}" if claims else "–")
    return [*entry.row, entry.effect, recorded]


def _in_full(entry: Entry) -> list[str]:
    from resx.claims import at_scale

    lines = [f"{entry.statement.number}. {entry.statement.text}", f"{entry.word.upper()} ({entry.scale})"]
    lines += [entry.statement.fact] if entry.statement.fact else []
    lines += ["Experiments disagree on a claim: both are shown."] if entry.disagrees else []
    for item in entry.evidence:
        source = item.experiment
        cost = f"{source.runs} runs, {source.seconds / 60:.0f} core-minutes on {source.hardware}"
        lines += [
            "",
            f"{item.claim}{f' [{item.part}]' if item.part else ''}: {item.says}",
            f"  {item.word} at {at_scale(item.scale)}, {source.name} ({'yours' if source.own else 'published'})",
            f"  criterion: {item.criterion}",
            *(f"  {estimate}" for estimate in item.estimates),
            f"  {source.command}: {cost}",
        ]
    return lines + [f"  not available: no experiment here judges {key}" for key in entry.missing]


def _document(entry: Entry) -> dict[str, Any]:
    return {
        "number": entry.statement.number,
        "text": entry.statement.text,
        "verdict": entry.word,
        "scale": entry.scale,
        "fact": entry.statement.fact or None,
        "disagrees": entry.disagrees,
        "missing": list(entry.missing),
        "evidence": [_evidence(item) for item in entry.evidence],
    }


def _evidence(item: Evidence) -> dict[str, Any]:
    return {
        "claim": item.claim,
        "part": item.part or None,
        "says": item.says,
        "criterion": item.criterion,
        "verdict": item.word,
        "scale": item.scale,
        "effects": [vars(estimate) for estimate in item.estimates],
        "experiment": {key: value for key, value in vars(item.experiment).items() if key != "folder"},
    }
