"""Ways of making shapes match, as paired differences from zero-pad, chop, subsample (He et al. 2016, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resx.figures import FIGURES, parts, style
from resx.probes import Findings
from resx.probes.mismatch import DESIGNS, GROUPS, REFERENCE, MismatchSettings
from resx.probes.tidy import OUTCOMES, estimate
from resx.spec import AdapterSpec

LEFT, RIGHT, TOP, BOTTOM = 1.95, 0.85, 0.72, 0.72  # inches
COLOURS = style.colours(list(GROUPS))


@FIGURES.register("mismatch")
def draw(findings: Findings) -> Figure:
    """Ways of making shapes match (question 3): paired differences from zero-pad, chop and subsample, with intervals.

    A row is a way, grouped by the part it changes, the best first; dots are seeds, means over depths; a diamond is
    their mean on its 95 % interval. Left the outcome that is judged, right the test error, and at the right edge
    parameters beyond the reference's.
    """
    settings, runs = findings.settings, findings.frames["runs"]
    assert isinstance(settings, MismatchSettings)
    networks, ways = findings.tables["networks"], findings.tables["ways"]
    rows = _rows(ways, settings.primary)
    height, shown = parts.FOREST_ROW * (len(rows) + 0.2), list(dict.fromkeys((settings.primary, "test_error")))
    total = TOP + height + BOTTOM
    figure = Figure(figsize=(style.WIDTH + 0.8, total))
    width = figure.get_size_inches()[0]
    panel = (width - LEFT - RIGHT - 0.25) / len(shown)
    for position, outcome in enumerate(shown):
        left = LEFT + position * (panel + 0.25)
        axes = figure.add_axes((left / width, BOTTOM / total, panel / width, height / total))
        _draw_rows(axes, rows, ways, findings.tables["outcomes"], outcome)
        if position == 0:
            _name_rows(axes, rows)
        axes.set_xlabel(f"difference in {OUTCOMES[outcome]}".replace("(%)", "(points)"))
    _draw_parameters(axes, rows, networks)
    depths = "/".join(map(str, sorted(networks["depth"].unique())))
    style.heading(
        figure,
        f"Shapes that do not match: each way against {AdapterSpec()}",
        f"{DESIGNS[settings.design]}. {parts.data_label(runs)}, {depths} layers, "
        f"{parts.seed_words(runs['seed'].nunique()).lower()}. Left of 0: better than the reference.",
    )
    style.key(figure, parts.forest_key(runs["seed"].nunique(), diverged=bool(networks["diverged"].any())))
    return figure


def _rows(ways: pd.DataFrame, primary: str) -> list[tuple[str, str]]:
    """Return (group, arm) of every arm, and (group, '') above each group, the best first."""
    rows = []
    for group in GROUPS:
        members = list(ways[ways["group"] == group].sort_values(primary, na_position="last")["arm"])
        rows += [(group, ""), *((group, arm) for arm in members)] if members else []
    return rows


def _draw_rows(
    axes: Axes, rows: Sequence[tuple[str, str]], ways: pd.DataFrame, values: pd.DataFrame, outcome: str
) -> None:
    table = values.pivot(index="seed", columns="arm", values=outcome)
    [reference] = values.loc[values["group"] == REFERENCE, "arm"].unique()
    differences, means = table.sub(table[reference], axis=0), ways.set_index("arm")
    parts.forest(
        axes,
        [(differences[arm], estimate(means.loc[arm], outcome), COLOURS[group]) if arm else None for group, arm in rows],
    )
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)


def _name_rows(axes: Axes, rows: Sequence[tuple[str, str]]) -> None:
    where: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "center", "size": 7}
    for y, (group, arm) in enumerate(rows):
        name = arm.removeprefix(f"{group}: ") or GROUPS[group]
        axes.text(-0.03, y, name, weight="normal" if arm else "bold", **where)


def _draw_parameters(axes: Axes, rows: Sequence[tuple[str, str]], networks: pd.DataFrame) -> None:
    """Write what each arm has in parameters beyond the reference's, at the greatest depth."""
    deepest = networks[networks["depth"] == networks["depth"].max()].set_index("arm")
    counts = deepest["parameters"]
    reference = counts[deepest["group"] == REFERENCE].sum()  # one network, or none at this depth
    look: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "size": 6.5, "color": style.QUIET}
    look |= {"va": "center", "ha": "right"}
    edge = 1 + 0.72 * axes.figure.dpi / axes.get_window_extent().width  # inches beyond the panel
    axes.text(edge, -0.9, "more parameters", **look)
    for y, (_, arm) in enumerate(rows):
        if reference and arm in counts:
            extra = int(counts[arm] - reference)
            axes.text(edge, y, f"{extra:+,}".replace("-", "−") if extra else "±0", **look)
