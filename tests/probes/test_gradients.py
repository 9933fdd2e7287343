"""Gradients: what is said of made-up norms and correlations of which the answer is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from resx.figures import FIGURES
from resx.probes import judge
from resx.probes.gradients import DISTANCES, GradientsSettings
from resx.spec import build_spec

PLAIN, RESIDUAL = "none", "identity"
HALVES = {(PLAIN, 20): 1e-2, (PLAIN, 56): 1e-4, (RESIDUAL, 20): 1e-1, (RESIDUAL, 56): 5e-2}
ALIKE = {(PLAIN, 20): 1e-1, (PLAIN, 56): 1e-2, (RESIDUAL, 20): 1e-1, (RESIDUAL, 56): 1e-2}


@pytest.fixture(name="findings_of")
def findings_of_fixture(runs_of):
    def findings_of(plain=15.0, half=HALVES, dead=(), **runs):
        """Judge networks alike at every step but for noise by seed.

        plain: growth (% per layer) in plain networks, in residual ones it is 1. half: {(shortcut, depth): distance}.
        dead: seeds without any gradient after training.
        """
        table = runs_of(**runs)
        norms, alike = [], []
        distance = np.array(DISTANCES)
        for run in table.itertuples():
            noise = 0.1 * np.random.default_rng([run.seed, run.depth]).standard_normal()
            layer = np.arange(1, run.depth, 2)
            factor = 1 + ((plain if run.shortcut == PLAIN else 1.0) + noise) / 100
            correlation = 1 / (1 + distance / (half[run.shortcut, run.depth] * 10**noise))
            for step in (0, 10, 276):
                value = factor ** -layer.astype(float) * (step < 276 or run.seed not in dead)
                columns = {"run_id": run.run_id, "step": step, "quantity": "activation", "stage": 0, "layer": layer}
                norms.append(pd.DataFrame({**columns, "value": value}))
            alike += [
                pd.DataFrame({"run_id": run.run_id, "step": step, "distance": distance, "correlation": correlation})
                for step in (0, 276)
            ]
        frames = {"runs": table, "gradients": pd.concat(norms), "shattering": pd.concat(alike)}
        return judge("gradients", frames, GradientsSettings())

    return findings_of


@pytest.mark.parametrize(("plain", "word"), [(15.0, "refuted"), (-15.0, "supported"), (0.0, "inconclusive")])
def test_vanishing_is_judged_by_the_sign_of_the_growth(findings_of, plain, word):
    findings = findings_of(plain)
    assert [findings.verdict(key).word for key in ("vanish-initially", "vanish-in-training")] == [word, word]
    assert findings.verdict("vanish-initially").estimates[0].mean == pytest.approx(plain, abs=0.3)
    shattered, after = findings.verdict("shatter-initially"), findings.verdict("shatter-after-training")
    assert [shattered.word, after.word] == ["supported", "supported"]
    assert shattered.estimates[0].mean == pytest.approx(-2 + np.log10(2), abs=0.2)


def test_equal_effects_of_depth_are_no_shattering(findings_of):
    assert findings_of(half=ALIKE).verdict("shatter-initially").word == "inconclusive"


def test_below_six_seeds_nothing_is_more_than_screening(findings_of):
    assert {verdict.word for verdict in findings_of(seeds=(0, 1)).verdicts} <= {"screening", "inconclusive"}
    assert {verdict.word for verdict in findings_of(seeds=(0,), depths=(56,)).verdicts} == {"inconclusive"}


def test_a_diverged_run_counts_at_initialisation_only_and_is_shown(findings_of):
    findings = findings_of(diverged={(PLAIN, 56, "batch", 3)})
    seeds = [findings.verdict(key).estimates[0].n for key in ("vanish-initially", "vanish-in-training")]
    assert seeds == [6, 5]
    growth = findings.tables["growth"].set_index(["kind", "depth", "phase"])
    assert growth.loc[("plain", 56, "initial"), "diverged"] == 1


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
@pytest.mark.parametrize("shortcuts", [(PLAIN, RESIDUAL), (RESIDUAL,)])
def test_every_panel_of_the_figure_has_lines_and_a_dead_network_is_left_out(findings_of, shortcuts, seeds):
    figure = FIGURES["gradients"](findings_of(shortcuts=shortcuts, seeds=seeds, dead=(1,)))
    assert len(figure.axes) == 3 * len(shortcuts)
    assert all(any(len(line.get_xdata()) > 2 for line in axes.lines) for axes in figure.axes)
    assert all(np.isfinite(line.get_ydata()).all() for axes in figure.axes for line in axes.lines)
    assert all(legend.get_texts() for legend in figure.legends)


def border_frames(growth: dict[tuple[str, int | None], float]) -> dict[str, pd.DataFrame]:
    """growth: % per layer of networks without normalisation, by (padding, image size); others have +10 %."""
    runs, norms, alike = [], [], []
    for (padding, size), rate in growth.items():
        for norm in ("batch", "none"):
            for shortcut in ("none", "identity"):
                for seed in range(6):
                    fields = {"depth": 56, "shortcut": shortcut, "norm": norm, "seed": seed, "image_size": size}
                    spec = build_spec({**fields, "padding": None if padding == "zeros" else padding})
                    runs.append({**spec.flat(), "run_id": spec.run_id, "status": "finished", "data_label": "made-up"})
                    layer = np.arange(1, 56, 2)
                    noise = 0.1 * np.random.default_rng([seed, size or 0]).standard_normal()
                    factor = 1 + ((rate if norm == "none" else 10.0) + noise) / 100
                    at = {"run_id": spec.run_id, "step": 0}
                    norms.append(
                        pd.DataFrame(
                            {
                                **at,
                                "quantity": "activation",
                                "stage": 0,
                                "layer": layer,
                                "value": factor ** -layer.astype(float),
                            }
                        )
                    )
                    alike.append(pd.DataFrame({**at, "distance": DISTANCES, "correlation": 0.1}))
    return {"runs": pd.DataFrame(runs), "gradients": pd.concat(norms), "shattering": pd.concat(alike)}


@pytest.mark.parametrize(("wrapped", "expected"), [(-1.0, "supported"), (-16.0, "refuted"), (-4.0, "inconclusive")])
def test_the_border_is_blamed_where_circular_padding_removes_most_of_the_shrinking(
    wrapped: float, expected: str
) -> None:
    rates = {("zeros", 8): -16.0, ("circular", 8): wrapped, ("zeros", None): -3.0, ("circular", None): -1.0}
    findings = judge("gradients", border_frames(rates), GradientsSettings())
    verdict = findings.verdict("border-not-depth")
    assert verdict and verdict.word == expected
    vanish = findings.verdict("vanish-initially")
    assert vanish and vanish.word == "refuted"
    assert vanish.deciding == 4  # with zeros and circular padding, at 8×8 and at full size
    names = [one.name for one in verdict.estimates]
    assert "growth per layer towards the input (%), plain-56 − 0.25·plain-56" not in names[0]
    figure = FIGURES["gradients"](findings)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["8×8", "full size"]


def test_one_padding_and_one_size_are_not_named() -> None:
    findings = judge("gradients", border_frames({("zeros", 16): -16.0}), GradientsSettings())
    assert findings.verdict("border-not-depth") is None
    verdict = findings.verdict("vanish-initially")
    assert verdict and verdict.estimates[0].name == "growth per layer towards the input (%), plain-56, initial"
