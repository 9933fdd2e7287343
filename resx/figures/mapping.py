"""A shortcut that knows the map: final losses by what it knows and by its angle from the truth, and a learned map."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resx.figures import FIGURES, parts, style
from resx.probes import Findings
from resx.probes.mapping import ARMS

_COLOURS = ("#000000", "#0072B2", "#009E73", "#D55E00")
LOOKS = {arm: {"color": colour, "marker": mark} for arm, colour, mark in zip(ARMS, _COLOURS, "xosD", strict=True)}


@FIGURES.register("mapping")
def draw(findings: Findings) -> Figure:
    """Shortcuts that know the map R of a teacher, are wrong by an angle, or learn it.

    A row of panels per number of layers. A dot is a seed, a line the mean.
    """
    runs = findings.tables["students"]
    depths = sorted(runs["layers"].unique())
    height = 2.05 * len(depths) + 1.75
    figure = Figure(figsize=(style.WIDTH + 1.6, height))
    room: dict[str, Any] = {"left": 0.075, "right": 0.87, "top": 1 - 0.95 / height, "bottom": 0.82 / height}
    room |= {"wspace": 0.22, "hspace": 0.62, "width_ratios": [1.35, 1, 1]}
    grid = figure.subplots(len(depths), 3, squeeze=False, gridspec_kw=room)
    maps = sorted(runs["map"].unique(), key=lambda name: (name != "identity", name))
    colour = style.colours(maps)
    for row, layers in zip(grid, depths, strict=True):
        part = runs[runs["layers"] == layers]
        words = "1 layer" if layers == 1 else f"{layers} layers"
        _draw_arms(row[0], part, maps)
        row[0].set_title(f"{words}: what the shortcut knows")
        _draw_angles(row[1], part, colour)
        row[1].set_title("wrong by an angle")
        _draw_learned(row[2], findings.tables["way"].query("layers == @layers"), colour)
        row[2].set_title("learned map: distance from R" + ("" if layers == 1 else "ᴸ"))
    style.heading(
        figure,
        "Does it help a shortcut to know the map?",
        f"Teacher of layers R x + ε g(x). Left and middle: log10 of the final training loss over the targets' "
        f"variance, lower is better. {parts.seed_words(runs['seed'].nunique())}.",
    )
    names = {arm: {"R": "the true R"}.get(arm, arm) for arm in ARMS}
    style.key(figure, [parts.handle(names[arm], linestyle="", **LOOKS[arm]) for arm in ARMS])
    return figure


def _draw_arms(axes: Axes, runs: pd.DataFrame, maps: list[str]) -> None:
    for position, name in enumerate(maps):
        for offset, arm in zip((-0.24, -0.08, 0.08, 0.24), ARMS, strict=True):
            row_name = "identity" if arm == "R" and name == "identity" else arm  # the same network
            scores = runs.loc[(runs["map"] == name) & (runs["arm"] == row_name), "score"].dropna()
            look: dict[str, Any] = {**LOOKS[arm], "linestyle": ""}
            if len(scores) > 1:
                axes.plot([position + offset] * len(scores), scores, **look, markersize=2.2, alpha=0.35)
            if len(scores):
                axes.plot(position + offset, scores.mean(), **look, markersize=4.4)
    axes.set_xticks(range(len(maps)), maps, rotation=25, ha="right", rotation_mode="anchor")
    axes.set_xlim(-0.5, len(maps) - 0.5)
    axes.set_ylabel("log10 relative loss")


def _draw_angles(axes: Axes, runs: pd.DataFrame, colour: dict[str, str]) -> None:
    for name, group in runs.groupby("map", sort=False):
        true = "identity" if name == "identity" else "R"
        means = group[group["arm"].isin([true, "turned"])].groupby("away")["score"].mean().dropna()
        if means.empty:
            continue
        axes.plot(means.index, means, marker="o", markersize=2.8, linewidth=1.3, color=colour[str(name)])
    ticks = sorted(runs["away"].unique())
    axes.set_xticks(ticks, [f"{tick:g}°" for tick in ticks])
    axes.set_xlabel("angle from R (colours: right)")


def _draw_learned(axes: Axes, way: pd.DataFrame, colour: dict[str, str]) -> None:
    labels = []
    for name, rows in way.groupby("map", sort=False):
        means = rows.groupby("step")["composed"].mean()
        if means.empty:
            continue
        axes.plot(means.index, means, marker="o", markersize=2.2, linewidth=1.3, color=colour[str(name)])
        labels.append((means.index[-1], means.iloc[-1], f"{name}  {means.iloc[-1]:.2f}", colour[str(name)]))
    axes.set_xscale("symlog", linthresh=5, linscale=0.5)
    axes.set_ylim(bottom=0)
    steps = way["step"].max()
    ticks = [tick for tick in (0, 10, 100, 1000, 10_000) if tick <= steps]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_xlabel("iterations (log)")
    style.end_labels(axes, labels, size=6.5)
