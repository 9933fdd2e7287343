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
# what may differ within a column: seeds are averaged, depths have their colours, the rest follows from these
_WITHIN = ("shortcut", "depth", "seed", "warmup", "stride_in", "label", "reference", "content")


@FIGURES.register("curves")
def draw(findings: Findings) -> Figure:
    """Loss, error and learning rate of any recorded runs against iterations.

    One column per kind of network and recipe, one colour per depth. Raises SpecError where that makes too many columns.
    """
    runs, curves = findings.frames["runs"], findings.frames["curves"]
    arms = parts.split(runs, ["shortcut", *(field for field in FIELDS if field not in _WITHIN)])
    if len(arms) > MAX_COLUMNS:
        raise SpecError(
            f"these runs are of {len(arms)} kinds ({'; '.join(arms)}); choose up to {MAX_COLUMNS}, "
            "with --shortcut, --dataset or --where field=value"
        )
    colour = style.depth_colours(runs["depth"])
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
                    label = means.index[-1], end, f"{depth} layers  {shown}", colour[depth]
                    labels.setdefault(axes, []).append(label)
        _draw_rates(rate, arm, curves, colour)
    for axes in (grid[0, 0], grid[2, 0]):
        style.log_ticks(axes)
    for axes, items in labels.items():  # only now are the limits that columns share final
        style.end_labels(axes, items)
    figure.align_ylabels(grid[:, 0])
    style.heading(figure, f"Recorded curves: {parts.data_names(runs)}", parts.summary(runs))
    style.key(figure, parts.key(runs, "images"))
    return figure


def _draw_rates(axes: Axes, runs: pd.DataFrame, curves: pd.DataFrame, colour: dict[Any, str]) -> None:
    """Draw the learning rate of each depth, or one quiet line where it is the same for all (no warm-up)."""
    rates = {depth: _rate(group, curves) for depth, group in runs.groupby("depth")}
    longest = max(rates.values(), key=lambda rate: max(rate, default=0.0))
    starts = list(longest.items())
    same = all(list(rate.items())[:-1] == starts[: len(rate) - 1] for rate in rates.values() if rate)
    for depth, rate in [(None, longest)] if same else rates.items():
        shown = style.QUIET if depth is None else colour[depth]
        steps, values = np.repeat(list(rate), 2)[1:], np.repeat(list(rate.values()), 2)[:-1]
        axes.plot(steps, values, color=shown, linewidth=1.2)


def _rate(runs: pd.DataFrame, curves: pd.DataFrame) -> dict[float, float]:
    """Return the rate by the step from which it holds; the last step is where the runs end.

    Evaluations may be rarer than changes of the rate. Only the end of a warm-up depends on the run; it is taken from
    the first seed's evaluations.
    """
    spec = runs.iloc[0]
    recorded = curves[curves["run_id"].isin(runs["run_id"])]
    if recorded.empty:
        return {}
    end, drops = float(recorded["step"].max()), sorted(drop * spec["steps"] for drop in spec["drops"])
    rate = {0.0: spec["lr"]}
    if spec["warmup"]:
        own = recorded[recorded["run_id"] == recorded["run_id"].iloc[0]]
        warm = own[own["lr"] < 0.5 * spec["lr"] * 0.1 ** sum((own["step"] > drop).astype(int) for drop in drops)]
        rate = {0.0: own["lr"].iloc[0], float(warm["step"].max()): spec["lr"]} if len(warm) else rate
    rate |= {drop: spec["lr"] * 0.1**number for number, drop in enumerate(drops, 1) if drop < end}
    return rate | {end: list(rate.values())[-1]}
