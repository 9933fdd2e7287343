"""A forest plot: what the shortcut is worth with growing size, for kinds of networks, and apart from them for trees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resx.figures import FIGURES, parts, style
from resx.probes import Findings
from resx.stats import mean_of


@FIGURES.register("transfer")
def draw(findings: Findings) -> Figure:
    """What the shortcut is worth with growing size, for other kinds of networks and for trees.

    Left: the ratio at the smallest and the greatest size. Right: their difference, the depth × skip interaction, with
    its interval over seeds.
    """
    table, runs = findings.tables["ratios"], findings.frames["runs"]
    names = [list(dict.fromkeys(group["network"])) for _, group in table.groupby("model")]
    rows = sum(map(len, names)) + len(names) - 1
    height = 0.3 * rows + 1.75
    figure = Figure(figsize=(style.WIDTH, height))
    room = {"left": 0.25, "right": 0.82, "top": 1 - 1.02 / height, "bottom": 0.72 / height, "wspace": 0.1}
    left, right = figure.subplots(1, 2, sharey=True, gridspec_kw=room)
    places: list[int] = []
    interactions: list[parts.ForestRow] = []
    for block, colour in zip(names, style.OKABE_ITO, strict=False):
        interactions += [None] if interactions else []  # a gap before the trees, which are no networks
        for name in block:
            own = table[table["network"] == name]
            _draw_sizes(left, own, len(interactions), colour)
            places.append(len(interactions))
            interactions.append(_interaction(own, colour))
    parts.forest(right, interactions)
    _write_interactions(right, interactions)
    if len(names) > 1:
        for axes in (left, right):
            axes.axhline(len(names[0]), color=style.RULE, linewidth=0.8)
    left.set_yticks(places, [name for block in names for name in block])
    _title(left, right)
    style.heading(
        figure,
        "The same question for other networks and models",
        "Final training losses, plain over residual; right of 0 the shortcut helps. "
        f"{parts.seed_words(runs['seed'].nunique())}.",
    )
    style.key(
        figure,
        [
            parts.handle("smallest", linestyle="", marker="o", markerfacecolor="white"),
            parts.handle("greatest", linestyle="", marker="o"),
            *parts.forest_key(runs["seed"].nunique(), diverged=bool((runs["status"] == "diverged").any())),
        ],
    )
    return figure


def _title(left: Axes, right: Axes) -> None:
    left.grid(axis="y", visible=False)
    left.axvline(0, color=style.INK, linewidth=0.8)
    left.set_title("small and large")
    right.set_title("what size adds: the interaction")
    left.set_xlabel("log10 (plain loss / residual loss)")
    right.set_xlabel("difference of the two")


def _draw_sizes(axes: Axes, own: pd.DataFrame, position: int, colour: str) -> None:
    means = own.groupby("size")["ratio"].mean().sort_index()
    axes.plot(means.iloc[[0, -1]], [position] * 2, color=colour, linewidth=0.9, alpha=0.6)
    for place, face, shift in ((0, "white", -9), (-1, colour, 4)):
        axes.plot(means.iloc[place], position, "o", color=colour, markerfacecolor=face, markersize=4.6)
        look: dict[str, Any] = {"textcoords": "offset points", "size": 5.5, "ha": "center", "color": style.QUIET}
        axes.annotate(f"{means.index[place]:g}", (means.iloc[place], position), (0, shift), **look)


def _interaction(own: pd.DataFrame, colour: str) -> parts.ForestRow:
    by_end = own.pivot(index="seed", columns="at", values="ratio").reindex(columns=["greatest", "smallest"])
    values = by_end["greatest"] - by_end["smallest"]
    return values, mean_of(values), colour


def _write_interactions(axes: Axes, rows: Sequence[parts.ForestRow]) -> None:
    look: dict[str, Any] = {"size": 6.5, "va": "center", "color": style.INK}
    for position, row in enumerate(rows):
        if row and np.isfinite(row[1].mean):
            one = row[1]
            text = f"{one.middle}  [{one.interval}]" if np.isfinite(one.low) else one.middle
            axes.text(1.02, position, text, transform=axes.get_yaxis_transform(), **look)
