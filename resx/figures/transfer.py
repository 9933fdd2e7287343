"""A forest plot: what the shortcut is worth with growing depth, for every kind of network, and trees apart from them.

The depth × skip interaction of He et al. 2016, figs. 1 and 6, as a log10 ratio of training losses: units cancel.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from resx.figures import FIGURES, parts, style
from resx.probes import Findings
from resx.stats import t_interval


@FIGURES.register("transfer")
def draw(findings: Findings) -> Figure:
    """What the shortcut is worth with growing size, for other kinds of networks and for trees.

    Left: the ratio at the smallest and the greatest size. Right: their difference, the depth × skip interaction, with
    its interval over seeds.
    """
    table, runs = findings.tables["ratios"], findings.frames["runs"]
    names = [list(dict.fromkeys(group["network"])) for _, group in table.groupby("model")]
    rows = sum(map(len, names)) + len(names) - 1
    with style.context():
        height = 0.3 * rows + 1.75
        figure = Figure(figsize=(style.WIDTH, height))
        left, right = figure.subplots(
            1,
            2,
            sharey=True,
            gridspec_kw={
                "left": 0.25,
                "right": 0.82,
                "top": 1 - 1.02 / height,
                "bottom": 0.72 / height,
                "wspace": 0.1,
            },
        )
        places, position = [], 0
        for block, colour in zip(names, style.OKABE_ITO, strict=False):
            for name in block:
                own = table[table["network"] == name]
                _draw_sizes(left, own, position, colour)
                _draw_interaction(right, own, position, colour)
                places.append(position)
                position += 1
            position += 1  # a gap before the trees, which are no networks
        if len(names) > 1:
            for axes in (left, right):
                axes.axhline(len(names[0]), color=style.RULE, linewidth=0.8)
        left.set_yticks(places, [name for block in names for name in block])
        left.set_ylim(rows - 0.4, -0.6)
        for axes in (left, right):
            axes.grid(axis="y", visible=False)
            axes.axvline(0, color=style.QUIET, linewidth=0.8)
        left.set_title("small and large")
        right.set_title("what size adds: the interaction")
        left.set_xlabel("log10 (plain loss / residual loss)")
        right.set_xlabel("difference of the two")
        style.heading(
            figure,
            "The same question for other networks and models",
            "Final training losses, plain over residual; right of 0 the shortcut helps. "
            f"{parts.seed_words(runs['seed'].nunique())}.",
        )
        style.key(
            figure,
            [
                Line2D([], [], label="smallest", linestyle="", marker="o", markerfacecolor="white", color=style.QUIET),
                Line2D([], [], label="greatest", linestyle="", marker="o", color=style.QUIET),
                Line2D([], [], label="95 % interval over seeds", color=style.QUIET, linewidth=1.4),
                Line2D([], [], label="single seeds", linestyle="", marker="|", color=style.QUIET),
            ],
        )
    return figure


def _draw_sizes(axes: Axes, own: pd.DataFrame, position: int, colour: str) -> None:
    means = own.groupby("size")["ratio"].mean().sort_index()
    axes.plot(means.iloc[[0, -1]], [position] * 2, color=colour, linewidth=0.9, alpha=0.6)
    for place, face, shift in ((0, "white", -9), (-1, colour, 4)):
        axes.plot(means.iloc[place], position, "o", color=colour, markerfacecolor=face, markersize=4.6)
        axes.annotate(
            f"{means.index[place]:g}",
            (means.iloc[place], position),
            (0, shift),
            textcoords="offset points",
            size=5.5,
            ha="center",
            color=style.QUIET,
        )


def _draw_interaction(axes: Axes, own: pd.DataFrame, position: int, colour: str) -> None:
    by_end = own.pivot(index="seed", columns="at", values="ratio").reindex(columns=["greatest", "smallest"])
    values = (by_end["greatest"] - by_end["smallest"]).dropna()
    if values.empty:
        axes.text(0, position, " diverged", size=6.5, color=style.QUIET, va="center")
        return
    mean = t_interval(values.to_numpy())
    if np.isfinite(mean.low):
        axes.plot([mean.low, mean.high], [position] * 2, color=colour, linewidth=1.4)
        axes.plot(values, [position] * len(values), "|", color=colour, markersize=5, alpha=0.6)
    axes.plot(mean.mean, position, "s", color=colour, markersize=4.6)
    axes.annotate(
        f"{mean.middle}  [{mean.interval}]" if np.isfinite(mean.low) else mean.middle,
        (1.02, position),
        xycoords=axes.get_yaxis_transform(),
        size=6.5,
        va="center",
        color=style.INK,
        annotation_clip=False,
    )
