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
from resx.figures import FIGURES, Frames, panels, style
from resx.model import SHORTCUTS
from resx.probes.spectrum import summary
from resx.spec import SpecError, parse_part

ORDERS = {"pre": "pre-activation order", "post": "original order"}
KINDS = ("constant", "fixed", "learned", "gated", "noisy", "fitted", "other")
FAR = 4  # times the difference that four of five functions stay within: beyond, a mean is written, not drawn
KIND_NAMES = {"fixed": "fixed map", "noisy": "dropout", "fitted": "fitted map"}
NAMES, ERRORS = 1.65, 0.85  # inches left and right of the panels, for the functions' names and the published errors
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
        return shortcut if donor is None else f"{shortcut} to {panels.kind_name(shortcuts.get(donor, donor))}"

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


def spectra(measured: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Return a row per run of `variants`: its columns, and gain, distance and directions of its shortcut path."""
    told = measured.groupby("run_id")[["image", "value"]].apply(summary).reset_index()
    return told.merge(runs, on="run_id")


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
    orders = [order for order in ORDERS if order in set(runs["order"])]
    found = {order: differences(runs[runs["order"] == order], "log10_train_loss") for order in orders}
    kinds = dict(zip(runs["variant"], runs["kind"], strict=True))
    rows = _sorted(found[orders[0]], kinds)
    colour = style.colours(KINDS)
    with style.context():
        figure, grid = style.panels(1, len(orders), 0.165 * len(rows) + 0.1, titled=True)
        wide = figure.get_figwidth()
        cells = grid[0, 0].get_subplotspec().get_gridspec()
        cells.update(left=NAMES / wide, right=1 - ERRORS / wide, wspace=0.08)
        for axes in grid.flat:
            axes.set_position(axes.get_subplotspec().get_position(figure))
        for axes, order in zip(grid[0], orders, strict=True):
            axes.set_title(ORDERS[order])
            _draw_forest(axes, found[order], rows, kinds, colour)
            if order == "post":
                _write_published(axes, rows)
        grid[0, 0].set_yticks(range(len(rows)), rows)
        for label, name in zip(grid[0, 0].get_yticklabels(), rows, strict=True):
            label.set_color(colour[kinds[name]])
        depth = ", ".join(str(value) for value in sorted(runs["depth"].unique()))
        style.heading(
            figure,
            f"Other shortcut functions against the identity: {panels.data_label(runs)}, {depth} layers",
            "Difference in log10 of the final training loss, paired by seed: right of 0 trains worse. "
            + panels.summary(runs).partition(".")[0]
            + ".",
        )
        marks = [panels.handle("one seed", linestyle="", marker="o", markersize=3, alpha=0.6)]
        marks.append(panels.handle("mean and 95 % interval", marker="|", linewidth=1.6))
        if runs["status"].eq("diverged").any():
            marks.append(panels.handle("diverged", linestyle="", marker="x", markersize=5))
        style.key(figure, marks, _kind_key(kinds, colour))
    return figure


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
                axes.text(side, place, f"{estimate.mean:+.1f}", transform=edge, size=6.5, ha=text, va="center", **look)
        if len(known) < len(values):
            axes.plot(0.98, place, "x", transform=edge, markersize=4, **look)
    axes.set_xlabel("Δ log10 training loss")
    axes.tick_params(axis="y", length=0)


def _limits(found: pd.DataFrame) -> tuple[float, float]:
    """Return limits that show what most functions do: a mean far outside is written at the edge."""
    means = found.mean().dropna().to_numpy(float)
    reach = FAR * float(np.quantile(np.abs(means), 0.8)) if len(means) else 0.0
    inside = np.append(means[np.abs(means) <= reach], 0.0)
    values = found.to_numpy(float).ravel()
    values = np.append(
        inside, values[np.isfinite(values) & (values >= inside.min() * 1.3) & (values <= inside.max() * 1.3)]
    )
    margin = 0.08 * (float(np.ptp(values)) or 1.0)
    return float(values.min()) - margin, float(values.max()) + margin


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
    """Final training loss against the distance of the shortcut path from an isometry at initialisation.

    frames: runs and spectrum. One dot per function, the mean over seeds, in both orders. Raises SpecError without
    measured spectra.
    """
    if "spectrum" not in frames:
        raise SpecError("shortcut-spectrum: no spectrum is recorded; `resx probe shortcuts` measures them")
    runs = _classifications(frames["runs"])
    table = spectra(frames["spectrum"], runs)
    orders = [order for order in ORDERS if order in set(table["order"])]
    colour = style.colours(KINDS)
    with style.context():
        figure, grid = style.panels(1, len(orders), 3.0, titled=True)
        named = {}
        for axes, order in zip(grid[0], orders, strict=True):
            axes.set_title(ORDERS[order])
            rows = table[table["order"] == order].groupby(["variant", "kind"], sort=False)
            means = rows[["distance", "log10_train_loss"]].mean().reset_index().dropna()
            axes.set_xlim(-0.3, 6.3)
            for kind, points in means.groupby("kind"):
                x, y = points["distance"], points["log10_train_loss"]
                axes.plot(x, y, "o", markersize=4, color=colour[str(kind)])
            named[order] = means
            axes.set_xlabel("distance from an isometry at initialisation")
        for axes, means in zip(grid[0], named.values(), strict=True):  # the panels' common limits are known now
            _name_points(axes, means, colour)
        grid[0, 0].set_ylabel("log10 of the final training loss")
        style.heading(
            figure,
            f"Does the spectrum of the shortcuts foretell training? {panels.data_label(runs)}",
            "Distance: root mean square of the log10 singular values of all shortcuts' product; 0 isometry, 6 nothing.",
        )
        style.key(figure, _kind_key(dict(zip(table["variant"], table["kind"], strict=True)), colour))
    return figure


def _name_points(axes: Axes, means: pd.DataFrame, colour: dict[str, str]) -> None:
    """Name the functions at the right edge, where they ended."""
    columns = (means["log10_train_loss"], means["variant"], means["kind"])
    labels = [(6.3, float(y), name, colour[kind]) for y, name, kind in zip(*columns, strict=True)]
    style.end_labels(axes, labels, size=5.0)
