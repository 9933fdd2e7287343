"""Any recorded runs: loss, error and learning rate against iterations, in small multiples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resx.figures import FIGURES, parts, style
from resx.probes import Findings
from resx.spec import FIELDS, SpecError

MAX_COLUMNS = 4
# what may differ within a column: seeds are averaged, depths have their colours, the rest goes with these
_WITHIN = ("shortcut", "depth", "seed", "warmup", "stride_in", "label", "reference", "content")


@FIGURES.register("curves")
def draw(findings: Findings) -> Figure:
    """Loss, error and learning rate of any recorded runs against iterations.

    One column per kind of network and recipe, one colour per depth. Raises SpecError
    where that makes too many columns.
    """
    runs, curves = findings.frames["runs"], findings.frames["curves"]
    arms = parts.split(runs, ["shortcut", *(field for field in FIELDS if field not in _WITHIN)])
    if len(arms) > MAX_COLUMNS:
        raise SpecError(
            f"these runs are of {len(arms)} kinds ({'; '.join(arms)}); choose up to {MAX_COLUMNS}, "
            "with --shortcut, --dataset or --where field=value"
        )
    colour = style.colours(sorted(runs["depth"].unique()))
    with style.context():
        figure, grid = style.panels(3, len(arms), 1.25)
        grid[0, 0].set_yscale("log")
        grid[1, 0].set_ylim(0, 100)
        grid[2, 0].set_yscale("log")
        for axes, name in zip(grid[:, 0], ("loss", "error (%)", "learning rate"), strict=True):
            axes.set_ylabel(name)
        labels: dict[Axes, list[style.EndLabel]] = {}
        for (loss, error, rate), (name, arm) in zip(grid.T, arms.items(), strict=True):
            loss.set_title(name)
            rate.set_xlim(0, arm["steps"].max())
            style.count_iterations(rate)
            for depth, group in arm.groupby("depth"):
                for axes, quantity in ((loss, "loss"), (error, "error")):
                    means = parts.draw_network(axes, group, curves, quantity, colour[depth])
                    if not means.empty:
                        end = means.iloc[-1]
                        shown = parts.percent(end) if quantity == "error" else f"{end:.3g}"
                        text = f"{depth} layers  {shown}"
                        labels.setdefault(axes, []).append((means.index[-1], end, text, colour[depth]))
            _draw_rates(rate, arm, curves, colour)
        for axes, items in labels.items():  # only now are the limits that columns share final
            style.end_labels(axes, items)
        figure.align_ylabels(grid[:, 0])
        style.heading(figure, f"Recorded curves: {parts.data_label(runs)}", parts.summary(runs))
        style.key(figure, parts.key(runs, "images"))
    return figure


def _draw_rates(axes: Axes, runs: pd.DataFrame, curves: pd.DataFrame, colour: dict[Any, str]) -> None:
    """Draw the learning rate of each depth, or one quiet line where it is the same for all (no warm-up)."""
    rates = {
        depth: curves[curves["run_id"].isin(group["run_id"])].groupby("step")["lr"].first()
        for depth, group in runs.groupby("depth")
    }
    longest = max(rates.values(), key=len)
    same = all(rate.equals(longest.loc[rate.index]) for rate in rates.values())
    for depth, rate in [(None, longest)] if same else rates.items():
        shown = style.QUIET if depth is None else colour[depth]
        steps, values = np.repeat(rate.index, 2)[:-1], np.repeat(rate, 2)[1:]  # a row holds the rate that led to it
        axes.plot(steps, values, color=shown, linewidth=1.2)
