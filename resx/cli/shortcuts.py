"""`resx shortcuts`: every registered shortcut function, with its formula, its source, and what it costs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resx.cli.options import Json

if TYPE_CHECKING:
    from resx.model.facts import Facts

CAPTION = (
    "Parameters and multiply-adds are what the shortcuts of a 20-layer network of the CIFAR family add to residual "
    "learning, 32×32 images, default arguments unless others are given. |x|: what becomes of its length where F = 0, "
    "at the start: kept, set to one value, or multiplied."
)
HEADER = ("shortcut", "formula, source, parameters of a block of C channels", "parameters", "multiply-adds", "|x|")


def shortcuts(
    names: Annotated[
        list[str] | None, typer.Argument(help="Which, with arguments or without; all where none is named")
    ] = None,
    plugin: Annotated[
        list[Path] | None, typer.Option("--plugin", help="A file that registers shortcuts of your own; it is executed")
    ] = None,
    json: Json = False,
) -> None:
    """List the shortcut functions: formula, source, parameters, multiply-adds, and whether they keep the length of x.

    What is printed comes from the functions themselves: a plugin's are listed like any other.
    """
    from resx.cli.terminal import print_json, print_lines, print_table
    from resx.model.facts import facts
    from resx.registry import load_plugins

    load_plugins(plugin or [])
    rows = list(facts(names or ()))
    if json:
        print_json([asdict(row) for row in rows])
    else:
        name, formula, *numbers, length = HEADER
        print_table([_cells(row) for row in rows], [f"<{name}", f"<{formula}", *numbers, f"<{length}"])
        print_lines([CAPTION])


def as_markdown(rows: list[Facts]) -> str:
    """Return the table as a page of Markdown, which the documentation has."""
    from resx.probes.page import markdown

    head, _, *lines = markdown(HEADER, [_cells(row) for row in rows])
    return "\n".join(["# Shortcut functions", "", CAPTION, "", head, "|---|---|--:|--:|---|", *lines])


def _cells(row: Facts) -> tuple[str, ...]:
    added = f"{row.multiply_adds / 1e6:.2f} M ({row.share:.1%})" if row.multiply_adds else "0"
    return row.name, row.summary, f"{row.parameters:,}", added, row.length
