"""How commands write on stdout: tables, lines, one JSON document. What users wrote is shown as it is, never as markup.

Light, so that a command that only reads records starts at once.
"""

from __future__ import annotations

import codecs
import inspect
import json
import logging
import math
import os
import sys
import unicodedata
from collections.abc import Sequence
from functools import partial
from typing import Any

import typer
from pydantic_core import to_jsonable_python
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from resx.spec import printable

CONSOLE = Console(width=None if sys.stdout and sys.stdout.isatty() else 140)  # a file is not cut at 80 columns
_PLAIN = {"–": "-", "−": "-", "—": "-", "─": "-", "×": "x", "·": "*", "•": "*", "…": "...", "→": "->"}
_PLAIN |= {"≤": "<=", "≥": ">=", "±": "+/-", "‘": "'", "’": "'", "“": '"', "”": '"'}
_PLAIN |= {"‖": "||", "⊙": "*", "≠": "!=", "√": "sqrt", "′": "'"}


def prepare_streams() -> None:
    """Let stdout and stderr write everything: ASCII for what an encoding lacks, nothing where one is closed."""
    codecs.register_error("resx", _in_ascii)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (until the process ends)
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="resx")
    if logging.lastResort is not None:  # writes warnings on stderr, names of users' folders and files among them
        logging.lastResort.setFormatter(_Printable())


class _Printable(logging.Formatter):
    """Writes a line without control characters."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _in_words(letter: str) -> str:
    """Return the name of a Greek letter and a superscript as a power; nothing for any other."""
    kind, _, plain = unicodedata.decomposition(letter).partition(" ")
    if kind == "<super>":
        return "^" + "".join(chr(int(code, 16)) for code in plain.split())
    alphabet, _, name = unicodedata.name(letter, "").partition(" LETTER ")
    return {"GREEK SMALL": name.lower(), "GREEK CAPITAL": name.capitalize()}.get(alphabet, "")


def _writable(text: str) -> str:
    """Return a text as stdout will write it, so that columns are as wide as what is seen."""
    text, encoding = printable(text), getattr(sys.stdout, "encoding", None) or "utf-8"
    return text if text.isascii() else text.encode(encoding, "resx").decode(encoding)


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    plain = (_PLAIN.get(letter) or _in_words(letter) or unicodedata.normalize("NFKD", letter) for letter in text)
    return "".join(part if part.isascii() else "?" for part in plain), error.end


def print_json(content: Any) -> None:
    """Print one JSON document on stdout, of a list a line per item; null for nan and infinite numbers."""
    is_utf = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "").startswith("utf")
    write = partial(json.dumps, ensure_ascii=not is_utf)
    content = to_jsonable_python(content, inf_nan_mode="null", fallback=lambda value: value.item())  # NumPy's
    if isinstance(content, list) and content:
        typer.echo("[\n" + ",\n".join(map(write, content)) + "\n]")
    else:
        typer.echo(write(content, indent=1))


def print_table(rows: Sequence[Sequence[str]], columns: Sequence[str], title: str | None = None) -> None:
    """Print a table; columns whose name starts with '<' are text and aligned to the left."""
    columns = [_writable(column) for column in columns]
    heading = [column.removeprefix("<") for column in columns]
    cells = [[_writable(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(heading, *cells, strict=True)]
    width = sum(widths) + 3 * len(widths)  # three spaces between columns, and the edges
    if title:
        CONSOLE.print(Text(printable(title), style="bold"))
    if width > CONSOLE.width:
        _print_wrapped(cells, columns)
        return
    aligned = [set_cell_size if column.startswith("<") else _to_the_right for column in columns]
    lines = [
        " " + "   ".join(align(cell, room) for align, cell, room in zip(aligned, row, widths, strict=True)).rstrip()
        for row in (heading, *cells)
    ]
    CONSOLE.print(Text(lines[0], style="bold"))
    typer.echo("\n".join([" " + "─" * (width - 3), *lines[1:], ""]))


def _to_the_right(cell: str, width: int) -> str:
    return " " * (width - cell_len(cell)) + cell


def _print_wrapped(cells: Sequence[Sequence[str]], columns: Sequence[str]) -> None:
    """Print a table that is wider than the terminal, by rich, which takes half a millisecond a row to lay it out."""
    table = Table(header_style="bold", box=SIMPLE_HEAD)
    for column in columns:
        table.add_column(Text(column.removeprefix("<")), justify="left" if column.startswith("<") else "right")
    for row in cells:
        table.add_row(*(Text(cell, overflow="fold") for cell in row))
    CONSOLE.print(table)


def print_lines(lines: Sequence[str]) -> None:
    """Print lines of plain text, wrapped at words; what users wrote is no markup."""
    for line in lines:
        CONSOLE.print(printable(line), markup=False, highlight=False)


def number(value: Any, digits: int = 2) -> str:
    """Format a number, '–' where there is none."""
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def duration(seconds: float) -> str:
    """Format a time as a person would say it: 45 s, 12 min, 3.4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def flowing(docstring: str | None) -> str:
    """Join the lines of each paragraph, so that a terminal of any width can wrap them."""
    paragraphs = inspect.cleandoc(docstring or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split("\n")) for paragraph in paragraphs)
