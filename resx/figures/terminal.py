"""A finished figure as a small picture in the terminal, for people on a remote machine.

A braille character holds 2 × 4 dots, so a panel of 40 × 10 characters has 80 × 40.
"""

from __future__ import annotations

from itertools import pairwise
from string import ascii_lowercase as LETTERS  # they tell curves apart without colour

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

from resx.figures.style import END_LABEL

DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])  # bit of the dot at [row, column]
MARKS = {"x": "×", "D": "◇", "<": "◁"}
AXIS = 8  # characters that the y axis takes
NARROWEST, WIDEST = 24, 64  # characters of a panel


def picture(figure: Figure, width: int, height: int = 10) -> Table:
    """Return the figure's panels for rich to print in `width` characters; side by side if they fit.

    height: of a panel, in lines. A letter on a curve and at its label identifies it without colour. Single seeds and
    leaders are left out, dashed lines are drawn with gaps.
    """
    specification = figure.axes[0].get_subplotspec()
    columns = specification.get_gridspec().ncols if specification else 1
    if width < columns * (AXIS + NARROWEST + 2):
        columns = 1
    inner = min(max(width // columns - AXIS - 2, NARROWEST), WIDEST)
    grid = Table.grid(padding=(0, 2, 0, 0))
    panels = [_panel(axes, inner, height) for axes in figure.axes]
    for start in range(0, len(panels), columns):
        grid.add_row(*panels[start : start + columns])
    entries = [entry for legend in figure.legends for entry in legend.get_lines() if entry.get_alpha() is None]
    grid.caption = "   ".join(f"{_symbol(entry)} {entry.get_label()}" for entry in entries)
    grid.caption_justify = "left"
    return grid


def _symbol(line: Line2D) -> str:
    return MARKS.get(str(line.get_marker())) or ("┄" if line.is_dashed() else "─")


def _short(value: float) -> str:
    return f"{value:g}" if len(f"{value:g}") < AXIS else f"{value:.0e}"


def _panel(axes: Axes, width: int, height: int) -> Text:
    dots = np.zeros((height, width), dtype=int)
    colours = np.full((height, width), "", dtype=object)
    marks: dict[tuple[int, int], str] = {}
    labels = sorted(
        (item for item in axes.texts if item.get_gid() == END_LABEL), key=lambda item: -item.get_position()[1]
    )
    letters = dict(zip(dict.fromkeys(to_hex(item.get_color()) for item in labels), LETTERS, strict=False))
    for line in axes.get_lines():
        if line.get_alpha() is not None or not line.get_transform().contains_branch(axes.transData):
            continue  # a single seed, or a leader to a label
        marker = MARKS.get(str(line.get_marker()))
        for x, y in _raster(axes, line, 2 * width, 4 * height):
            cell = y // 4, x // 2
            colours[cell] = to_hex(line.get_color())
            if marker:
                marks[cell] = marker
            else:
                dots[cell] |= DOTS[y % 4, x % 2]
        letter = letters.get(to_hex(line.get_color()))
        if letter and not marker and not line.is_dashed():
            marks |= _lettered(axes, line, letter, width, height)
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    text = Text(f"{'':{AXIS}}{axes.get_title(loc='left') or axes.get_ylabel()}\n", style="bold")
    plain = Text(style="not bold")
    for row in range(height):
        label = {0: _short(top), height - 1: _short(bottom)}.get(row, "")
        plain.append(f"{label:>{AXIS - 1}}│", "dim")
        for column in range(width):
            bits = dots[row, column]
            shown = marks.get((row, column)) or (chr(0x2800 + bits) if bits else " ")
            plain.append(shown, colours[row, column])
        plain.append("\n")
    numbers = f"{left:g}{axes.get_xlabel():^{width - len(f'{left:g}{right:g}')}}{right:g}"
    plain.append(f"{'':{AXIS - 1}}└{'─' * width}\n{'':{AXIS}}{numbers}\n", "dim")
    for item in labels:
        letter = letters.get(to_hex(item.get_color()), " ")
        plain.append(f"{'':{AXIS - 2}}{letter} {item.get_text()}\n", to_hex(item.get_color()))
    return text + plain


def _lettered(axes: Axes, line: Line2D, letter: str, width: int, height: int) -> dict[tuple[int, int], str]:
    """Return the cell of a line's letter; each letter has its own column, nothing for a line outside the panel."""
    points = _raster(axes, line, 2 * width, 4 * height)
    if not len(points):
        return {}
    place = 2 * width * (0.9 - 0.1 * (LETTERS.index(letter) % 8))
    x, y = points[np.abs(points[:, 0] - place).argmin()]
    return {(int(y) // 4, int(x) // 2): letter}


def _raster(axes: Axes, line: Line2D, width: int, height: int) -> NDArray[np.int64]:
    """Return the dots [n, (x, y)] of a line that lie inside the panel, y from the top."""
    points = (axes.transData + axes.transAxes.inverted()).transform(line.get_xydata())
    points = points[np.isfinite(points).all(axis=1)] * (width, height)
    pieces = [points]
    for start, end in pairwise(points):
        steps = int(np.abs(end - start).max()) + 1
        pieces.append(start + (end - start) * np.linspace(0, 1, steps, endpoint=False)[:, None])
    joined = np.concatenate(pieces)
    inside = ((joined >= 0) & (joined <= (width, height))).all(axis=1)
    dots = np.minimum(joined[inside].astype(int), (width - 1, height - 1))
    if line.is_dashed():
        dots = dots[dots[:, 0] % 4 < 2]
    return np.column_stack([dots[:, 0], height - 1 - dots[:, 1]])
