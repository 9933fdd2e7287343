"""Responses: what is said of made-up responses of which the answer is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from resx.figures import FIGURES
from resx.probes import judge
from resx.probes.responses import ResponsesSettings

PLAIN, RESIDUAL = "none", "identity"
SMALLER = {(PLAIN, 20): 1.0, (PLAIN, 56): 1.0, (RESIDUAL, 20): 0.8, (RESIDUAL, 56): 0.5}
LARGER = {**SMALLER, (RESIDUAL, 20): 1.0, (RESIDUAL, 56): 1.5}


@pytest.fixture(name="findings_of")
def findings_of_fixture(runs_of):
    def findings_of(trained=SMALLER, **runs):
        """Judge networks with responses of 1 before training. trained: {(shortcut, depth): after it}."""
        table = runs_of(**runs)
        measured = []
        for run in table.itertuples():
            rng = np.random.default_rng([run.seed, run.depth, len(run.shortcut)])
            for step in (0, 276):
                std = trained[run.shortcut, run.depth] if step else 1.0
                values = [("std", layer, "", std + 0.01 * rng.standard_normal()) for layer in range(1, run.depth)]
                if run.shortcut != PLAIN:
                    values += [
                        ("ratio", block, "", (0.4 if step else 0.6) + 0.01 * rng.random()) for block in (1, 2, 3)
                    ]
                    values += [("cosine", block, "", 0.0) for block in (1, 2, 3)]
                rows = pd.DataFrame(values, columns=["quantity", "layer", "name", "value"])
                measured.append(rows.assign(run_id=run.run_id, step=step))
        return judge("responses", {"runs": table, "responses": pd.concat(measured)}, ResponsesSettings())

    return findings_of


def test_smaller_responses_of_residual_layers_and_shrinking_branches_are_supported(findings_of):
    findings = findings_of()
    assert {verdict.key.partition(":")[2]: verdict.word for verdict in findings.verdicts} == {
        "respond-less": "supported",
        "deeper-respond-less": "supported",
        "small-is-learned": "supported",
        "small-from-the-start": "inconclusive",
    }
    assert findings.verdict("respond-less").estimates[0].mean == pytest.approx(-0.5, abs=0.02)


def test_larger_responses_are_refuted(findings_of):
    findings = findings_of(LARGER)
    assert [findings.verdict(key).word for key in ("respond-less", "deeper-respond-less")] == ["refuted", "refuted"]


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
@pytest.mark.parametrize("shortcuts", [(PLAIN, RESIDUAL), (RESIDUAL,)])
def test_every_panel_of_the_figure_has_lines(findings_of, shortcuts, seeds):
    figure = FIGURES["responses"](findings_of(shortcuts=shortcuts, seeds=seeds))
    assert all(any(len(line.get_xdata()) > 2 for line in axes.lines) for axes in figure.axes)
    assert all(np.isfinite(line.get_ydata()).all() for axes in figure.axes for line in axes.lines)
