"""Shortcut functions next to each other: how each trains compared with the identity, and what its spectrum predicts."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from resx.figures import FIGURES, parts, style
from resx.probes import Findings
from resx.probes.shortcuts import CELL, KINDS, ORDERS, PREDICTORS, ShortcutsSettings
from resx.probes.tidy import OUTCOMES, estimate
from resx.spec import SpecError

KIND_NAMES = {"fixed": "fixed map", "noisy": "dropout", "fitted": "fitted map"}
COLOURS = style.colours(KINDS)
# inches: left of a panel, for the functions' names; right of it, for the published errors or for nothing
NAMES, ERRORS, EDGE = 1.65, 0.85, 0.1


@FIGURES.register("shortcuts")
def draw(findings: Findings) -> Figure:
    """Every shortcut function against the identity: paired differences in the outcome that is judged, with intervals.

    A panel for each depth and order of the block; functions are sorted within a depth. To the right, in the original
    order, the test errors of Identity Mappings' table 1.
    """
    settings, ranking = findings.settings, findings.tables["ranking"]
    assert isinstance(settings, ShortcutsSettings)
    others = ranking[ranking["shortcut"] != "identity"]
    kinds = dict(zip(others["shortcut"], others["kind"], strict=True))
    errors = dict(iter(findings.tables["errors"].groupby(CELL)))
    depths, orders = sorted(ranking["depth"].unique()), list(ranking["order"].unique())
    sorted_names = {depth: list(others.loc[others["depth"] == depth, "shortcut"].unique()) for depth in depths}
    height = parts.FOREST_ROW * max(map(len, sorted_names.values())) + 0.1
    figure, grid = style.panels(len(depths), len(orders), height, free=True)
    _make_room(figure, grid, _names_room(others["shortcut"]), ERRORS, 0.08)
    for depth, row in zip(depths, grid, strict=True):
        for order, axes in zip(orders, row, strict=True):
            axes.set_title(_title(order, depth, depths))
            cell = others[(others["depth"] == depth) & (others["order"] == order)].set_index("shortcut")
            _draw_cell(axes, sorted_names[depth], cell, findings.tables["outcomes"])
            if order == "post":
                _write_published(axes, sorted_names[depth], errors[order, depth])
        parts.name_rows(row[0], sorted_names[depth], [COLOURS[kinds[name]] for name in sorted_names[depth]])
    functions = [name for name in others["shortcut"].unique() if name != "none"]
    title = functions[0] if len(functions) == 1 else "Other shortcut functions"
    style.heading(
        figure,
        f"{title} against the identity: {_data(findings)}",
        f"Difference in {OUTCOMES[settings.primary].replace('(%)', '(points)')}, paired by seed; right of 0: worse "
        f"than the identity. {parts.seed_words(ranking['seeds'].max())}.",
    )
    marks = parts.forest_key(ranking["seeds"].max(), diverged=bool(ranking["diverged"].any()))
    style.key(figure, marks, _kind_key(others["kind"].unique()))
    return figure


def _title(order: str, depth: int, depths: Collection[int]) -> str:
    return ORDERS[order] + (f", {depth} layers" if len(depths) > 1 else "")


def _data(findings: Findings) -> str:
    """Return the data and the depths for a heading."""
    depths = sorted(findings.tables["ranking"]["depth"].unique())
    return f"{parts.data_label(findings.frames['runs'])}, {' and '.join(map(str, depths))} layers"


def _names_room(names: Iterable[str]) -> float:
    """Return the inches that names need to the left of a panel, NAMES or more."""
    return max(NAMES, *(style.inches(Text(text=name, size=7.5)) + 0.12 for name in set(names)))


def _make_room(figure: Figure, grid: Any, left: float, right: float, between: float) -> None:
    """Place the panels; left, right: inches next to them, between: as a share of a panel's width."""
    wide = figure.get_figwidth()
    cells = grid[0, 0].get_subplotspec().get_gridspec()
    cells.update(left=left / wide, right=1 - right / wide, wspace=between)
    for axes in grid.flat:
        axes.set_position(axes.get_subplotspec().get_position(figure))


def _draw_cell(axes: Axes, names: list[str], cell: pd.DataFrame, outcomes: pd.DataFrame) -> None:
    """Draw one order at one depth; a function that it does not have leaves an empty row."""
    rows: dict[str, parts.ForestRow] = {}
    for name, row in cell.iterrows():
        own = outcomes[(outcomes[CELL] == row[CELL].to_numpy()).all(axis=1) & (outcomes["shortcut"] == name)]
        rows[str(name)] = own["difference"], estimate(row, "difference"), COLOURS[row["kind"]]
    parts.forest(axes, [rows.get(name) for name in names])
    axes.set_yticks([])
    axes.set_xlabel("difference from the identity")


def _write_published(axes: Axes, names: list[str], errors: pd.DataFrame) -> None:
    published = errors.set_index("shortcut")["table_1"].dropna()
    if published.drop("identity", errors="ignore").empty:
        return
    place = axes.get_yaxis_transform()
    text = f"2016b, table 1\n(CIFAR-10, 110):\nidentity {published['identity']}"
    axes.text(1.02, -0.6, text, transform=place, size=6, color=style.QUIET)
    for row, name in enumerate(names):
        axes.text(1.02, row, published.get(name, ""), transform=place, size=7, va="center", color=style.INK)


def _kind_key(kinds: Collection[str]) -> list[Line2D]:
    look: dict[str, Any] = {"linestyle": "", "marker": "s", "markersize": 4}
    used = [kind for kind in KINDS if kind in kinds and kind != "other"]
    return [parts.handle(KIND_NAMES.get(kind, kind), color=COLOURS[kind], **look) for kind in used]


@FIGURES.register("shortcut-spectrum")
def draw_spectrum(findings: Findings) -> Figure:
    """Functions ranked by the outcome that is judged, each with what the spectrum of its shortcut path predicts.

    A row per function, means over seeds, a panel for each depth and order: a dot for the distance from an isometry at
    initialisation, a ring for |log10 gain|; Spearman's correlations below. Raises SpecError without measured spectra.
    """
    settings = findings.settings
    assert isinstance(settings, ShortcutsSettings)
    if "spectra" not in findings.tables:
        raise SpecError("shortcut-spectrum: no spectrum is recorded; `resx probe shortcuts` measures them")
    ranking = findings.tables["ranking"].dropna(subset="difference")
    table = ranking[[*CELL, "shortcut"]].merge(findings.tables["spectra"], on=[*CELL, "shortcut"])
    rho = findings.tables["correlations"].groupby([*CELL, "predictor"])["rho"].mean()
    depths, orders = sorted(table["depth"].unique()), list(table["order"].unique())
    ranked = dict(iter(table.groupby(CELL)))
    height = parts.FOREST_ROW * max(map(len, ranked.values())) + 0.1
    figure, grid = style.panels(len(depths), len(orders), height, free=True)
    names = _names_room(table["shortcut"])
    between = names * len(orders) / (figure.get_figwidth() - names * len(orders) - EDGE)
    _make_room(figure, grid, names, EDGE, between)
    for depth, row in zip(depths, grid, strict=True):
        for order, axes in zip(orders, row, strict=True):
            axes.set_title(_title(order, depth, depths))
            if (order, depth) in ranked:
                shown = {column: rho.get((order, depth, name)) for column, name in PREDICTORS.items()}
                _draw_predictors(axes, ranked[order, depth], shown)
    style.heading(
        figure,
        f"Does the spectrum of the shortcuts predict training? {_data(findings)}",
        f"Ranked by {OUTCOMES[settings.primary]}, the best on top: a predictor that holds grows downwards. ρ: rank "
        "correlation.",
    )
    distance = "distance of the shortcuts' product from an isometry (6: nothing arrives)"
    marks = [
        parts.handle(distance, linestyle="", marker="o", markersize=4),
        parts.handle("|log10 gain|", linestyle="", marker="o", markersize=6, markerfacecolor="none"),
    ]
    style.key(figure, marks, _kind_key(table["kind"].unique()))
    return figure


def _draw_predictors(axes: Axes, ranked: pd.DataFrame, rho: dict[str, float | None]) -> None:
    """Draw the functions of one order at one depth, the best at the top, with the correlations as a caption."""
    for place, row in enumerate(ranked.to_dict("records")):
        look: dict[str, Any] = {"linestyle": "", "marker": "o", "color": COLOURS[row["kind"]]}
        axes.plot(row["distance"], place, markersize=4, **look)
        axes.plot(row["log10_gain"], place, markersize=6, markerfacecolor="none", **look)
    axes.set_ylim(len(ranked) - 0.4, -0.6)
    axes.set_xlim(-0.3, 6.3)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.tick_params(axis="y", length=0)
    parts.name_rows(axes, list(ranked["shortcut"]), [COLOURS[kind] for kind in ranked["kind"]], size=7)
    marks = [f"{mark} {rho[column]:.2f}" for mark, column in (("●", "distance"), ("○", "log10_gain")) if rho[column]]
    axes.set_xlabel("decades" + (f"; ρ: {', '.join(marks)}" if marks else ""))
