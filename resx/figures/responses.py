"""Responses of layers, as in He et al. 2016, Fig. 7, and what residual blocks add to their input."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from resx.figures import FIGURES, parts, style
from resx.probes import Findings

NARROW = 2.0  # ratio of the axis' ends below which its ticks are evenly spaced
MARGIN = 0.15  # of the residual networks' range, on either side
LOOKS: dict[str, Any] = {"plain": style.DASHED, "residual": "-"}


@FIGURES.register("responses")
def draw(findings: Findings) -> Figure:
    """Standard deviation of layer responses in layer order and sorted; ‖F(x)‖/‖x‖ and cosine by block.

    One colour per depth, means over seeds. Above: after training, plain dashed, residual full (at initialisation all
    are 1 with batch normalisation, the thin line). Residual networks set the axis; where a plain one leaves it, a line
    says how far it goes. Below: residual, initialisation dotted.
    """
    runs, rows = findings.frames["runs"], findings.tables["layers"]
    colour = style.depth_colours(rows["depth"])
    titles = ("response by layer", "response, sorted", "what a block adds: ‖F(x)‖ / ‖x‖", "cosine of F(x) and x")
    figure, grid = style.panels(2, 2, 1.75, free=True, labels=0.5)
    for axes, title in zip(grid.flat, titles, strict=True):
        axes.set_title(title)
        axes.margins(x=0.02)
    for axes in grid[0]:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))  # the range is often less than a decade
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.axhline(1, color=style.QUIET, linewidth=0.6)
    for (kind, depth), group in rows[rows["quantity"] == "std"].groupby(["kind", "depth"]):
        trained = group[group["phase"] == "trained"]
        means = trained.groupby("layer")["value"].mean()
        descending = _sorted(trained)
        look: dict[str, Any] = {"color": colour[depth], "linestyle": LOOKS.get(str(kind), ":"), "linewidth": 1.2}
        grid[0, 0].plot(means.index, means, **look)
        grid[0, 1].plot(range(1, len(descending) + 1), descending, **look)
    _fit_axis(grid[0], rows[(rows["quantity"] == "std") & (rows["phase"] == "trained")])
    for axes, quantity in zip(grid[1], ("ratio", "cosine"), strict=True):
        _draw_blocks(axes, rows[rows["quantity"] == quantity], colour)
    for axes, name in zip(grid.flat, ("layer", "layers, strongest first", "block", "block"), strict=True):
        axes.set_xlabel(name)
    grid[1, 0].set_ylim(bottom=0)
    style.heading(
        figure,
        f"Responses of layers: {parts.data_label(runs)}",
        f"{parts.seed_words(rows['seed'].nunique())}. "
        "Response: standard deviation after normalisation, before ReLU or addition.",
    )
    kinds = [
        parts.handle(f"{kind}, after training", linewidth=1.2, linestyle=LOOKS.get(kind, ":"))
        for kind in sorted(rows["kind"].unique())
    ]
    if (rows["phase"] == "initial").any():  # not of networks that others trained
        kinds.append(parts.handle("residual, at initialisation", linewidth=1.0, linestyle=":"))
    style.key(figure, parts.depth_key(colour), kinds)
    return figure


def _fit_axis(row: Iterable[Axes], trained: pd.DataFrame) -> None:
    """Let residual networks set the axis, and say in words which networks leave it, and how far they go."""
    means = trained.groupby(["kind", "depth", "layer"])["value"].mean()
    own = means[means.index.get_level_values("kind") != "plain"]
    if own.empty:
        return
    residual = trained[trained["kind"] != "plain"]
    ranked = [values for _, group in residual.groupby(["kind", "depth"]) for values in _sorted(group)]
    low, high = min(own.min(), *ranked, 1.0), max(own.max(), *ranked, 1.0)
    margin = (high / low) ** MARGIN
    ends = means.groupby(["kind", "depth"]).agg(["min", "max"]).reset_index().to_dict("records")
    beyond = [
        f"{end['kind']}-{end['depth']}: {end['min']:.2g} to {end['max']:.2g}"
        for end in ends
        if end["max"] > high * margin or end["min"] < low / margin
    ]
    for axes in row:
        axes.set_ylim(low / margin, high * margin)
        if high / low < NARROW:
            axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        if beyond:
            text = "\n".join(["beyond the axis:", *beyond])
            look = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
            axes.text(0.98, 0.97, text, transform=axes.transAxes, ha="right", va="top", fontsize=6, bbox=look)


def _sorted(rows: pd.DataFrame) -> Any:
    """Sort each run's responses, then take the mean over runs at each rank."""
    ranks = rows.sort_values("value", ascending=False).groupby("seed").cumcount()
    return rows.loc[ranks.index].groupby(ranks)["value"].mean().to_numpy()


def _draw_blocks(axes: Axes, rows: pd.DataFrame, colour: dict[Any, str]) -> None:
    for depth, group in rows.groupby("depth"):
        for phase, linestyle, width in (("initial", ":", 1.0), ("trained", "-", 1.5)):
            part = group[group["phase"] == phase]
            means = part.groupby("layer")["value"].mean()
            axes.plot(means.index, means, color=colour[depth], linestyle=linestyle, linewidth=width)
