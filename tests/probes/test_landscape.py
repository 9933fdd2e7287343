"""Landscape: what is said of made-up surfaces of which the shape is known."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest

from resx.figures import FIGURES
from resx.probes import judge, load_probe, parse_settings
from resx.probes.landscape import LandscapeSettings
from resx.spec import SpecError

AXIS = np.linspace(-1, 1, 5)


def bowl(a, b):
    return 1 + 3 * a**2 + 3 * b**2


def saddle(a, b):
    return 4 + 3 * a**2 - 3 * b**2


@pytest.fixture(name="findings_of")
def findings_of_fixture(runs_of):
    def findings_of(plain, residual, seeds=range(6)):
        """Judge networks with these losses at (a, b), the same for every seed but for noise."""
        runs, measured = runs_of(depths=(56,), seeds=seeds), []
        for run in runs.itertuples():
            surface = plain if run.shortcut == "none" else residual
            rng = np.random.default_rng([run.seed, len(run.shortcut)])
            for statistics in ("batch", "running"):
                rows = [("line", 0, a, 0.0, surface(a, 0.0)) for a in AXIS]
                rows += [("plane", 0, a, b, surface(a, b)) for a, b in product(AXIS, AXIS)]
                table = pd.DataFrame(rows, columns=["shape", "direction", "a", "b", "loss"])
                table["loss"] += 0.05 * rng.standard_normal(len(table))
                measured.append(table.assign(run_id=run.run_id, statistics=statistics))
        return judge("landscape", {"runs": runs, "landscape": pd.concat(measured)}, LandscapeSettings())

    return findings_of


@pytest.mark.parametrize(
    ("plain", "residual", "word"),
    [(saddle, bowl, "supported"), (bowl, saddle, "refuted"), (bowl, bowl, "inconclusive")],
)
def test_the_share_that_is_not_convex_decides(findings_of, plain, residual, word):
    findings = findings_of(plain, residual)
    assert findings.verdict("plain-less-convex").word == word
    means = findings.tables["means"].set_index(["kind", "statistics"])
    assert (means.loc[("plain", "batch"), "not_convex"] == 100.0) == (plain is saddle)
    assert means.loc[("plain", "running"), "rise"] == pytest.approx(np.log10(plain(0.5, 0) / plain(0, 0)), abs=0.05)


def test_the_figure_has_a_column_per_network(findings_of):
    figure = FIGURES["landscape"](findings_of(saddle, bowl, seeds=(0,)))
    assert [axes.get_title(loc="left") for axes in figure.axes[:2]] == ["plain-56", "residual-56"]


def test_settings_that_leave_nothing_to_measure_are_refused():
    with pytest.raises(SpecError, match="grid"):
        parse_settings(load_probe("landscape"), {"grid": 2})
