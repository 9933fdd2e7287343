"""What figures of curves share: runs split into panels, a network's seeds as lines, the words for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from resx.figures import as_text, style
from resx.probes.tidy import kind_name


def split(runs: pd.DataFrame, fields: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Return the runs by kind of network, plain ones first; fields[0] is the shortcut.

    Of the other fields a name tells those that differ between runs with the same shortcut.
    """
    texts = runs[list(fields)].map(as_text)
    names = {}
    for shortcut, group in texts.groupby(fields[0]):
        differing = [field for field in fields[1:] if group[field].nunique() > 1]
        for values, rows in group.groupby(differing) if differing else [((), group)]:
            told = [f"{field} {value}" for field, value in zip(differing, values, strict=True)]
            names[", ".join([kind_name(str(shortcut)), *told])] = runs.loc[rows.index]
    rank = {"plain": 0, "residual": 1}
    return dict(sorted(names.items(), key=lambda item: rank.get(item[0].partition(",")[0], 2)))


def draw_network(axes: Axes, runs: pd.DataFrame, curves: pd.DataFrame, quantity: str, colour: str) -> pd.Series:
    """Draw the training and the test curves of one network's seeds; return the test means by step.

    quantity: error or loss.
    """
    diverged = runs.loc[runs["status"] == "diverged", "run_id"]
    rows = curves[curves["run_id"].isin(runs["run_id"])]
    means = pd.Series(dtype=float)
    for split_name, dashed in (("train", True), ("test", False)):
        column = f"{split_name}_{quantity}"
        table = rows.dropna(subset=[column]).pivot(index="step", columns="run_id", values=column)
        means = style.seed_lines(axes, table.sort_index(), diverged, colour, dashed=dashed)
    return means


def percent(value: float) -> str:
    """Write an error (%) with two decimals, or with one from 10 % on."""
    return f"{value:.1f} %" if value >= 10 else f"{value:.2f} %"


def data_label(runs: pd.DataFrame) -> str:
    """Return the data sets' names for people; runs that have no result yet know only the short name."""
    names = runs["data_label"].fillna(runs["label"]).fillna(runs["dataset"])
    known = names.groupby([runs["dataset"], runs["label"].map(as_text)]).agg(lambda name: name.mode().iloc[0])
    return ", ".join(known)


def seed_words(seeds: int) -> str:
    """Say what a line is: the mean of so many seeds, or a single one."""
    return f"Mean of {seeds} seeds" if seeds > 1 else "One seed"


def summary(runs: pd.DataFrame) -> str:
    """Return what is needed to read the lines: number of seeds, runs that did not finish, kind of error."""
    counts = runs.groupby(["shortcut", "depth"])["seed"].nunique()
    low, high = counts.min(), counts.max()
    seeds = f"{low} to {high} seeds" if low < high else f"{high} seeds"
    mean = f"Mean of {seeds}" if high > 1 else "One seed"
    status = runs["status"].value_counts()
    others = [f"{status[word]} {word}" for word in ("diverged", "unfinished") if word in status]
    missing = f"; of {len(runs)} runs {' and '.join(others)}" if others else ""
    missing += " (not in the mean)" if "diverged" in status and high > 1 else ""
    return f"{mean}{missing}. Training curves in eval mode on un-augmented images."


def key(runs: pd.DataFrame, quantity: str) -> list[Line2D]:
    """Return what the lines mean: bold and dashed ones, and, where there are such, faint ones and crosses."""
    handles = [
        handle(f"test {quantity}", linewidth=1.8),
        handle(f"training {quantity}", linewidth=1.0, linestyle=style.DASHED),
    ]
    if runs["seed"].nunique() > 1:
        handles.append(handle("single seeds", linewidth=0.6, alpha=0.6))
    if (runs["status"] == "diverged").any():
        handles.append(handle("diverged", linestyle="", marker="x", markersize=5, markeredgewidth=1.4))
    return handles


def handle(label: str, **look: Any) -> Line2D:
    """Return an entry of a figure's key."""
    return Line2D([], [], label=label, color=style.QUIET, **look)
