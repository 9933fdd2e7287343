"""Gradient by path length: the exact share, beside the sampled estimate of Veit et al. and all paths (their Fig. 6)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resx.figures import FIGURES, Frames, parts, style

EXACT, SAMPLED, ALL = style.OKABE_ITO[0], style.OKABE_ITO[1], style.QUIET
PHASES = ("at initialisation", "after training")


@FIGURES.register("paths")
def draw(frames: Frames) -> Figure:
    """Share of the gradient by path length, a row for each phase, a column per network.

    frames: runs and paths. Bold: mean exact share over seeds, faint: single seeds; thin dashed: the sampled estimate;
    grey bars: the share of all paths that have this length.
    """
    runs = frames["runs"].assign(kind=frames["runs"]["shortcut"].map(parts.kind_name))
    rows = frames["paths"].merge(runs[["run_id", "kind", "depth", "seed"]], on="run_id")
    networks = list(rows.groupby(["kind", "depth"]))
    with style.context():
        figure, grid = style.panels(len(PHASES), len(networks), 1.5)
        for column, ((kind, depth), group) in zip(grid.T, networks, strict=True):
            column[0].set_title(f"{kind}-{depth}")
            column[-1].set_xlabel("blocks in a path")
            last = group.groupby("run_id")["step"].transform("max")
            chosen = (group[group["step"] == 0], group[(group["step"] == last) & (last > 0)])
            for axes, part in zip(column, chosen, strict=True):
                if not part.empty:
                    _draw(axes, part)
        for axes, phase in zip(grid[:, 0], PHASES, strict=True):
            axes.set_ylabel(f"share, {phase}")
        seeds = runs.loc[runs["run_id"].isin(rows["run_id"]), "seed"].nunique()
        style.heading(
            figure,
            f"The gradient by path length: {parts.data_label(runs[runs['run_id'].isin(rows['run_id'])])}",
            f"{'Mean of ' if seeds > 1 else ''}{seeds} seed{'s' if seeds > 1 else ''}. "
            "half: the length from which the cumulative share stays above 1/2. Σ‖g‖/‖Σg‖: cancellation.",
        )
        marks = [
            parts.handle("share of the gradient, exact", linewidth=1.8),
            parts.handle("sampled estimate (Veit et al.)", linewidth=1.0, linestyle=style.DASHED),
            parts.handle("share of all paths", linewidth=5, alpha=0.3),
        ]
        for mark, colour in zip(marks, (EXACT, SAMPLED, ALL), strict=True):
            mark.set_color(colour)
        style.key(figure, marks)
    return figure


def _draw(axes: Axes, rows: pd.DataFrame) -> None:
    means = rows.groupby("length")[["share", "sampled", "binomial"]].mean()
    axes.bar(means.index, means["binomial"], width=0.8, color=ALL, alpha=0.25)
    if rows["run_id"].nunique() > 1:
        for run_id, run in rows.groupby("run_id"):
            axes.plot(run["length"], run["share"], color=EXACT, linewidth=0.6, alpha=0.4, gid=str(run_id))
    axes.plot(means.index, means["sampled"], color=SAMPLED, linewidth=1.0, linestyle=style.DASHED)
    axes.plot(means.index, means["share"], color=EXACT, linewidth=1.8)
    halves, cancellations = zip(*(_summary(run) for _, run in rows.groupby("run_id")), strict=True)
    text = f"half {np.mean(halves):.1f} of {len(means) - 1}\nΣ‖g‖/‖Σg‖ = {np.mean(cancellations):.1f}"
    axes.text(1.03, 0.97, text, transform=axes.transAxes, va="top", size=7.5, color=style.QUIET, linespacing=1.5)


def _summary(run: pd.DataFrame) -> tuple[int, float]:
    """Return a run's half-length and cancellation."""
    run = run.sort_values("length")
    below = np.flatnonzero(run["share"].cumsum().to_numpy() <= 0.5)
    return int(below[-1]) + 1 if len(below) else 0, float(run["gradient"].sum() / run["whole"].iloc[0])
