"""What figures share: runs split into panels, a network's seeds as lines, rows of a forest plot, the words for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from resx.figures import by_number, style
from resx.probes.tidy import kind_name
from resx.stats import Estimate
from resx.store.select import as_text

FOREST_ROW = 0.165  # inches
WITHOUT_OUTCOME = ("unfinished", "damaged")  # statuses of runs that are not judged
FAR = 4  # times the difference that four of five rows stay within: a mean beyond is written at the edge, not drawn
# a row of a forest plot: values by seed (nan where a run diverged), their mean with its interval, colour; None is a gap
ForestRow = tuple[pd.Series, Estimate, str] | None


def split(runs: pd.DataFrame, fields: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Return the runs by kind of network, plain ones first; fields[0] is the shortcut.

    Of the other fields a name tells those that differ between runs with the same shortcut.
    """
    texts = runs[list(fields)].map(as_text)
    names = {}
    for shortcut, group in texts.groupby(fields[0]):
        differing = [field for field in fields[1:] if group[field].nunique() > 1]
        for values, rows in group.groupby(differing) if differing else [((), group)]:
            values_named = [f"{field} {value}" for field, value in zip(differing, values, strict=True)]
            names[", ".join([kind_name(str(shortcut)), *values_named])] = runs.loc[rows.index]
    rank = {"plain": 0, "residual": 1}
    return dict(sorted(names.items(), key=lambda item: (rank.get(item[0].partition(",")[0], 2), by_number(item[0]))))


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
    """Return the data sets' names for people, with how many runs are not judged since they have no outcome."""
    missing = _counts(runs, WITHOUT_OUTCOME)
    return data_names(runs) + (f" (left out: {missing})" if missing else "")


def data_names(runs: pd.DataFrame) -> str:
    """Return the data sets' names for people; the short name where no result says the long one yet."""
    names = runs["data_label"].fillna(runs["label"]).fillna(runs["dataset"])
    by_data = names.groupby([runs["dataset"], runs["label"].map(as_text)]).agg(lambda name: name.mode().iloc[0])
    return ", ".join(by_data)


def seed_words(*seeds: int) -> str:
    """Say how many seeds a line is the mean of, from the number of seeds of every line."""
    low, high = min(seeds), max(seeds)
    if high == 1:
        return "One seed"
    return f"Mean of {low} to {high} seeds" if low < high else f"Mean of {high} seeds"


def summary(runs: pd.DataFrame) -> str:
    """Return what is needed to read the lines: number of seeds, runs that did not finish, kind of error."""
    counts = runs.groupby(["shortcut", "depth"])["seed"].nunique()
    others = _counts(runs, ("diverged", *WITHOUT_OUTCOME))
    missing = f"; of {len(runs)} runs {others}" if others else ""
    missing += " (not in the mean)" if "diverged" in others and counts.max() > 1 else ""
    return f"{seed_words(*counts)}{missing}. Training curves in eval mode on un-augmented images."


def _counts(runs: pd.DataFrame, words: Sequence[str]) -> str:
    """Return how many runs have each of these statuses, such as '2 diverged and 1 unfinished', or nothing."""
    status = runs["status"].value_counts()
    return " and ".join(f"{status[word]} {word}" for word in words if word in status)


def key(runs: pd.DataFrame, quantity: str) -> list[Line2D]:
    """Return what the lines mean: bold and dashed ones, and, where there are such, faint ones and crosses."""
    handles = [
        handle(f"test {quantity}", linewidth=1.8),
        handle(f"training {quantity}", linewidth=1.0, linestyle=style.DASHED),
    ]
    if runs["seed"].nunique() > 1:
        handles.append(seed_key()[1])
    if (runs["status"] == "diverged").any():
        handles.append(handle("diverged", linestyle="", marker="x", markersize=5, markeredgewidth=1.4))
    return handles


def seed_key() -> list[Line2D]:
    """Return the marks of a mean and of the seeds that it is over."""
    return [handle("mean", linewidth=1.8), handle("single seeds", linewidth=0.6, alpha=0.6)]


def depth_key(colour: Mapping[Any, str]) -> list[Line2D]:
    """Return the marks of depths by their colour."""
    return [handle(f"{depth} layers", color=shade, linewidth=1.8) for depth, shade in colour.items()]


def handle(label: str, **look: Any) -> Line2D:
    """Return an entry of a figure's key, quiet unless `look` has a colour."""
    return Line2D([], [], label=label, **{"color": style.QUIET, **look})


def forest(axes: Axes, rows: Sequence[ForestRow]) -> None:
    """Draw rows of differences, the first at the top: a diamond at the mean on its interval, a dot for each seed.

    A cross at the right edge stands for runs that diverged.
    """
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.axvline(0, color=style.INK, linewidth=0.8)
    low, high = _limits(rows)
    axes.set_xlim(low, high)
    edge = axes.get_yaxis_transform()
    for place, row in enumerate(rows):
        if row is None:
            continue
        values, estimate, colour = row
        own = values.dropna()
        if len(own) < len(values) or own.empty:
            axes.plot(0.98, place, "x", transform=edge, markersize=4, color=colour)
        if low <= estimate.mean <= high:
            if len(own) > 1:
                axes.plot([estimate.low, estimate.high], [place] * 2, color=colour, linewidth=1.4)
                dot: dict[str, Any] = {"color": colour, "markersize": 2.4, "alpha": 0.6, "markeredgewidth": 0}
                axes.plot(own, [place + 0.3] * len(own), "o", **dot)
            axes.plot(estimate.mean, place, "D", color=colour, markersize=3.6)
        elif len(own):
            mean = f"{estimate.mean:+.2g}"
            side, align, text = (0.95, "right", f"{mean} →") if estimate.mean > high else (0.01, "left", f"← {mean}")
            axes.text(side, place, text, transform=edge, size=6.5, ha=align, va="center", color=colour)


def _limits(rows: Sequence[ForestRow]) -> tuple[float, float]:
    """Return limits that show all of most rows."""
    drawn = [row for row in rows if row and np.isfinite(row[1].mean)]
    means = np.abs([estimate.mean for _, estimate, _ in drawn] or [0.0])
    ends = [0.0]
    for (values, estimate, _), mean in zip(drawn, means, strict=False):
        if mean <= FAR * np.quantile(means, 0.8):
            ends += [end for end in (*values.dropna(), estimate.mean, estimate.low, estimate.high) if np.isfinite(end)]
    margin = 0.05 * (max(ends) - min(ends) or 1.0)
    return min(ends) - margin, max(ends) + margin


def forest_key(seeds: int, *, diverged: bool) -> list[Line2D]:
    """Return what the marks of a forest plot mean."""
    handles = [handle("mean", linestyle="", marker="D", markersize=4)]
    if seeds > 1:
        dot = handle("one seed", linestyle="", marker="o", markersize=3, alpha=0.6)
        handles = [handle("mean and 95 % interval", marker="D", markersize=4, linewidth=1.4), dot]
    if diverged:
        handles.append(handle("diverged", linestyle="", marker="x", markersize=5))
    return handles


def name_rows(axes: Axes, names: Sequence[str], colours: Sequence[str], **look: Any) -> None:
    """Write names at the rows of a forest plot, each in its colour."""
    axes.set_yticks(range(len(names)), names, **look)
    for label, colour in zip(axes.get_yticklabels(), colours, strict=True):
        label.set_color(colour)
