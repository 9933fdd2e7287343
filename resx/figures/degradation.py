"""Training and test error against iterations, plain and residual (He et al. 2016, Figs. 1 and 6).

As there, thin dashed lines are training errors, bold ones test errors, and the axis ends shortly above the final
errors, so the first iterations leave it.
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from resx import paper
from resx.figures import FIGURES, parts, refuse_mixed, style
from resx.probes import Findings
from resx.probes.tidy import kind_name
from resx.spec import FIELDS
from resx.store.select import as_text

TOPS = (1, 2, 5, 10, 15, 20, 25, 30, 40, 50, 60, 70, 80, 100)  # where an axis of errors (%) may end
ARM = ("shortcut", "adapter", "order", "norm", "width", "widths")  # fields that give a panel of its own
# fields that may depend on the network: very deep ones need a warm-up, and a shortcut of one's own is a plugin's
OF_NETWORK = ("warmup", "stride_in", "plugin")
COLUMNS = 3


@FIGURES.register("degradation")
def draw(findings: Findings) -> Figure:
    """Plain and residual networks: training and test error against iterations (the paper's Fig. 1 and Fig. 6).

    One panel per kind of network, one colour per depth, a faint line per seed and a full one for their mean; where the
    runs may be compared with the paper's, its final test errors at the right edge. Raises SpecError where the runs do
    not share one recipe.
    """
    runs, curves = findings.frames["runs"], findings.frames["curves"]
    arms = parts.split(runs, ARM)
    _check_one_recipe(runs)
    rows = math.ceil(len(arms) / COLUMNS)
    colour = style.depth_colours(runs["depth"])
    figure, grid = style.panels(rows, math.ceil(len(arms) / rows), 1.85, titled=True)
    first = grid[0, 0]
    for axes in grid.flat[len(arms) :]:
        axes.set_axis_off()
    first.set_ylim(0, _top(runs, curves))
    first.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    published: dict[str, Line2D] = {}
    for axes, (name, arm) in zip(grid.flat, arms.items(), strict=False):
        axes.set_title(name)
        _draw_arm(axes, arm, curves, colour)
        published |= _draw_published(axes, arm, colour)
    for axes in grid[:, 0]:
        axes.set_ylabel("error (%)")
    style.heading(figure, f"Error against iterations: {parts.data_names(runs)}", parts.summary(runs))
    style.key(figure, parts.key(runs, "error"), list(published.values()))
    return figure


def _check_one_recipe(runs: pd.DataFrame) -> None:
    """Raise SpecError where runs differ in more than the network and the seed."""
    texts = runs[[field for field in FIELDS if field not in (*ARM, "depth", "seed")]].map(as_text)
    counts = texts.nunique()
    counts.update(texts[list(OF_NETWORK)].groupby(_network(runs)).nunique().max())
    refuse_mixed(texts, counts)


def _network(runs: pd.DataFrame) -> pd.Series:
    return runs[[*ARM, "depth"]].map(as_text).agg(" ".join, axis=1)


def _top(runs: pd.DataFrame, curves: pd.DataFrame) -> float:
    """Return where the axis ends: a round value above the mean final errors of every network."""
    alive = runs[runs["status"] != "diverged"]
    if alive.empty:
        return TOPS[-1]
    rows = curves[curves["run_id"].isin(alive["run_id"])].sort_values("step")
    finals = rows.groupby("run_id")[["train_error", "test_error"]].last().max(axis=1)  # last: the last measured
    worst = finals.groupby(_network(alive.set_index("run_id"))).mean().max()
    return next((top for top in TOPS if top >= 1.3 * worst), TOPS[-1])


def _draw_arm(axes: Axes, runs: pd.DataFrame, curves: pd.DataFrame, colour: dict[Any, str]) -> None:
    steps = int(runs["steps"].iloc[0])
    axes.set_xlim(0, steps)
    style.count_iterations(axes)
    style.mark_drops(axes, [drop * steps for drop in runs["drops"].iloc[0]])
    labels = []
    for depth, group in runs.groupby("depth"):
        means = parts.draw_network(axes, group, curves, "error", colour[depth])
        if not means.empty:
            end = means.iloc[-1]
            labels.append((means.index[-1], end, f"{depth} layers  {parts.percent(end)}", colour[depth]))
        elif (group["status"] == "diverged").all():
            labels.append((steps, axes.get_ylim()[1], f"{depth} layers  diverged", colour[depth]))
    style.end_labels(axes, labels)


def _draw_published(axes: Axes, runs: pd.DataFrame, colour: dict[Any, str]) -> dict[str, Line2D]:
    """Mark the paper's final test errors at the right edge, where these networks are the paper's.

    Returns an entry of the key for each source. A value above the axis is left out.
    """
    arm = runs[list(ARM)].iloc[0].map(as_text)
    same = (
        (runs["reference"] == "cifar10").all()
        and arm["adapter"] in ("null", "subsample+pad")  # option A
        and (arm["order"], arm["norm"], arm["width"], arm["widths"]) == ("post", "batch", "16", "null")
    )
    handles = {}
    for depth in runs["depth"].unique() if same else []:
        number = paper.CIFAR_TEST_ERROR.get((kind_name(arm["shortcut"]), int(depth)))
        if number is None or number.value > axes.get_ylim()[1]:
            continue
        look: dict[str, Any] = {"marker": "<" if number.read_off else "D", "markersize": 4.2, "linestyle": ""}
        look |= {"markerfacecolor": "white", "clip_on": False, "zorder": 5}
        axes.plot(runs["steps"].iloc[0], number.value, color=colour[depth], **look)
        read_off = ", read off the curve" if number.read_off else ""
        handles[number.source] = parts.handle(f"{number.source}{read_off}: the paper's own test error", **look)
    return handles
