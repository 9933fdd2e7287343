"""The loss around trained weights: a plane as contours, and lines (Li et al. 2018, Figs. 1 and 5)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from resx.figures import FIGURES, parts, style
from resx.probes import Findings
from resx.probes.tidy import join

STATISTICS = {"batch": "statistics of the images", "running": "statistics of training"}
HIGHEST = 1e3  # losses above are drawn as this: with statistics of training there is no bound
LEVELS = 13


@FIGURES.register("landscape")
def draw(findings: Findings) -> Figure:
    """A column per network; rows: the plane around it (statistics of the images), and the lines in both ways.

    The plane is that of the lowest seed, colours are log10 of the loss, the same scale in all panels; of lines every
    seed and direction is drawn faintly, and their median (of the logarithm) in full.
    """
    runs = findings.frames["runs"]
    rows = join(findings.frames["landscape"], runs)
    rows["loss"] = np.log10(rows["loss"].clip(1e-8, HIGHEST).fillna(HIGHEST))
    networks = sorted(rows.groupby(["kind", "depth"]), key=lambda item: (item[0][0] != "plain", item[0]))
    seed = rows["seed"].min()
    planes = rows[(rows["shape"] == "plane") & (rows["statistics"] == "batch") & (rows["seed"] == seed)]
    levels = np.linspace(planes["loss"].min(), planes["loss"].max() + 1e-6, LEVELS)
    look = style.colours(list(STATISTICS))
    figure, grid = style.panels(2, len(networks), 2.0)
    labels: list[tuple[Axes, list[style.EndLabel]]] = []
    for column, ((kind, depth), group) in zip(grid.T, networks, strict=True):
        column[0].set_title(f"{kind}-{depth}")
        _draw_plane(column[0], planes[planes["run_id"].isin(group["run_id"])], levels)
        labels.append((column[1], _draw_lines(column[1], group[group["shape"] == "line"], look)))
        column[1].set_xlabel("distance along a direction (filter norms)")
    for axes, ends in labels:  # only now are the limits that they share final
        style.end_labels(axes, ends)
    grid[0, 0].yaxis.set_major_locator(MaxNLocator(4))
    grid[0, 0].set_ylabel("distance along another")
    grid[1, 0].set_ylabel("log10 of the loss")
    figure.align_ylabels(grid[:, 0])
    count = rows["seed"].nunique()
    style.heading(
        figure,
        f"The training loss around trained weights: {parts.data_label(runs)}",
        f"Filter-normalised random directions. Contours: log10 of the loss, seed {seed}, statistics of the images. "
        f"Lines: {count} seed{'s' if count > 1 else ''}.",
    )
    marks = [parts.handle(words, color=look[name], linewidth=1.8) for name, words in STATISTICS.items()]
    faint = parts.handle("one seed and direction", linewidth=0.6, alpha=0.6)
    style.key(figure, marks, [faint, parts.handle(f"losses above {HIGHEST:g} are drawn as that", linewidth=0)])
    return figure


def _draw_plane(axes: Axes, rows: pd.DataFrame, levels: np.ndarray) -> None:
    axes.grid(False)
    if rows.empty:
        return
    table = rows.pivot(index="b", columns="a", values="loss")
    places = table.columns, table.index, table
    surface = axes.contourf(*places, levels=levels, cmap="cividis")
    lines = axes.contour(*places, levels=levels, colors="white", linewidths=0.5, linestyles="-")
    axes.clabel(lines, levels[1:-1:2], fmt="%.1f", fontsize=5.5)
    axes.plot(0, 0, "+", color="white", markersize=6)
    _draw_bar(axes, surface)


def _draw_bar(axes: Axes, surface: QuadContourSet) -> None:
    """Draw the scale of the colours to the right of a plane."""
    place = axes.inset_axes((1.05, 0.0, 0.05, 1.0))
    bar = axes.figure.colorbar(surface, cax=place, format="%.1f")
    bar.outline.set_visible(False)
    place.tick_params(labelsize=6, length=0)
    place.set_title("log10 loss", size=6, color=style.QUIET, weight="normal", pad=3)


def _draw_lines(axes: Axes, rows: pd.DataFrame, look: dict[str, str]) -> list[style.EndLabel]:
    labels = []
    for statistics, group in rows.groupby("statistics"):
        table = group.groupby(["a", "run_id", "direction"])["loss"].first().unstack(["run_id", "direction"])
        for name in table:
            axes.plot(table.index, table[name], color=look[str(statistics)], linewidth=0.6, alpha=0.4)
        median = table.median(axis=1)
        axes.plot(median.index, median, color=look[str(statistics)], linewidth=1.8)
        labels.append((float(median.index[-1]), float(median.iloc[-1]), str(statistics), look[str(statistics)]))
    return labels
