"""Interventions: what a start does to gradients, and what to the loss after training (Balduzzi et al. 2017)."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resx.figures import FIGURES, parts, style
from resx.probes import Findings

PANELS = {
    "log10_half": ("half_distances", "at initialisation", "log10 distance at which gradients are half alike"),
    "log10_train_loss": ("outcomes", "after training", "log10 training loss"),
}
REFERENCES = ("plain", "residual")


@FIGURES.register("interventions")
def draw(findings: Findings) -> Figure:
    """A row per network: how far its gradients stay alike at initialisation, and its training loss at the end.

    Small marks are seeds, large ones means with their interval; the lines are the plain and the residual network of the
    greatest depth with batch normalisation, the dotted one is the middle between them.
    """
    arms, runs = findings.tables["arms"], findings.frames["runs"]
    height = 0.24 * len(arms) + 1.75
    figure = Figure(figsize=(style.WIDTH, height))
    room = {"left": 0.27, "right": 0.97, "top": 1 - 0.85 / height, "bottom": 0.72 / height, "wspace": 0.08}
    grid = figure.subplots(1, 2, sharey=True, gridspec_kw=room)
    for axes, (quantity, (table, title, label)) in zip(grid, PANELS.items(), strict=True):
        seeds = findings.tables[table]
        seeds = seeds[seeds["phase"] == "initial"] if "phase" in seeds else seeds
        _draw(axes, arms, seeds, quantity)
        axes.set_title(title)
        axes.set_xlabel(label)
    names = [f"{row.kind}-{row.depth}{', no norm' if row.norm == 'none' else ''}" for row in arms.itertuples()]
    grid[0].set_yticks(range(len(arms)), names)
    grid[0].set_ylim(len(arms) - 0.4, -0.6)
    words = f"{parts.seed_words(*arms['seeds'])}, 95 % intervals"
    style.heading(figure, f"Interventions: {parts.data_label(runs)}", words)
    style.key(
        figure,
        [
            parts.handle("mean and interval over seeds", linestyle="", marker="o"),
            parts.handle("single seeds", linestyle="", marker="|"),
            parts.handle("plain and residual", linewidth=0.8),
            parts.handle("the middle between them", linewidth=0.8, linestyle=":"),
        ],
    )
    return figure


def _draw(axes: Axes, arms: pd.DataFrame, seeds: pd.DataFrame, quantity: str) -> None:
    deep = arms[(arms["norm"] == "batch") & (arms["depth"] == arms["depth"].max())].set_index("kind")
    ends = [float(deep[quantity][kind]) for kind in REFERENCES if kind in deep.index]
    for end in ends:
        axes.axvline(end, color=style.QUIET, linewidth=0.8)
    if len(ends) == len(REFERENCES):
        axes.axvline(sum(ends) / 2, color=style.QUIET, linewidth=0.8, linestyle=":")
    colour = style.colours(list(dict.fromkeys(arms["kind"])))
    for place, row in enumerate(arms.to_dict("records")):
        own = seeds[(seeds["kind"] == row["kind"]) & (seeds["depth"] == row["depth"]) & (seeds["norm"] == row["norm"])]
        shade = colour[row["kind"]]
        axes.plot(own[quantity], [place] * len(own), "|", color=shade, markersize=5, alpha=0.6)
        axes.plot(row[quantity], place, "o", color=shade, markersize=4.6)
        axes.hlines(place, row[f"{quantity}_low"], row[f"{quantity}_high"], color=shade, linewidth=1.4)
    axes.grid(axis="y", visible=False)
