"""The existence argument carried out: a constructed deep plain network beside those that were trained from scratch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resx.figures import FIGURES, Frames, as_text, parts, style
from resx.spec import SpecError

SHALLOW, CONSTRUCTED, DEEP = "shallow", "constructed", "deep"
QUANTITIES = {"error": "error (%)", "loss": "loss"}
SPLITS = {"train": "training images", "test": "test images"}
HIGHEST_LOSS = 10.0  # in eval mode the loss of the first iterations has no bound; the axis ends here


@FIGURES.register("construct")
def draw(frames: Frames) -> Figure:
    """Training error, training loss and test error of the three arms against iterations, the restart marked.

    frames: runs and curves. Faint: single seeds; full: their mean. Raises SpecError where no network was
    constructed, and where the second halves do not share a rate.
    """
    runs = frames["runs"]
    arm = arms(runs)
    if not (arm == CONSTRUCTED).any():
        raise SpecError("no constructed network is among these runs; `resx probe construct` makes some")
    rates = sorted(runs.loc[arm.notna(), "lr"].unique())
    if len(rates) > 1:
        listed = ", ".join(map(as_text, rates))
        raise SpecError(
            f"second halves started from different rates ({listed}); choose one, such as --where lr={rates[0]}"
        )
    lines = _joined(runs, frames["curves"], arm)
    depth = {
        name: int(runs.loc[arm == name, "depth"].iloc[0])
        for name in (SHALLOW, CONSTRUCTED, DEEP)
        if (arm == name).any()
    }
    words = {name: f"plain-{value}" for name, value in depth.items()} | {CONSTRUCTED: "constructed"}
    colour = dict(zip((SHALLOW, DEEP, CONSTRUCTED), style.OKABE_ITO, strict=False))
    half = int(runs.loc[arm == CONSTRUCTED, "steps"].iloc[0])
    with style.context():
        figure, grid = style.panels(len(QUANTITIES), len(SPLITS), 1.5)
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
        for axes, split in zip(grid[0], SPLITS, strict=True):
            axes.set_title(SPLITS[split])
        for axes in grid[-1]:
            style.count_iterations(axes)
        figure.align_ylabels(grid[:, 0])
        chosen = runs[arm.notna()]
        seeds = chosen["seed"].nunique()
        style.heading(
            figure,
            f"A deep plain network built from a shallow one: {parts.data_label(chosen)}",
            f"{'Mean of ' if seeds > 1 else ''}{seeds} seed{'s' if seeds > 1 else ''}. Every arm is two runs of {half} "
            "iterations; at the line the rate restarts and identities are inserted.",
        )
        marks = [parts.handle("mean", linewidth=1.8), parts.handle("single seeds", linewidth=0.6, alpha=0.6)]
        style.key(figure, marks)
    return figure


def arms(runs: pd.DataFrame) -> pd.Series:
    """Return which arm's second half each run is: constructed, shallow, deep; None for all others.

    A network is constructed where its weights came from `deepen`. The others began with the weights of the same
    network: shallow where that is a constructed network's parent, deep where it is as deep as a constructed one.
    """
    origin = {
        run_id: start for run_id, start in zip(runs["run_id"], runs["init_from"], strict=True) if start is not None
    }
    built = {run_id: start.run for run_id, start in origin.items() if start.transform == "deepen"}
    depths = set(runs.loc[runs["run_id"].isin(built), "depth"])

    def name(run_id: str, depth: int) -> str | None:
        if run_id in built:
            return CONSTRUCTED
        if run_id not in origin or origin[run_id].transform != "same":
            return None
        if origin[run_id].run in built.values():
            return SHALLOW
        return DEEP if depth in depths else None

    found = [name(run_id, depth) for run_id, depth in zip(runs["run_id"], runs["depth"], strict=True)]
    return pd.Series(found, index=runs.index, dtype=object)


def _joined(runs: pd.DataFrame, curves: pd.DataFrame, arm: pd.Series) -> pd.DataFrame:
    """Return the curves of both halves of each arm as one: rows (arm, run_id, step, …), run_id being the second's."""
    parts = []
    for (_, run), name in zip(runs.iterrows(), arm, strict=True):
        if name is not None:
            first = curves[curves["run_id"] == run["init_from"].run]
            second = curves[curves["run_id"] == run["run_id"]]
            second = second.assign(step=second["step"] + run["steps"])
            parts.append(pd.concat([first, second]).assign(arm=name, run_id=run["run_id"]))
    return pd.concat(parts, ignore_index=True)


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
    style.end_labels(axes, labels)
