"""Lesions: test error without some blocks, or with blocks exchanged (Veit et al. 2016, Figs. 3 and 5)."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resx.figures import FIGURES, parts, style
from resx.probes import Findings

TITLES = {"remove": "one block removed", "random": "random blocks removed", "permute": "blocks exchanged"}
XLABELS = {"remove": "block, first to last (0–1)", "random": "blocks removed", "permute": "exchanges within stages"}
ROWS = ("running", "re-estimated")  # statistics of batch normalisation
INTACT = (0, (1, 1.5))  # dots of the line of a network without a lesion


@FIGURES.register("lesions")
def draw(findings: Findings) -> Figure:
    """Test error after lesions: a column per kind of lesion, a row per kind of statistics; one colour per network.

    Faint: single seeds; full: their mean; dotted: the networks as they were trained. The errors of ensembles, where
    they were measured, stand in the key.
    """
    rows, runs = findings.tables["points"], findings.frames["runs"]
    networks = rows[["network", "kind", "depth"]].drop_duplicates()
    networks = networks.assign(other=networks["kind"] != "plain").sort_values(["other", "kind", "depth"])
    colour = style.colours(list(networks["network"]))
    figure, grid = style.panels(len(ROWS), len(TITLES), 1.6)
    for axes_row, statistics in zip(grid, ROWS, strict=True):
        axes_row[0].set_ylabel(f"test error (%), {statistics}")
        own = rows[rows["statistics"] == statistics]
        for axes, lesion in zip(axes_row, TITLES, strict=True):
            _draw_lesion(axes, own, lesion, colour)
    for column, lesion in zip(grid.T, TITLES, strict=True):
        column[0].set_title(TITLES[lesion])
        column[-1].set_xlabel(XLABELS[lesion])
    style.heading(
        figure,
        f"Lesions: {parts.data_label(runs)}",
        f"{parts.seed_words(rows['seed'].nunique())}. "
        "A removed block is replaced by its shortcut, in a plain network by x. Batch normalisation: running "
        "statistics of training, or re-estimated.",
    )
    style.key(
        figure,
        [*parts.seed_key(), parts.handle("intact network", linewidth=0.8, linestyle=INTACT)],
        [parts.handle(words, linewidth=0) for words in _ensembles(findings.tables["controls"])],
    )
    return figure


def _draw_lesion(axes: Axes, rows: pd.DataFrame, lesion: str, colour: Mapping[str, str]) -> None:
    axes.set_ylim(0, 100)
    labels = []
    for network, group in rows.groupby("network", sort=False):
        look = colour[str(network)]
        group = group.assign(x=_positions(group, lesion))
        table = group[group["lesion"] == lesion].pivot_table(index="x", columns="run_id", values="error")
        if table.empty:
            continue
        intact = group.loc[group["lesion"] == "none", "error"].mean()
        axes.axhline(intact, color=look, linewidth=0.8, linestyle=INTACT)
        mean = style.seed_lines(axes, table, [], look)
        axes.plot(mean.index, mean, "o", color=look, markersize=2.2 if lesion == "remove" else 3.5)
        labels.append((float(mean.index[-1]), float(mean.iloc[-1]), str(network), look))
    if lesion == "remove":
        axes.set_xlim(-0.02, 1.02)
        labels = [(1.02, y, text, look) for _, y, text, look in labels]
    elif labels:
        style.count_blocks(axes, rows.loc[rows["lesion"] == lesion, "count"])
    style.end_labels(axes, labels)


def _positions(rows: pd.DataFrame, lesion: str) -> pd.Series:
    """Return where a row stands: the relative place of the removed block, or the number of blocks."""
    if lesion != "remove":
        return rows["count"]
    names = sorted(rows.loc[rows["lesion"] == "remove", "blocks"].unique(), key=_place)
    return rows["blocks"].map({name: place / max(len(names) - 1, 1) for place, name in enumerate(names)})


def _place(name: str) -> list[int]:
    return [int(part) for part in name.split(".")[1:]]


def _ensembles(controls: pd.DataFrame) -> list[str]:
    """Return the mean test error of each ensemble in words."""
    rows = controls[controls["control"].str.startswith("ensemble")].to_dict("records")
    return [f"{row['control']} layers: {parts.percent(row['test_error'])}" for row in rows]
