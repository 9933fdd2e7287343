"""Question 3: networks with one part of their adapters changed, as paired differences from zero-pad, chop, subsample.

He et al. 2016, section 3.3, compare options A and B of their ImageNet networks. Here a row is one way of making shapes
match (or a network without any), the unit is the seed, and points of one seed share weights and batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resx import stats
from resx.figures import FIGURES, Frames, parts, style
from resx.spec import AdapterSpec, ModelSpec, SpecError

ALTERNATING, STANDARD = "alternating", "standard"
DESIGNS = {
    ALTERNATING: "Alternating widths: no shortcut fits",
    STANDARD: "Constant widths: two shortcuts do not fit",
}
REFERENCE = "reference"  # a group of one arm
PLAIN, CONSTANT = "plain", "constant width"  # arms beside the ways
GROUPS = {
    "beside": "Beside",
    "spatial": "Maps shrink by",
    "grow": "Channels grow by",
    "shrink": "Channels shrink by",
    "several": "Several parts at once",
}
OUTCOMES = {
    "log10_train_loss": "log10 final training loss",
    "train_error": "training error (%)",
    "test_error": "test error (%)",
}
ROW, LEFT, RIGHT, TOP, BOTTOM, BETWEEN = 0.165, 1.95, 0.85, 0.72, 0.72, 0.75  # inches
OTHER_FIELDS = ("order", "norm", "dataset", "label", "subset", "image_size", "steps", "batch_size", "lr", "precision")


def arms(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs with `design`, `group` and `arm` (a name of its own), outcomes nan where a run diverged.

    Alternating widths are a design of their own, together with constant ones of another width; everything else is
    standard. Sorted by group and name. Raises SpecError where runs differ in the recipe.
    """
    mixed = [field for field in OTHER_FIELDS if runs[field].astype("string").nunique() > 1]
    if mixed:
        raise SpecError(f"these runs differ in {', '.join(mixed)}; choose one kind with --where {mixed[0]}=…")
    alternating = runs["widths"] == ALTERNATING
    own_width = ~runs["width"].isin(runs.loc[alternating, "width"])
    matched = own_width & bool(alternating.any())
    told = [_told(shortcut, adapter) for shortcut, adapter in zip(runs["shortcut"], runs["adapter"], strict=True)]
    named = runs.assign(
        design=[ALTERNATING if one else STANDARD for one in alternating | matched],
        group=["beside" if same else group for same, (group, _) in zip(matched, told, strict=True)],
        arm=[CONSTANT if same else arm for same, (_, arm) in zip(matched, told, strict=True)],
        log10_train_loss=stats.log10_loss(runs["train_loss"]),
    )
    twice = named.duplicated(["design", "arm", "depth", "seed"])
    if twice.any():
        raise SpecError(f"two runs are the {named['arm'][twice].iloc[0]} of one seed; choose one kind with --where")
    unfinished = named["status"] != "finished"
    rank = named["group"].map([REFERENCE, *GROUPS].index)
    named = named.assign(rank=rank, **{outcome: named[outcome].mask(unfinished) for outcome in OUTCOMES})
    return named.sort_values(["rank", "arm", "depth", "seed"], ignore_index=True).drop(columns="rank")


def _told(shortcut: str, adapter: str | None) -> tuple[str, str]:
    """Return the group and the name of a network with alternating widths, or with the standard ones."""
    if shortcut == "none" or not isinstance(adapter, str):
        return "beside", PLAIN
    parts, base = ModelSpec.model_validate({"adapter": adapter}).adapter, AdapterSpec()
    assert parts
    # where channels only grow there is no shrinking part, and where they fit no growing one
    changed = [key for key in ("spatial", "grow", "shrink") if getattr(parts, key) not in (getattr(base, key), None)]
    words = [str(getattr(parts, key)).replace("norm=true", "").removesuffix(":") for key in changed]
    words += ["everywhere"] if parts.where != base.where else []
    if not words:
        return REFERENCE, str(base)
    if len(words) == 1 and changed:
        return changed[0], f"{changed[0]}: {words[0]}"  # a name such as zero is that of several parts
    return "several", " + ".join(words)


def differences(named: pd.DataFrame, outcome: str, against: str = REFERENCE) -> pd.DataFrame:
    """Return each arm's value minus the reference's of the same seed and depth, averaged over depths: seeds × arms.

    named: the runs of one design, as `arms` returns them. against: the group, or else the arm, to subtract. nan where
    a seed lacks one of its runs or one diverged.
    """
    base = named[named["group"] == against] if against in set(named["group"]) else named[named["arm"] == against]
    table = named.pivot_table(index=["seed", "depth"], columns="arm", values=outcome, aggfunc="first", dropna=False)
    if base.empty:
        return pd.DataFrame(index=table.index.unique("seed"), columns=[]).astype(float)
    name = base["arm"].iloc[0]
    paired = table.sub(table[name], axis=0).drop(columns=name)
    order = [arm for arm in dict.fromkeys(named["arm"]) if arm != name]
    return paired[order].groupby("seed").agg(lambda values: values.mean(skipna=False))


@FIGURES.register("mismatch")
def draw(frames: Frames) -> Figure:
    """Ways of making shapes match (question 3): paired differences from zero-pad, chop and subsample, with intervals.

    frames: runs. A row is a way, grouped by the part it changes, the best first; dots are seeds, means over depths; the
    line is the 95 % interval of their mean. At the right edge: parameters beyond the reference's. Raises SpecError
    where the reference is missing.
    """
    named = arms(frames["runs"])
    designs = [design for design in DESIGNS if design in set(named["design"])]
    lists = {design: rows_of(named[named["design"] == design]) for design in designs}
    heights = [ROW * (len(rows) + 0.2) for rows in lists.values()]
    total = TOP + sum(heights) + BETWEEN * (len(designs) - 1) + BOTTOM
    shown = ("log10_train_loss", "test_error")
    colours = style.colours(list(GROUPS))
    with style.context():
        figure = Figure(figsize=(style.WIDTH + 0.8, total))
        width = figure.get_size_inches()[0]
        panel = (width - LEFT - RIGHT - 0.25) / len(shown)
        bottom = total - TOP
        for design, height in zip(designs, heights, strict=True):
            bottom -= height
            for position, outcome in enumerate(shown):
                left = LEFT + position * (panel + 0.25)
                axes = figure.add_axes((left / width, bottom / total, panel / width, height / total))
                runs = named[named["design"] == design]
                _draw_rows(axes, lists[design], differences(runs, outcome), colours, named=position == 0)
                axes.set_xlabel(f"difference in {OUTCOMES[outcome]}".replace("(%)", "(points)"))
                if position == 0 and len(designs) > 1:
                    axes.text(0, 1 + 0.05 / height, DESIGNS[design], transform=axes.transAxes, size=9, weight="bold")
                if position == len(shown) - 1:
                    _draw_parameters(axes, lists[design], runs)
            bottom -= BETWEEN
        depths = "/".join(map(str, sorted(named["depth"].unique())))
        seeds = named["seed"].nunique()
        what = f"{seeds} seeds" if seeds > 1 else "one seed"
        diverged = int((named["status"] == "diverged").sum())
        spoilt = f" {diverged} runs diverged and have no point." if diverged else ""
        design = "" if len(designs) > 1 else f"{DESIGNS[designs[0]]}. "
        style.heading(
            figure,
            f"Shapes that do not match: each way against {AdapterSpec()}",
            f"{design}{parts.data_label(named)}, {depths} layers, {what}. Left of 0: better.{spoilt}",
        )
        handles = [parts.handle("one seed", linestyle="", marker="o", markersize=3.2, markerfacecolor="white")]
        if seeds > 1:
            handles.append(parts.handle("mean and 95 % interval", marker="D", markersize=4, linewidth=1.4))
        style.key(figure, handles)
    return figure


def rows_of(named: pd.DataFrame) -> list[tuple[str, str]]:
    """Return (group, arm) of every arm but the reference, and (group, '') above each group, the best first."""
    if REFERENCE not in set(named["group"]):
        raise SpecError(f"no recorded run has the adapter {AdapterSpec()} that the others are compared with")
    means = differences(named, "log10_train_loss").mean()
    rows = []
    for group in GROUPS:
        members = list(dict.fromkeys(named.loc[named["group"] == group, "arm"]))
        members.sort(key=lambda arm: np.inf if np.isnan(means[arm]) else means[arm])
        rows += [(group, ""), *((group, arm) for arm in members)] if members else []
    return rows


def _draw_rows(
    axes: Axes, rows: Sequence[tuple[str, str]], values: pd.DataFrame, colours: dict[str, str], *, named: bool
) -> None:
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.axvline(0, color=style.INK, linewidth=0.8)
    for y, (group, arm) in enumerate(rows):
        if named:
            where: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "center", "size": 7}
            axes.text(
                -0.03, y, arm.removeprefix(f"{group}: ") or GROUPS[group], weight="normal" if arm else "bold", **where
            )
        if not arm:
            continue
        known = values[arm].dropna()
        if known.empty:
            axes.text(0, y, " diverged", color=colours[group], size=7, va="center")
            continue
        axes.plot(known, [y] * len(known), "o", color=colours[group], markersize=3.2, markerfacecolor="white", zorder=3)
        estimate = stats.t_interval(known.to_numpy())
        if len(known) > 1:
            axes.plot([estimate.low, estimate.high], [y, y], color=colours[group], linewidth=1.4, zorder=2)
            axes.plot(estimate.mean, y, "D", color=colours[group], markersize=4, zorder=4)


def _draw_parameters(axes: Axes, rows: Sequence[tuple[str, str]], runs: pd.DataFrame) -> None:
    """Write what each arm has in parameters beyond the reference's, at the greatest depth."""
    deepest = runs[runs["depth"] == runs["depth"].max()].drop_duplicates("arm").set_index("arm")["parameters"]
    reference = runs.loc[runs["group"] == REFERENCE, "arm"].iloc[0]
    look: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "size": 6.5, "color": style.QUIET}
    look |= {"va": "center", "ha": "right"}
    edge = 1 + 0.72 * axes.figure.dpi / axes.get_window_extent().width  # inches beyond the panel
    axes.text(edge, -0.9, "more parameters", **look)
    for y, (_, arm) in enumerate(rows):
        if arm:
            extra = int(deepest[arm] - deepest[reference])
            axes.text(edge, y, f"{extra:+,}".replace("-", "−") if extra else "±0", **look)
