"""Shortcut functions side by side: how each trains compared with the identity, and what its spectrum foretold.

He et al. 2016b, table 1, does this for ResNet-110 on CIFAR-10; its errors stand beside the functions that it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from resx import paper, stats
from resx.figures import FIGURES, Frames, parts, style
from resx.measurements.spectrum import FLOOR, summary
from resx.model import SHORTCUTS
from resx.spec import SpecError, parse_part

ORDERS = {"pre": "pre-activation order", "post": "original order"}
KINDS = ("constant", "fixed", "learned", "gated", "noisy", "fitted", "other")
FAR = 4  # times the difference that four of five functions stay within: beyond, a mean is written, not drawn
KIND_NAMES = {"fixed": "fixed map", "noisy": "dropout", "fitted": "fitted map"}
# inches: a row; left of a panel, for the functions' names; right of it, for the published errors or for nothing
ROW, NAMES, ERRORS, EDGE = 0.165, 1.65, 0.85, 0.1
PREDICTORS = {"distance": "distance from an isometry", "log10_gain": "|log10 gain|"}  # columns of `spectra`
# this project's functions in the words of Identity Mappings' table 1
TABLE_1 = {
    "identity": "identity",
    "none": "0 (plain)",
    "scaled:alpha=0.5": "0.5, branch unscaled",
    "convex:alpha=0.5": "0.5, branch 0.5",
    "exclusive-gate:bias=0.0": "exclusive gating, bias 0 to -5",
    "exclusive-gate:bias=-6.0": "exclusive gating, bias -6",
    "shortcut-gate:bias=0.0": "shortcut-only gating, bias 0",
    "shortcut-gate:bias=-6.0": "shortcut-only gating, bias -6",
    "conv:init=he": "1x1 convolution",
    "dropout:rate=0.5": "dropout 0.5",
}


def variants(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs with `variant` (the shortcut, and the donor of a map that comes from a trained network), `kind`
    and `log10_train_loss`; outcomes of runs that did not finish are nan.

    Runs that start from another run which is not among these are named after its id.
    """
    shortcuts = runs.set_index("run_id")["shortcut"].to_dict()

    def name(shortcut: str, start: Any) -> str:
        donor = getattr(start, "run", None)
        return shortcut if donor is None else f"{shortcut} to {parts.kind_name(shortcuts.get(donor, donor))}"

    named = [name(*pair) for pair in zip(runs["shortcut"], runs["init_from"], strict=True)]
    told = runs.assign(variant=named, kind=runs["shortcut"].map(kind_of))
    told["log10_train_loss"] = stats.log10_loss(told["train_loss"])
    outcomes = ["log10_train_loss", "train_loss", "test_loss", "train_error", "test_error"]
    told[outcomes] = told[outcomes].where(told["status"] == "finished")
    return told


def kind_of(shortcut: str) -> str:
    """Return the kind that a shortcut's factory states, `other` where it states none or is not loaded."""
    name = parse_part(shortcut)[0]
    return getattr(SHORTCUTS[name], "kind", "other") if name in SHORTCUTS else "other"


def differences(runs: pd.DataFrame, outcome: str) -> pd.DataFrame:
    """Return, from `variants` of one order, what each seed's network has more of than its identity twin.

    A row per seed, a column per variant.
    """
    table = runs.pivot_table(index="seed", columns="variant", values=outcome, aggfunc="first", dropna=False)
    if "identity" not in table:
        raise SpecError("shortcuts: there is no run with the identity to compare with")
    return table.sub(table["identity"], axis=0).drop(columns="identity")


def orders_of(runs: pd.DataFrame) -> list[str]:
    """Return the orders of the block that occur, the one that answers first."""
    return [order for order in ORDERS if order in set(runs["order"])]


def spectra(measured: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Return a row per run of `variants`: its columns, those of the spectrum's `summary`, and the PREDICTORS."""
    told = measured.groupby("run_id")[["image", "value"]].apply(summary).reset_index()
    told["log10_gain"] = np.log10(told["gain"].clip(lower=FLOOR)).abs()
    return told.merge(runs, on="run_id")


def correlations(table: pd.DataFrame, outcome: str) -> dict[tuple[str, str], pd.Series]:
    """Return Spearman's correlation over functions of each predictor and the outcome, a value per seed.

    table: `spectra`. Keys: column of PREDICTORS and order. A seed in which it is not defined is absent.
    """
    found = {}
    for order in orders_of(table):
        seeds = table[table["order"] == order].groupby("seed")
        for predictor in PREDICTORS:
            values = {
                seed: group[predictor].corr(group[outcome], method="spearman")
                for seed, group in seeds
                if group[outcome].nunique() > 2 and group[predictor].nunique() > 1
            }
            found[predictor, order] = pd.Series(values, dtype=float)
    return found


def published(variant: str) -> str:
    """Return Identity Mappings' test error of a function, or an empty string where it has none."""
    row = paper.IDENTITY_TABLE_1.get(TABLE_1.get(variant, ""))
    if row is None:
        return ""
    return "> 20 %" if np.isnan(row.value) else f"{row.value:.2f} %"


@FIGURES.register("shortcuts")
def draw(frames: Frames) -> Figure:
    """Final training loss of every shortcut function against the identity's, in both orders, with intervals.

    frames: runs of the study. Dots are seeds, the bar is the mean's t interval; to the right, in the original order,
    the test errors of Identity Mappings' table 1. Raises SpecError without a run with the identity.
    """
    runs = _classifications(frames["runs"])
    orders = orders_of(runs)
    found = {order: differences(runs[runs["order"] == order], "log10_train_loss") for order in orders}
    kinds = dict(zip(runs["variant"], runs["kind"], strict=True))
    rows = _sorted(found[orders[0]], kinds)
    colour = style.colours(KINDS)
    with style.context():
        figure, grid = style.panels(1, len(orders), ROW * len(rows) + 0.1, titled=True)
        _make_room(figure, grid, ERRORS, 0.08)
        for axes, order in zip(grid[0], orders, strict=True):
            axes.set_title(ORDERS[order])
            _draw_forest(axes, found[order], rows, kinds, colour)
            if order == "post":
                _write_published(axes, rows)
        _name_rows(grid[0, 0], rows, [colour[kinds[name]] for name in rows])
        style.heading(
            figure,
            f"Other shortcut functions against the identity: {_told(runs)}",
            "Difference in log10 of the final training loss, paired by seed: right of 0, the identity, trains worse. "
            + parts.summary(runs).partition(".")[0]
            + ".",
        )
        marks = [parts.handle("one seed", linestyle="", marker="o", markersize=3, alpha=0.6)]
        marks.append(parts.handle("mean and 95 % interval", marker="|", linewidth=1.6))
        if runs["status"].eq("diverged").any():
            marks.append(parts.handle("diverged", linestyle="", marker="x", markersize=5))
        style.key(figure, marks, _kind_key(kinds, colour))
    return figure


def _make_room(figure: Figure, grid: Any, right: float, between: float) -> None:
    """Place the panels with room for names; right: inches beside the last, between: as a share of a panel's width."""
    wide = figure.get_figwidth()
    cells = grid[0, 0].get_subplotspec().get_gridspec()
    cells.update(left=NAMES / wide, right=1 - right / wide, wspace=between)
    for axes in grid.flat:
        axes.set_position(axes.get_subplotspec().get_position(figure))


def _name_rows(axes: Axes, names: Sequence[str], colours: Sequence[str], **look: Any) -> None:
    axes.set_yticks(range(len(names)), names, **look)
    for label, colour in zip(axes.get_yticklabels(), colours, strict=True):
        label.set_color(colour)


def _told(runs: pd.DataFrame) -> str:
    """Return the data and the depth for a heading."""
    return f"{parts.data_label(runs)}, {', '.join(str(depth) for depth in sorted(runs['depth'].unique()))} layers"


def _classifications(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the variants among runs that may hold another study's too: networks of blocks that tell classes apart."""
    judged = runs["train_error"].notna() | (runs["status"] == "diverged")
    return variants(runs[runs["order"].isin(list(ORDERS)) & judged])


def _sorted(found: pd.DataFrame, kinds: dict[str, str]) -> list[str]:
    """Return the names by mean difference, the best last (at the top), those without a number first."""
    means = found.mean()
    return list(means.sort_values(ascending=False, na_position="first").index)


def _draw_forest(
    axes: Axes, found: pd.DataFrame, rows: Sequence[str], kinds: dict[str, str], colour: dict[str, str]
) -> None:
    axes.axvline(0, color=style.INK, linewidth=0.8)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.set_ylim(-0.7, len(rows) - 0.3)
    low, high = _limits(found)
    axes.set_xlim(low, high)
    edge = axes.get_yaxis_transform()
    for place, name in enumerate(rows):
        values = found[name] if name in found else pd.Series(dtype=float)
        known = values.dropna()
        look: dict[str, Any] = {"color": colour[kinds[name]]}
        if len(known):
            estimate = stats.t_interval(known.to_numpy())
            if len(known) > 1:
                axes.plot(known, [place - 0.27] * len(known), "o", markersize=2.4, alpha=0.6, markeredgewidth=0, **look)
                axes.plot([estimate.low, estimate.high], [place, place], linewidth=1.6, **look)
            axes.plot(estimate.mean, place, "|", markersize=7, markeredgewidth=1.6, **look)
            if not low <= estimate.mean <= high:
                side, text = (0.99, "right") if estimate.mean > high else (0.01, "left")
                axes.text(side, place, f"{estimate.mean:+.2g}", transform=edge, size=6.5, ha=text, va="center", **look)
        if len(known) < len(values):
            axes.plot(0.98, place, "x", transform=edge, markersize=4, **look)
    axes.set_xlabel("Δ log10 training loss")
    axes.tick_params(axis="y", length=0)


def _limits(found: pd.DataFrame) -> tuple[float, float]:
    """Return limits that show every seed and interval of most functions: a mean far outside is written at the edge."""
    means = found.mean().dropna().abs()
    reach = FAR * float(means.quantile(0.8)) if len(means) else 0.0
    ends = [0.0]
    for name in means.index[means <= reach]:
        known = found[name].dropna().to_numpy()
        estimate = stats.t_interval(known)
        ends += [*known, *(end for end in (estimate.low, estimate.high) if np.isfinite(end))]
    margin = 0.05 * (max(ends) - min(ends) or 1.0)
    return min(ends) - margin, max(ends) + margin


def _write_published(axes: Axes, rows: Sequence[str]) -> None:
    place = axes.get_yaxis_transform()
    axes.text(
        1.02,
        len(rows) - 0.3,
        f"2016b, table 1\n(CIFAR-10, 110):\nidentity {published('identity')}",
        transform=place,
        size=6,
        color=style.QUIET,
    )
    for row, name in enumerate(rows):
        axes.text(1.02, row, published(name), transform=place, size=7, va="center", color=style.INK)


def _kind_key(kinds: dict[str, str], colour: dict[str, str]) -> list[Line2D]:
    used = [kind for kind in KINDS if kind in set(kinds.values())]
    return [
        Line2D([], [], label=KIND_NAMES.get(kind, kind), color=colour[kind], linestyle="", marker="s", markersize=4)
        for kind in used
        if kind != "other"
    ]


@FIGURES.register("shortcut-spectrum")
def draw_spectrum(frames: Frames) -> Figure:
    """Functions ranked by final training loss, each with what the spectrum of its shortcut path foretold.

    frames: runs and spectrum. A row per function, means over seeds, in both orders: a dot for the distance from an
    isometry at initialisation, a ring for |log10 gain|; Spearman's correlations below. Raises SpecError without
    measured spectra.
    """
    if "spectrum" not in frames:
        raise SpecError("shortcut-spectrum: no spectrum is recorded; `resx probe shortcuts` measures them")
    runs = _classifications(frames["runs"])
    table = spectra(frames["spectrum"], runs)
    foretold = correlations(table, "log10_train_loss")
    orders = orders_of(table)
    columns = ["log10_train_loss", *PREDICTORS]
    ranked = {
        order: table[table["order"] == order]
        .groupby(["variant", "kind"])[columns]
        .mean()
        .dropna()
        .sort_values("log10_train_loss", ascending=False)
        .reset_index()
        for order in orders
    }
    colour = style.colours(KINDS)
    with style.context():
        figure, grid = style.panels(1, len(orders), ROW * max(map(len, ranked.values())) + 0.1, titled=True, free=True)
        panel = (figure.get_figwidth() - NAMES * len(orders) - EDGE) / len(orders)
        _make_room(figure, grid, EDGE, NAMES / panel)
        for axes, order in zip(grid[0], orders, strict=True):
            axes.set_title(ORDERS[order])
            _draw_predictors(axes, ranked[order], {name: foretold[name, order].mean() for name in PREDICTORS}, colour)
        style.heading(
            figure,
            f"Does the spectrum of the shortcuts foretell training? {_told(runs)}",
            "Functions ranked by final training loss, the best at the top: a predictor that holds grows downwards.",
        )
        marks = [
            parts.handle(
                "distance of the shortcuts' product from an isometry (6: nothing arrives)",
                linestyle="",
                marker="o",
                markersize=4,
            ),
            parts.handle("|log10 gain|", linestyle="", marker="o", markersize=6, markerfacecolor="none"),
        ]
        style.key(figure, marks, _kind_key(dict(zip(table["variant"], table["kind"], strict=True)), colour))
    return figure


def _draw_predictors(axes: Axes, ranked: pd.DataFrame, foretold: dict[str, float], colour: dict[str, str]) -> None:
    """Draw the functions of one order, the worst first (at the bottom), with the mean correlations as a caption."""
    look: dict[str, Any] = {"linestyle": "", "marker": "o"}
    for place, kind, distance, gain in zip(
        range(len(ranked)), ranked["kind"], ranked["distance"], ranked["log10_gain"], strict=True
    ):
        axes.plot(distance, place, markersize=4, color=colour[kind], **look)
        axes.plot(gain, place, markersize=6, color=colour[kind], markerfacecolor="none", **look)
    axes.set_ylim(-0.7, len(ranked) - 0.3)
    axes.set_xlim(-0.3, 6.3)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.tick_params(axis="y", length=0)
    _name_rows(axes, list(ranked["variant"]), [colour[kind] for kind in ranked["kind"]], size=7)
    axes.set_xlabel(f"decades; ρ with loss: ● {foretold['distance']:.2f}, ○ {foretold['log10_gain']:.2f}")
