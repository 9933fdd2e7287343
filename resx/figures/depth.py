"""Final errors and log10 of the final training loss against depth (in He et al. 2016 the ends of Figs. 1 and 6)."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resx.figures import FIGURES, parts, style
from resx.probes import Findings
from resx.probes.tidy import OUTCOMES

PANELS = ("train_error", "test_error", "log10_train_loss")
APART = 0.012  # how far apart kinds of one depth stand, as a share of the range of depths


@FIGURES.register("depth")
def draw(findings: Findings) -> Figure:
    """Final error and log10 loss against depth: a line for each kind of network, 95 % intervals over seeds.

    Kinds at one depth stand a little apart, so that their intervals do not overlap.
    """
    runs, table = findings.frames["runs"], findings.tables["depths"]
    kinds = list(table["kind"].unique())
    colour = style.colours(kinds)
    depths = sorted(table["depth"].unique())
    reach = (depths[-1] - depths[0]) or 1
    figure, grid = style.panels(1, len(PANELS), 1.9, free=True, labels=0.55)
    for axes, outcome in zip(grid[0], PANELS, strict=True):
        axes.set_title(OUTCOMES[outcome].removeprefix("final "), size=8)
        axes.set_xlabel("layers")
        axes.set_xticks(depths, [str(depth) for depth in depths])
        axes.set_xlim(depths[0] - 0.08 * reach, depths[-1] + 0.08 * reach)
        for place, kind in enumerate(kinds):
            moved = (place - (len(kinds) - 1) / 2) * APART * reach
            _draw_kind(axes, table[table["kind"] == kind], outcome, moved, colour[kind])
    style.heading(figure, f"What depth does: {parts.data_label(runs)}", _subtitle(table))
    names = [parts.handle(kind, color=colour[kind], marker="o", markersize=3.5, linewidth=1.4) for kind in kinds]
    style.key(figure, *(names[start : start + 5] for start in range(0, len(names), 5)))
    return figure


def _draw_kind(axes: Axes, rows: pd.DataFrame, outcome: str, moved: float, colour: str) -> None:
    rows = rows.sort_values("depth").dropna(subset=[outcome])
    at = rows["depth"] + moved
    axes.plot(at, rows[outcome], "o-", color=colour, markersize=3.5, linewidth=1.4)
    for place, low, high in zip(at, rows[f"{outcome}_low"], rows[f"{outcome}_high"], strict=True):
        axes.plot([place, place], [low, high], color=colour, linewidth=1.0)


def _subtitle(table: pd.DataFrame) -> str:
    low, high = table["seeds"].min(), table["seeds"].max()
    if high == 1:
        return "One seed: no intervals."
    return f"Mean and 95 % interval over {high if low == high else f'{low} to {high}'} seeds; diverged runs left out."
