"""Degradation: what is judged, on made tables with a known answer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest

from resx.figures import FIGURES
from resx.probes import Findings, judge
from resx.probes.degradation import DegradationSettings
from resx.probes.page import shown_tables
from resx.spec import RunSpec, SpecError

ERRORS = {("none", 20): 5.0, ("none", 56): 25.0, ("identity", 20): 5.0, ("identity", 56): 4.0}


def made(errors: Mapping[tuple[str, int], float] = ERRORS, seeds: int = 6, lost: tuple[tuple[str, int, int], ...] = ()):
    """Return runs whose training error is the network's, plus a seed's own and a little noise."""
    stream, rows = np.random.default_rng(0), []
    for (shortcut, depth), error in errors.items():
        for seed in range(seeds):
            value = error + seed + stream.normal(0, 0.1)
            row = {**RunSpec().flat(), "shortcut": shortcut, "depth": depth, "seed": seed, "parameters": 1000 * depth}
            row |= {
                "run_id": f"{shortcut}-{depth}-{seed}",
                "test_images": 297,
                "data_label": "digits",
                "reference": None,
            }
            row |= {"status": "diverged" if (shortcut, depth, seed) in lost else "finished", "train_loss": value / 100}
            rows.append({**row, "train_error": value, "test_error": value + 1, "test_loss": value / 100})
    return {"runs": pd.DataFrame(rows), "curves": pd.DataFrame({"run_id": []})}


def judged(frames, **settings: object) -> Findings:
    return judge("degradation", frames, DegradationSettings.model_validate(settings))


def test_depth_that_costs_only_plain_networks() -> None:
    findings = judged(made())
    words = {verdict.key: verdict.word for verdict in findings.verdicts}
    assert words == {
        "degradation:depth-costs-plain-more": "supported",
        "degradation:plain-degrades": "supported",
        "degradation:plain-training-error": "supported",
        "degradation:residual-trains-deeper": "supported",
        "degradation:lower-training-error": "supported",
        "degradation:lower-training-loss": "supported",
        "degradation:lower-test-error": "supported",
    }
    verdict = findings.verdict("depth-costs-plain-more")
    assert verdict
    assert verdict.estimates[0].mean == pytest.approx(21.0, abs=0.3)
    assert verdict.scale == "toy"


def test_the_contrary_is_refuted() -> None:
    swapped = {("none" if kind == "identity" else "identity", depth): error for (kind, depth), error in ERRORS.items()}
    findings = judged(made(swapped))
    assert {verdict.word for verdict in findings.verdicts} == {"refuted"}


def test_the_primary_outcome_decides() -> None:
    frames = made()
    frames["runs"]["train_error"] = 0.0
    assert judged(frames).verdict("depth-costs-plain-more").word == "inconclusive"
    assert judged(frames, primary="log10_train_loss").verdict("depth-costs-plain-more").word == "supported"


def test_a_diverged_network_costs_the_others_no_seed() -> None:
    findings = judged(made({**ERRORS, ("negation", 56): 9.0, ("negation", 20): 9.0}, lost=(("negation", 56, 0),)))
    effects = findings.effects[findings.effects["family"] == "train_error"].set_index("effect")
    plain = effects.loc["final training error (%), plain-56 − plain-20"]
    other = effects.loc["final training error (%), negation-56 − negation-20"]
    assert (plain["n"], plain["p"]) == (6, 2 / 2**6)
    assert other["n"] == 5
    assert np.isnan(other["p"])
    networks = findings.tables["networks"].set_index("network")
    assert networks.loc["negation-56", "diverged"] == 1


def test_below_six_seeds_nothing_is_more_than_screening() -> None:
    assert {verdict.word for verdict in judged(made(seeds=5)).verdicts} <= {"screening", "inconclusive"}


def test_one_depth_still_compares_the_kinds() -> None:
    findings = judged(made({key: value for key, value in ERRORS.items() if key[1] == 56}))
    assert findings.verdict("lower-training-error").word == "supported"
    assert findings.verdict("depth-costs-plain-more") is None


def test_the_papers_errors_stand_next_to_the_papers_networks_only() -> None:
    frames = made()
    assert judged(frames).tables["networks"]["paper"].isna().all()
    frames["runs"]["reference"] = "cifar10"
    networks = judged(frames).tables["networks"].set_index("network")["paper"]
    assert networks["residual-56"] == 6.97


def test_no_run_is_a_line() -> None:
    with pytest.raises(SpecError, match="no finished run"):
        judged({"runs": made()["runs"].head(0), "curves": pd.DataFrame()})


MINE = {**ERRORS, ("mine", 20): 5.0, ("mine", 56): 3.0}


def test_ones_own_shortcut_is_answered_first_at_every_depth() -> None:
    findings = judged(made(MINE))
    first, second = findings.verdicts[:2]
    assert (first.key, second.key) == ("degradation:beats-identity:mine:20", "degradation:beats-identity:mine:56")
    assert (first.word, second.word) == ("inconclusive", "supported")
    assert second.says == "mine trains better than the identity (56 layers)"
    arms = findings.tables["arms"].set_index(["kind", "depth"])
    assert dict(arms.loc["mine", "word"]) == {20: "same", 56: "better"}
    assert arms.loc[("plain", 56), "word"] == "worse"
    assert arms.loc[("mine", 56), "p"] == second.estimates[0].p  # the table's family is the claims'
    assert arms.loc[("mine", 56), "difference"] == pytest.approx(-1.0, abs=0.2)
    assert next(iter(shown_tables(findings))) == "arms"
    assert "mine against the identity: same at 20 layers; better at 56 layers." in findings.notes()


def test_the_contrary_of_a_shortcut_of_ones_own_is_refuted() -> None:
    findings = judged(made({**ERRORS, ("mine", 20): 9.0, ("mine", 56): 9.0}))
    assert [verdict.word for verdict in findings.verdicts[:2]] == ["refuted", "refuted"]
    assert set(findings.tables["arms"]["word"].iloc[2:]) == {"worse"}


def test_one_depth_and_few_seeds_compare_plain_with_the_identity() -> None:
    one = {key: value for key, value in MINE.items() if key[1] == 56}
    assert list(judged(made(one)).tables["arms"]["word"]) == ["worse", "better"]
    arms = judged(made(one, seeds=3)).tables["arms"]
    assert set(arms["word"]) == {"inconclusive"}
    assert arms["difference"].notna().all()


def test_the_figure_shows_a_line_for_each_kind() -> None:
    figure = FIGURES["depth"](judged(made(MINE)))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["plain", "residual", "mine"]
    assert len(figure.axes) == 3
    drawn = [line for line in figure.axes[0].get_lines() if line.get_marker() == "o"]
    assert [round(line.get_ydata()[-1] - 2.5) for line in drawn] == [25, 4, 3]
    FIGURES["depth"](judged(made({("none", 56): 5.0, ("identity", 56): 4.0}, seeds=1)))
