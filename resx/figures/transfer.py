"""A forest plot: what the shortcut is worth with growing depth, for every kind of network, and trees apart from them.

The depth × skip interaction of He et al. 2016, figs. 1 and 6, as a log10 ratio of training losses: units cancel.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from resx.figures import FIGURES, Frames, style
from resx.spec import SpecError, parse_part
from resx.stats import log10_loss, t_interval

KINDS = {
    "mlp": "MLP",
    "conv1d": "1-D convolutions",
    "rnn": "RNN, in depth",
    "rnn-time": "RNN, in time",
    "transformer": "Transformer",
}
TASKS = {"digits": "digits", "digits-sequence": "digits", "temporal-order": "long range"}
TREES = "boosting of trees"
KEYS = ["kind", "task"]


def labelled(frames: Frames) -> pd.DataFrame:
    """Return the runs with columns kind, task, size (layers; steps for the shortcut in time) and score.

    score: log10 of the final training loss, nan for a run that diverged. Raises SpecError where there is no such run.
    """
    runs = frames["runs"]
    names = runs["dataset"].map(lambda text: parse_part(text)[0])
    runs = runs[runs["family"].isin(KINDS) & names.isin(TASKS)].copy()
    if runs.empty:
        raise SpecError("no recorded run is of these kinds of networks; `resx probe transfer` makes some")
    parts = [parse_part(text) for text in runs["dataset"]]
    runs["kind"] = runs["family"].map(KINDS)
    runs["task"] = [TASKS[name] for name, _ in parts]
    steps = [int(arguments.get("steps", 0)) for _, arguments in parts]
    runs["size"] = np.where(runs["family"] == "rnn-time", steps, runs["depth"])
    runs = runs.sort_values("task", kind="stable").sort_values(
        "family", key=lambda names: names.map(list(KINDS).index), kind="stable"
    )
    runs["score"] = log10_loss(runs["train_loss"].where(runs["status"] == "finished"))
    return runs


def ratios(runs: pd.DataFrame) -> pd.DataFrame:
    """Return log10(plain loss / residual loss), a row per kind, task, size and seed: kind, task, size, seed, ratio."""
    cells = runs.groupby([*KEYS, "size", "seed", "shortcut"], sort=False)["score"].first()
    table = cells.unstack("shortcut").reindex(columns=["none", "identity"])
    return (table["none"] - table["identity"]).rename("ratio").reset_index()


def tree_ratios(measured: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Return log10(bagging's loss / boosting's loss) in the shape of `ratios`; size is the number of trees."""
    seeds = runs.set_index("run_id")["seed"]
    told = measured.assign(seed=measured["run_id"].map(seeds), kind_of=measured["kind"], kind=TREES)
    table = told.pivot_table(index=[*KEYS, "trees", "seed"], columns="kind_of", values="train_loss", sort=False)
    ratio = log10_loss(table["bagging"]) - log10_loss(table["boosting"])
    return pd.DataFrame({"ratio": ratio}, index=table.index).reset_index().rename(columns={"trees": "size"})


def largest(ratio: pd.DataFrame) -> dict[str, pd.Series]:
    """Return, per `kind, task`, the ratio at the greatest size, by seed."""
    return {
        f"{kind}, {task}": group[group["size"] == group["size"].max()].set_index("seed")["ratio"]
        for (kind, task), group in ratio.groupby(KEYS, sort=False)
    }


def interactions(ratio: pd.DataFrame) -> dict[str, pd.Series]:
    """Return, per `kind, task`, the ratio at the greatest size minus that at the smallest, by seed."""
    effects = {}
    for (kind, task), group in ratio.groupby(KEYS, sort=False):
        table = group.pivot(index="seed", columns="size", values="ratio").sort_index(axis=1)
        if table.shape[1] > 1:
            effects[f"{kind}, {task}"] = table.iloc[:, -1] - table.iloc[:, 0]
    return effects


@FIGURES.register("transfer")
def draw(frames: Frames) -> Figure:
    """The shortcut's worth with growing depth for other kinds of networks and for trees (`resx probe transfer`).

    frames: runs and, for the trees, boosting. Left: the ratio at the smallest and the greatest size. Right: their
    difference, the depth × skip interaction, with its interval over seeds.
    """
    runs = labelled(frames)
    tables = [ratios(runs)]
    if "boosting" in frames:
        tables.append(tree_ratios(frames["boosting"], frames["runs"]))
    blocks = [list(interactions(table).items()) for table in tables]
    rows = sum(map(len, blocks)) + len(blocks) - 1
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
        position, names, places = 0, [], []
        for table, block in zip(tables, blocks, strict=True):
            for name, values in block:
                colour = style.OKABE_ITO[1] if name.startswith(TREES) else style.OKABE_ITO[0]
                _draw_sizes(left, table, name, position, colour)
                _draw_interaction(right, values, position, colour)
                names.append(name)
                places.append(position)
                position += 1
            position += 1  # a gap before the trees, which are no networks
        if len(blocks) > 1 and blocks[1]:
            left.axhline(len(blocks[0]), color=style.RULE, linewidth=0.8)
            right.axhline(len(blocks[0]), color=style.RULE, linewidth=0.8)
        left.set_yticks(places, names)
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
            f"Final training losses, plain over residual; right of 0 the shortcut helps. {_seeds(runs)}",
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


def _seeds(runs: pd.DataFrame) -> str:
    count, lost = runs["seed"].nunique(), int((runs["status"] == "diverged").sum())
    text = "One seed, so no interval." if count == 1 else f"{count} seeds."
    return text + (f" Diverged: {lost} of {len(runs)} runs." if lost else "")


def _draw_sizes(axes: Axes, table: pd.DataFrame, name: str, position: int, colour: str) -> None:
    own = table[(table["kind"] + ", " + table["task"]) == name]
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


def _draw_interaction(axes: Axes, values: pd.Series, position: int, colour: str) -> None:
    known = values.dropna()
    if known.empty:
        axes.text(0, position, " diverged", size=6.5, color=style.QUIET, va="center")
        return
    found = t_interval(known.to_numpy())
    if np.isfinite(found.low):
        axes.plot([found.low, found.high], [position] * 2, color=colour, linewidth=1.4)
        axes.plot(known, [position] * len(known), "|", color=colour, markersize=5, alpha=0.6)
    axes.plot(found.mean, position, "s", color=colour, markersize=4.6)
    axes.annotate(
        f"{found.middle}  [{found.interval}]" if np.isfinite(found.low) else found.middle,
        (1.02, position),
        xycoords=axes.get_yaxis_transform(),
        size=6.5,
        va="center",
        color=style.INK,
        annotation_clip=False,
    )
