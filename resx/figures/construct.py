"""The existence argument carried out: a constructed deep plain network next to those that were trained from scratch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resx.figures import FIGURES, parts, style
from resx.probes import Findings
from resx.probes.construct import CONSTRUCTED, DEEP, NAMES, SHALLOW
from resx.spec import SpecError

LABELS = 1.5  # inches to the right of a panel, for "constructed 0.20 %"
QUANTITIES = {"error": "error (%)", "loss": "loss"}
SPLITS = {"train": "training images", "test": "test images"}
HIGHEST_LOSS = 10.0  # in eval mode the loss of the first iterations has no bound; the axis ends here


@FIGURES.register("construct")
def draw(findings: Findings) -> Figure:
    """Training error, training loss and test error of the three arms against iterations, the restart marked.

    Faint: single seeds; full: their mean.
    """
    lines, rows, runs = findings.tables["curves"], findings.tables["outcomes"], findings.frames["runs"]
    depth = {name: int(rows.loc[rows["arm"] == name, "depth"].iloc[0]) for name in NAMES if name in set(rows["arm"])}
    words = {name: f"plain-{value}" for name, value in depth.items()} | {CONSTRUCTED: "constructed"}
    colour = style.colours((SHALLOW, DEEP, CONSTRUCTED))
    if lines.empty:
        raise SpecError("no curve of these runs is recorded")
    half = int(runs["steps"].max())
    figure, grid = style.panels(len(QUANTITIES), len(SPLITS), 1.5, labels=LABELS)
    grid[0, 0].set_ylim(0, 100)
    grid[1, 0].set_yscale("log")
    losses = lines.filter(like="loss").drop(columns="running_loss").to_numpy()
    grid[1, 0].set_ylim(0.7 * np.nanmin(losses), HIGHEST_LOSS)
    for axes_row, (quantity, label) in zip(grid, QUANTITIES.items(), strict=True):
        axes_row[0].set_ylabel(label)
        for axes, split in zip(axes_row, SPLITS, strict=True):
            axes.set_xlim(0, 2 * half)
            _draw(axes, lines, f"{split}_{quantity}", words, colour)
            axes.axvline(half, color=style.QUIET, linewidth=0.6, alpha=0.6)
    for axes, title in zip(grid[0], SPLITS.values(), strict=True):
        axes.set_title(title)
    for axes in grid[-1]:
        style.count_iterations(axes)
    figure.align_ylabels(grid[:, 0])
    style.heading(
        figure,
        f"A deep plain network built from a shallow one: {parts.data_label(runs)}",
        f"{parts.seed_words(rows['seed'].nunique())}. Every arm is two runs of {half} "
        "iterations; at the line the rate restarts and identities are inserted.",
    )
    style.key(figure, parts.seed_key())
    return figure


def _draw(axes: Axes, lines: pd.DataFrame, column: str, words: dict[str, str], colour: dict[str, Any]) -> None:
    labels = []
    middle = lines["step"].max() / 2
    for name in (SHALLOW, DEEP, CONSTRUCTED):
        rows = lines[lines["arm"] == name].dropna(subset=[column])
        if name == CONSTRUCTED:  # until the restart it is the shallow network
            rows = rows[rows["step"] >= middle]
        if rows.empty:
            continue
        table = rows.groupby(["step", "run_id"])[column].last().unstack("run_id")
        mean = style.seed_lines(axes, table, [], colour[name])
        end = float(mean.iloc[-1])
        shown = f"{end:.2g}" if column.endswith("loss") else parts.percent(end)
        labels.append((float(mean.index[-1]), end, f"{words[name]}  {shown}", colour[name]))
    style.end_labels(axes, labels, room=LABELS - 0.18)
