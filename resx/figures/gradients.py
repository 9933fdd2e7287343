"""Gradient norms through depth and training, and gradient correlations (Yang et al. 2019; Balduzzi et al. 2017)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resx import paper
from resx.figures import FIGURES, parts, style
from resx.probes import Findings

ROWS = ("gradient norm", "growth per layer (%)", "gradient correlation")
TABLES = ("norms", "growth_by_step", "correlations")
PUBLISHED_GROWTH = 100 * (paper.PLAIN_GRADIENT_FACTOR.value - 1)  # percent per layer
PHASES: dict[str, dict[str, Any]] = {
    "initial": {"linestyle": ":", "linewidth": 1.1},
    "trained": {"linestyle": "-", "linewidth": 1.6},
}


@FIGURES.register("gradients")
def draw(findings: Findings) -> Figure:
    """Norm of the loss gradient by layer, its growth per layer in training, its correlation by distance of inputs.

    A column per kind of network and normalisation, a colour per depth; dotted at initialisation, full after training.
    Where paddings or sizes of images were compared, the growth at initialisation by size instead.
    """
    if findings.tables["growth"][["padding", "images"]].nunique().max() > 1:
        return _by_size(findings)
    runs, norms = findings.frames["runs"], findings.tables["norms"]
    arms = sorted(set(zip(norms["norm"], norms["kind"], strict=True)))
    colour = style.depth_colours(norms["depth"])
    figure, grid = style.panels(len(ROWS), len(arms), 1.5, free=True, labels=0.32)
    for row, name in zip(grid, ROWS, strict=True):
        row[0].set_ylabel(name)
        for axes in row[1:]:
            axes.sharey(row[0])
            axes.tick_params(labelleft=False)
    for column, (norm, kind) in zip(grid.T, arms, strict=True):
        column[0].set_title(_title(norm, kind))
        for depth, shade in colour.items():
            for axes, table, line in zip(column, TABLES, (_draw_norms, _draw_growth, _draw_correlation), strict=True):
                rows = findings.tables[table]
                line(axes, rows[(rows["norm"] == norm) & (rows["kind"] == kind) & (rows["depth"] == depth)], shade)
        _label(column, kind, norm)
    diverged = int((runs["status"] == "diverged").sum())
    style.heading(
        figure,
        f"Gradients: {parts.data_label(runs)}",
        f"{parts.seed_words(norms['seed'].nunique())}; norms and distances on a log scale."
        + (f" {diverged} diverged runs: at initialisation only." if diverged else ""),
    )
    published = paper.PLAIN_GRADIENT_FACTOR
    source = f"{published.source} [{published.mark}]: {PUBLISHED_GROWTH:+.0f} % at initialisation, wide plain networks"
    marks = [
        parts.handle("at initialisation", linewidth=1.1, linestyle=":"),
        parts.handle("after training", linewidth=1.6),
        parts.handle(source, linestyle="", marker="D", markersize=4, markerfacecolor="white"),
    ]
    style.key(figure, parts.depth_key(colour), marks)
    return figure


def _by_size(findings: Findings) -> Figure:
    """Draw the growth per layer at initialisation by size of the images, a panel per network, a colour per padding."""
    table = findings.tables["growth"]
    table = table[(table["phase"] == "initial") & (table["depth"] == table["depth"].max())]
    arms = table.groupby(["norm", "kind"])
    sizes = list(table["images"].unique())
    colour = style.colours(sorted(table["padding"].unique(), reverse=True))
    figure, grid = style.panels(1, len(arms), 1.6, titled=True, labels=0.2)
    for axes, ((norm, kind), rows) in zip(grid[0], arms, strict=True):
        axes.set_title(_title(norm, kind))
        axes.axhline(0, color=style.QUIET, linewidth=0.6)
        for padding, shade in colour.items():
            own = rows[rows["padding"] == padding].set_index("images").reindex(sizes)
            axes.plot(range(len(sizes)), own["growth"], color=shade, marker="o", markersize=3.5)
            axes.vlines(range(len(sizes)), own["growth_low"], own["growth_high"], color=shade, linewidth=1.2)
        axes.set_xticks(range(len(sizes)), sizes)
        axes.set_xlim(-0.4, len(sizes) - 0.6)
        axes.set_xlabel("images")
    grid[0, 0].set_ylabel("growth per layer (%)")
    words = f"{parts.seed_words(table['seeds'].max())}, 95 % intervals; above 0 gradients grow towards the input."
    style.heading(figure, f"Gradients at initialisation: {parts.data_label(findings.frames['runs'])}", words)
    paddings = {padding or "zeros beyond the edge": shade for padding, shade in colour.items()}
    style.key(figure, [parts.handle(text, color=shade, linewidth=1.6) for text, shade in paddings.items()])
    return figure


def _title(norm: str, kind: str) -> str:
    return f"{kind}, {'no' if norm == 'none' else norm} norm"


def _draw_norms(axes: Axes, rows: pd.DataFrame, shade: str) -> None:
    axes.set_yscale("log")
    for phase, look in PHASES.items():
        part = rows[rows["phase"] == phase]
        alive = part[part.groupby("seed")["value"].transform("min") > 0]  # a dead network's gradients are zero
        means = np.exp(np.log(alive.set_index("layer")["value"]).groupby("layer").mean())
        axes.plot(means.index, means, color=shade, **look)


def _draw_growth(axes: Axes, rows: pd.DataFrame, shade: str) -> None:
    """Draw the slope of the log norm against the layer, in percent per layer towards the input, at each kept step."""
    axes.axhline(0, color=style.QUIET, linewidth=0.6)
    table = rows[((rows["status"] == "finished") | (rows["step"] == 0)) & rows["growth"].notna()]
    for _, run in table.groupby("seed") if table["seed"].nunique() > 1 else []:
        axes.plot(run["step"], run["growth"], color=shade, linewidth=0.6, alpha=0.4)
    means = table.groupby("step")["growth"].mean()
    axes.plot(means.index, means, color=shade, linewidth=1.6, marker="o", markersize=2.5)


def _draw_correlation(axes: Axes, rows: pd.DataFrame, shade: str) -> None:
    axes.set_xscale("log")
    axes.axhline(0, color=style.QUIET, linewidth=0.6)
    for phase, look in PHASES.items():
        means = rows[rows["phase"] == phase].groupby("distance")["correlation"].mean()
        axes.plot(means.index, means, color=shade, **look)


def _label(column: Any, kind: str, norm: str) -> None:
    for axes, name in zip(column, ("layer", "iterations", "distance of inputs"), strict=True):
        axes.set_xlabel(name)
    column[1].set_xscale("symlog", linthresh=1)
    column[1].set_xlim(left=-0.2)
    if kind == "plain" and norm == "batch":
        look: dict[str, Any] = {"color": style.QUIET, "markersize": 4, "markerfacecolor": "white"}
        column[1].plot(0, PUBLISHED_GROWTH, "D", zorder=5, clip_on=False, **look)
