"""Gradient by path length: the exact share, the sampled estimate of Veit et al. and all paths (their Fig. 6)."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resx.figures import FIGURES, parts, style
from resx.probes import Findings

EXACT, SAMPLED, ALL = style.OKABE_ITO[0], style.OKABE_ITO[1], style.QUIET
PHASES = {"initial": "at initialisation", "trained": "after training"}


@FIGURES.register("paths")
def draw(findings: Findings) -> Figure:
    """Share of the gradient by path length, a row for each phase, a column per network.

    Bold: mean exact share over seeds, faint: single seeds; thin dashed: the sampled estimate; grey bars: the share of
    all paths that have this length.
    """
    shares, means = findings.tables["shares"], findings.tables["means"]
    networks = list(means[["kind", "depth"]].drop_duplicates().sort_values(["kind", "depth"]).itertuples(index=False))
    figure, grid = style.panels(len(PHASES), len(networks), 1.5)
    for column, (kind, depth) in zip(grid.T, networks, strict=True):
        column[0].set_title(f"{kind}-{depth}")
        column[-1].set_xlabel("blocks in a path")
        for axes, phase in zip(column, PHASES, strict=True):
            for mean in _of(means, kind, depth, phase).to_dict("records"):  # none where every run diverged
                _draw(axes, _of(shares, kind, depth, phase))
                text = f"half {mean['half']:.1f} of {mean['n']}\nΣ‖g‖/‖Σg‖ = {mean['cancellation']:.1f}"
                look: dict[str, Any] = {"va": "top", "size": 7.5, "color": style.QUIET, "linespacing": 1.5}
                axes.text(1.03, 0.97, text, transform=axes.transAxes, **look)
    for axes, phase in zip(grid[:, 0], PHASES.values(), strict=True):
        axes.set_ylabel(f"share, {phase}")
    style.heading(
        figure,
        f"The gradient by path length: {parts.data_label(findings.frames['runs'])}",
        f"{parts.seed_words(shares['seed'].nunique())}. half: where the cumulative share crosses 1/2. "
        "Σ‖g‖/‖Σg‖: cancellation.",
    )
    marks = [
        parts.handle("share of the gradient, exact", color=EXACT, linewidth=1.8),
        parts.handle("sampled estimate (Veit et al.)", color=SAMPLED, linewidth=1.0, linestyle=style.DASHED),
        parts.handle("share of all paths", color=ALL, linewidth=5, alpha=0.3),
    ]
    style.key(figure, marks)
    return figure


def _of(table: pd.DataFrame, kind: str, depth: int, phase: str) -> pd.DataFrame:
    return table[(table["kind"] == kind) & (table["depth"] == depth) & (table["phase"] == phase)]


def _draw(axes: Axes, rows: pd.DataFrame) -> None:
    means = rows.groupby("length")[["share", "sampled", "binomial"]].mean()
    axes.bar(means.index, means["binomial"], width=0.8, color=ALL, alpha=0.25)
    for _, run in rows.groupby("seed") if rows["seed"].nunique() > 1 else []:
        axes.plot(run["length"], run["share"], color=EXACT, linewidth=0.6, alpha=0.4)
    axes.plot(means.index, means["sampled"], color=SAMPLED, linewidth=1.0, linestyle=style.DASHED)
    axes.plot(means.index, means["share"], color=EXACT, linewidth=1.8)
