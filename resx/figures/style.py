"""One look for all figures, and files of them that come out the same, byte for byte.

Nothing here goes through pyplot, so there is no global figure, no display and no window.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib.style
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.textpath import TextPath
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from resx.store.files import write_atomic

# Okabe & Ito 2008, distinct with every common colour vision, without their yellow, which is too light on white
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
INK, QUIET, RULE = "#262626", "#6B6B6B", "#DADADA"  # text, second text, grid and guide lines
WIDTH = 7.2  # inches: two columns of the paper
_LEFT, _LABELS, _ABOVE, BELOW, _BETWEEN = 0.55, 1.22, 0.84, 0.82, 0.18  # inches around the panels
KEY_ROW = 0.16  # inches: a row of the key below the panels
HEADING = "heading"  # the id of a figure's title and subtitle
HEADING_HEIGHT = 0.46  # inches: the room that these take
END_LABEL = "end-label"  # the id of labels at the ends of curves
EndLabel = tuple[float, float, str, str]  # x and y of the curve's end, text, colour
DASHED = (0, (3.2, 1.6))

FORMATS = ("pdf", "svg", "png")
_NO_METADATA: dict[str, dict[str, Any]] = {  # each format's own stamps of time and program
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
    "svg": {"Creator": None, "Date": None},
    "png": {"Software": None},
}
_RC = {
    "axes.axisbelow": True,
    "axes.edgecolor": QUIET,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelcolor": QUIET,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlepad": 11,  # leaves room for the marks of the learning rate
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlecolor": INK,
    "axes.labelsize": 8,
    "font.family": "DejaVu Sans",  # comes with matplotlib, so every machine draws the same letters
    "font.size": 8,
    "grid.color": RULE,
    "grid.linewidth": 0.5,
    "lines.solid_capstyle": "round",
    "pdf.fonttype": 42,
    "savefig.dpi": 140,
    "svg.fonttype": "path",
    "svg.hashsalt": "resx",
    "text.color": INK,
    "xtick.color": QUIET,
    "xtick.labelsize": 7.5,
    "xtick.major.size": 3,
    "xtick.major.width": 0.6,
    "ytick.color": QUIET,
    "ytick.labelsize": 7.5,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
}


def context(**settings: Any) -> AbstractContextManager[None]:
    """Return the context in which figures are drawn and saved, whatever the user's matplotlib settings."""
    return matplotlib.style.context(["default", _RC | settings])


def colours(keys: Sequence[Any]) -> dict[Any, str]:
    """Return one colour per key, in order; they repeat from the eighth key on."""
    return {key: OKABE_ITO[position % len(OKABE_ITO)] for position, key in enumerate(keys)}


def depth_colours(depths: Iterable[int]) -> dict[Any, str]:
    """Return one colour per depth: distinct ones, or a scale from the shallowest to the deepest for more than five."""
    keys = sorted(set(depths))
    if len(keys) <= 5:
        return colours(keys)
    scale = matplotlib.colormaps["viridis_r"].resampled(256)
    return {key: to_hex(scale(0.12 + 0.88 * place / (len(keys) - 1))) for place, key in enumerate(keys)}


def log_ticks(axes: Axes) -> None:
    """Label a logarithmic y axis, whose limits are final, with short numbers: several where it spans few decades."""
    axes.autoscale_view()
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if high > 30 * low else (1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.3g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def save(figure: Figure, stem: Path, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Write stem.pdf, stem.svg and stem.png and return their paths. The same figure gives the same bytes.

    Raises StoreError where a file cannot be written; a file is replaced whole or not at all.
    """
    paths = {kind: stem.with_name(f"{stem.name}.{kind}") for kind in formats}
    for kind, path in paths.items():
        write_atomic(path, encoded(figure, kind))
    return list(paths.values())


def encoded(figure: Figure, kind: str, **settings: Any) -> bytes:
    """Return the content of a figure's file. settings: of matplotlib, beyond those of every figure."""
    buffer = io.BytesIO()
    with context(**settings):
        figure.savefig(buffer, format=kind, metadata=_NO_METADATA[kind])
    return buffer.getvalue()


def count_iterations(axes: Axes) -> None:
    """Label the x axis as iterations, in thousands (k) where there are many."""
    axes.set_xlabel("iterations")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / 1000:g}k" if x >= 10_000 else f"{x:g}"))


def count_blocks(axes: Axes, counts: pd.Series) -> None:
    """Give the x axis a logarithmic scale with a tick at each of these counts."""
    ticks = sorted(counts.dropna().unique())
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()


def seed_lines(
    axes: Axes, table: pd.DataFrame, diverged: Collection[str], colour: str, *, dashed: bool = False
) -> pd.Series:
    """Draw every run of a table (a row per step, a column per run) faintly and their mean in full strength;
    return the mean.

    The mean is over the runs that did not diverge, as far as all of them have got. Diverged runs are drawn to
    where they ended. dashed: thin dashed lines, for training errors; otherwise bold ones.
    """
    look: dict[str, Any] = {"color": colour, "linestyle": DASHED if dashed else "-"}
    strong, faint = (1.0, 0.5) if dashed else (1.8, 0.6)
    for run_id in table if table.shape[1] > 1 else []:
        line = table[run_id].dropna()
        axes.plot(line.index, line, **look, linewidth=faint, alpha=0.22 if dashed else 0.4, gid=run_id)
    for run_id in table.columns.intersection(list(diverged)):
        line = table[run_id].dropna()
        axes.plot(line.index, line, **look, linewidth=strong / 2)
        if not dashed:
            end = min(line.iloc[-1], axes.get_ylim()[1])
            axes.plot(line.index[-1], end, "x", color=colour, markersize=5, markeredgewidth=1.4, clip_on=False)
    mean = table.drop(columns=list(diverged), errors="ignore").dropna().mean(axis=1).dropna()
    axes.plot(mean.index, mean, **look, linewidth=strong)
    return mean


def end_labels(axes: Axes, labels: Sequence[EndLabel], size: float = 7.5, room: float = _LABELS - 0.18) -> None:
    """Write (x, y, text, colour) at the right edge at the height of the curve's end, moved apart.

    A leader joins the end of the curve with a label that could not stay at its height. room: inches; a longer label is
    set smaller. Call it with the axes' limits set.
    """
    axes.autoscale_view()  # matplotlib puts this off until it draws, the transform below does not wait
    to_axes = axes.transData + axes.transAxes.inverted()
    ends = [(x, min(y, 1.0)) for x, y in (to_axes.transform(label[:2]) for label in labels)]
    box = axes.get_window_extent()  # in dots
    inch = axes.figure.dpi
    places = spread([y for _, y in ends], 1.25 * size / 72 * inch / box.height, 0.0, 1.0)
    leader, bend, start = (1 + inches_beyond * inch / box.width for inches_beyond in (0.05, 0.12, 0.14))
    for (x, y), place, (_, _, text, colour) in zip(ends, places, labels, strict=True):
        look: dict[str, Any] = {"transform": axes.transAxes, "color": colour}
        axes.plot([x, leader, bend], [y, y, place], linewidth=0.6, alpha=0.7, clip_on=False, **look)
        shrink(axes.text(start, place, text, size=size, va="center", gid=END_LABEL, **look), room)


def mark_drops(axes: Axes, steps: Sequence[float]) -> None:
    """Mark the steps at which the learning rate drops to a tenth."""
    across = axes.get_xaxis_transform()
    axes.vlines(steps, 0, 1, transform=across, color=QUIET, alpha=0.45, linewidth=0.6, linestyle=(0, (1, 2)))
    for step in steps:
        axes.text(step, 1.015, "rate ÷10", transform=across, color=QUIET, size=6, ha="center")


def panels(
    rows: int, columns: int, height: float, *, titled: bool = False, free: bool = False, labels: float = _LABELS
) -> tuple[Figure, Any]:
    """Return a figure and its axes [rows, columns] with room for a heading, end labels and a key.

    height: of a panel in inches. Panels of a row share the y axis, those of a column the x axis. titled: all
    panels show the same quantity, each with its own title and x axis, and share the y axis. free: each panel has
    a title and both axes of its own. labels: inches to the right of a panel, by default room for end labels.
    """
    between = BELOW if titled or free else _BETWEEN
    width = max(WIDTH, _LEFT + columns * ((1.5 if free else 2.1) + labels))
    total = _ABOVE + rows * height + (rows - 1) * between + BELOW
    panel = (width - _LEFT) / columns - labels
    figure = Figure(figsize=(width, total))
    axes = figure.subplots(
        rows,
        columns,
        sharex=False if titled or free else "col",
        sharey=False if free else titled or "row",
        squeeze=False,
        gridspec_kw={
            "left": _LEFT / width,
            "right": 1 - labels / width,
            "bottom": BELOW / total,
            "top": 1 - _ABOVE / total,
            "wspace": labels / panel,
            "hspace": between / height,
        },
    )
    return figure, axes


def heading(figure: Figure, title: str, subtitle: str) -> None:
    """Write a title and a quiet second line above the panels; one that is too long for the figure is set smaller."""
    width, height = figure.get_size_inches()
    look: dict[str, Any] = {"va": "top", "gid": HEADING}
    for line in (
        figure.text(_LEFT / width, 1 - 0.10 / height, title, size=10.5, weight="bold", **look),
        figure.text(_LEFT / width, 1 - 0.32 / height, subtitle, size=7.5, color=QUIET, **look),
    ):
        shrink(line, width - _LEFT)


def shrink(line: Text, room: float) -> None:
    """Set a text smaller where it is wider than `room`, in inches."""
    line.set_fontsize(float(line.get_fontsize()) * min(1.0, 0.98 * room / inches(line)))


def inches(text: Text) -> float:
    """Return the width of a text as its outlines have it: on a screen's pixels letters are narrower by a tenth."""
    return float(TextPath((0, 0), text.get_text(), prop=text.get_fontproperties()).get_extents().width / 72)


def key(figure: Figure, *rows: Sequence[Artist]) -> None:
    """Explain the kinds of lines and marks below the panels, a row for each sequence that is not empty."""
    width, height = figure.get_size_inches()
    for position, row in enumerate(reversed([row for row in rows if row])):
        figure.legend(
            handles=list(row),
            loc="lower left",
            bbox_to_anchor=((_LEFT - 0.03) / width, KEY_ROW * position / height),
            ncols=len(row),
            frameon=False,
            fontsize=7,
            labelcolor=QUIET,
            handlelength=1.7,
            handletextpad=0.6,
            columnspacing=1.3,
            borderaxespad=0.2,
            borderpad=0.2,
        )


def spread(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Return positions moved as little as needed so that neighbours are `gap` apart and all lie in [low, high].

    The order is kept. Where they do not all fit, the gap shrinks.
    """
    if not positions:
        return []
    order = sorted(range(len(positions)), key=lambda k: positions[k])
    gap = min(gap, (high - low) / max(len(positions) - 1, 1))
    clusters: list[tuple[list[float], float]] = []  # (wanted first positions of its members, first position)
    for rank, k in enumerate(order):
        members = [positions[k] - rank * gap]  # in coordinates where neighbours may touch
        while clusters and clusters[-1][1] > sum(members) / len(members):
            members = clusters.pop()[0] + members
        clusters.append((members, sum(members) / len(members)))
    flat = [start for members, start in clusters for _ in members]
    top = high - gap * (len(positions) - 1)
    placed = [min(max(start, low), top) + rank * gap for rank, start in enumerate(flat)]
    return [place for _, place in sorted(zip(order, placed, strict=True))]
