"""`resx shortcuts`: every registered shortcut function, with its formula, its source, and what it costs."""

from __future__ import annotations

import json as json_format
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from resx.model.facts import Facts

CAPTION = (
    "Parameters and multiply-adds are what the shortcuts of a 20-layer network of the CIFAR family add to residual "
    "learning, 32×32 images, default arguments. |x|: what becomes of its length where F = 0, at the start: kept, set "
    "to one value, or multiplied."
)
HEADER = ("shortcut", "formula, source, parameters of a block of C channels", "parameters", "multiply-adds", "|x|")


def shortcuts(
    names: Annotated[list[str] | None, typer.Argument(help="Which; all where none is named")] = None,
    plugin: Annotated[
        list[Path] | None, typer.Option("--plugin", help="A file that registers shortcuts of your own; it is executed")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document")] = False,
) -> None:
    """List the shortcut functions: formula, source, parameters, multiply-adds, and whether they keep the length of x.

    What is printed comes from the functions themselves: a plugin's are listed like any other.
    """
    from resx.model.facts import facts
    from resx.registry import load_plugins

    load_plugins(plugin or [])
    rows = list(facts(names or ()))
    if json:
        typer.echo(json_format.dumps([asdict(row) for row in rows], indent=1, ensure_ascii=False))
    else:
        _print(rows)


def as_markdown(rows: list[Facts]) -> str:
    """Return the table as a page of Markdown, which the documentation has."""
    lines = [_line(cells) for cells in (HEADER, *map(_cells, rows))]
    return "\n".join(["# Shortcut functions", "", CAPTION, "", lines[0], "|---|---|--:|--:|---|", *lines[1:]])


def _line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _print(rows: list[Facts]) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    table = Table(
        Column(HEADER[0], no_wrap=True),
        HEADER[1],
        *(Column(text, justify="right") for text in HEADER[2:4]),
        HEADER[4],
        caption=CAPTION,
        caption_justify="left",
    )
    for row in rows:
        table.add_row(*_cells(row))
    Console().print(table)


def _cells(row: Facts) -> tuple[str, ...]:
    added = f"{row.multiply_adds / 1e6:.2f} M ({row.share:.1%})" if row.multiply_adds else "0"
    return row.name, row.summary, f"{row.parameters:,}", added, row.length
