"""Runs and measurements as tidy tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from resx.probes.tidy import phases, summary


def test_the_trained_phase_leaves_diverged_runs_out() -> None:
    table = pd.DataFrame(
        {"run_id": ["a", "a", "b", "b"], "step": [0, 9, 0, 4], "status": ["finished"] * 2 + ["diverged"] * 2}
    )
    assert phases(table)[["run_id", "phase"]].to_numpy().tolist() == [
        ["a", "initial"],
        ["b", "initial"],
        ["a", "trained"],
    ]


def test_a_summary_has_means_with_intervals_where_there_are_several_values() -> None:
    table = pd.DataFrame({"kind": ["a", "a", "b"], "seed": [0, 1, 0], "x": [1.0, 3.0, 5.0], "y": [np.nan] * 3})
    first, second = summary(table, ["kind"], ["x", "y"]).to_dict("records")
    assert (first["kind"], first["seeds"], first["x"]) == ("a", 2, 2.0)
    assert first["x_high"] - first["x"] == pytest.approx(12.706, abs=1e-3)  # t(0.975; 1) standard errors of 1
    assert (second["seeds"], second["x"]) == (1, 5.0)
    assert np.isnan([second["x_low"], first["y"], first["y_low"]]).all()
