"""Paths: which networks have them, and what is said of made-up shares by length."""

from __future__ import annotations

from math import comb

import numpy as np
import pandas as pd
import pytest

from resx.figures import FIGURES
from resx.probes import judge
from resx.probes.paths import PathsSettings, refuses
from resx.spec import SpecError, build_spec

MIDDLE = {20: 3, 56: 5}


@pytest.fixture(name="findings_of")
def findings_of_fixture(runs_of):
    def findings_of(middle=MIDDLE, **runs):
        """Judge shares that lie around a length. middle: {depth: this length}."""
        table = runs_of(shortcuts=("identity",), **runs)
        measured = []
        for run in table.itertuples():
            n = (run.depth - 2) // 2
            length = np.arange(n + 1)
            share = np.exp(-0.5 * (length - middle[run.depth] - 0.6 * (run.seed % 2)) ** 2)
            counts = np.array([comb(n, k) for k in length], float)
            columns = {"length": length, "share": share / share.sum(), "gradient": share, "whole": share.sum()}
            columns |= {"sampled": share / share.sum(), "binomial": counts / counts.sum(), "residue": 0.0}
            measured += [pd.DataFrame({**columns, "run_id": run.run_id, "step": step}) for step in (0, 276)]
        return judge("paths", {"runs": table, "paths": pd.concat(measured)}, PathsSettings())

    return findings_of


@pytest.mark.parametrize(
    ("middle", "words"), [(MIDDLE, ["supported", "supported"]), ({20: 4, 56: 20}, ["refuted", "refuted"])]
)
def test_the_middle_of_the_gradient_is_judged_against_that_of_all_paths_and_over_depth(findings_of, middle, words):
    findings = findings_of(middle)
    assert [verdict.word for verdict in findings.verdicts] == words
    short = findings.verdict("short-paths").estimates[0]
    assert short.mean == pytest.approx((middle[56] + 0.3) / 27 - 0.5, abs=2e-3)
    assert findings.verdict("depth-adds-little").estimates[0].mean == pytest.approx(
        (middle[56] + 0.3) / 27 - (middle[20] + 0.3) / 9, abs=3e-3
    )
    assert findings.tables["means"]["cancellation"].tolist() == [1.0] * 4
    assert len(findings.effects) == 7


def test_two_seeds_are_a_screening_and_one_depth_has_no_depth_effect(findings_of):
    findings = findings_of(depths=(56,), seeds=(0, 1))
    assert findings.verdict("short-paths").word == "screening"
    assert findings.verdict("depth-adds-little") is None


def test_plain_networks_have_no_paths_and_scaled_shortcuts_do():
    assert "one path only" in refuses(build_spec({"shortcut": "none"}))
    assert refuses(build_spec({"shortcut": "scaled:alpha=0.5"})) is None
    assert "no blocks" in refuses(build_spec({"family": "vgg", "depth": 16, "shortcut": "none"}))


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_the_figure_has_a_panel_per_network_and_phase(findings_of, seeds):
    figure = FIGURES["paths"](findings_of(seeds=seeds))
    assert len(figure.axes) == 4
    assert all(len(axes.lines) == 2 + (len(seeds) if len(seeds) > 1 else 0) for axes in figure.axes)
    assert "half 5.0 of 27" in figure.axes[1].texts[0].get_text() or len(seeds) > 1


def test_where_every_run_diverged_there_is_nothing_to_judge(findings_of):
    with pytest.raises(SpecError, match="1 diverged"):
        findings_of(depths=(56,), seeds=(0,), diverged=[("identity", 56, "batch", 0)])
