"""Construct: the chains of runs that it asks for, and what is said of made-up arms of which the outcome is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from resx.figures import FIGURES
from resx.probes import judge, load_probe, parse_settings
from resx.spec import SpecError

PROBE = load_probe("construct")


def test_every_arm_has_twice_the_steps_and_one_restart(specs_of):
    specs = specs_of("construct", seeds=[0], restart=0.5)
    by_id = {spec.run_id: spec for spec in specs}
    seconds = [spec for spec in specs if spec.init_from]
    assert len(specs) == 5
    chains = [(by_id[s.init_from.run].model.depth, s.model.depth, s.init_from.transform) for s in seconds]
    assert chains == [(20, 20, "same"), (20, 56, "deepen"), (56, 56, "same")]
    assert {spec.train.steps for spec in specs} == {276}
    assert {spec.train.lr for spec in seconds} == {0.01}
    assert {spec.model.shortcut for spec in specs} == {"none"}
    assert [PROBE.measures["construct"].wants(spec, None) for spec in seconds] == [False, True, False]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"base": {"preset": "digits", "shortcut": "identity"}}, "plain networks"),
        ({"base": {"preset": "digits", "order": "pre"}}, "original order"),
        ({"base": {"preset": "digits", "depth": 20}}, "--set shallow"),
        ({"deep": 20}, "above"),
    ],
)
def test_what_cannot_be_is_refused(specs_of, asked, message):
    with pytest.raises(SpecError, match=message):
        specs_of("construct", **asked)


def test_a_rate_of_nothing_is_refused():
    with pytest.raises(SpecError, match="restart"):
        parse_settings(PROBE, {"restart": 0.0})


@pytest.fixture(name="frames_of")
def frames_of_fixture(specs_of):
    def frames_of(deep=45.0, constructed=1e-3, largest=1e-14, seeds=6):
        """Return tables of arms. deep: the deep arm's training error (%); constructed: the loss of the built network;
        largest: how far its outputs are from the shallow one's. The shallow arm's loss is 2e-3."""
        rows, measured, curves = [], [], []
        for spec in specs_of("construct", seeds=range(seeds)):
            transform = spec.init_from.transform if spec.init_from else None
            rng = np.random.default_rng([spec.seed, spec.model.depth])
            is_deep = spec.model.depth == 56 and transform != "deepen"
            loss = (1.5 if is_deep else constructed if transform == "deepen" else 2e-3) * rng.uniform(0.95, 1.05)
            error = deep + rng.normal() if is_deep else 0.0
            result = {"status": "finished", "train_loss": loss, "test_loss": loss}
            result |= {"train_error": error, "test_error": error + 5, "data_label": "made-up"}
            rows.append({**spec.flat(), "run_id": spec.run_id, **result})
            step = np.arange(0, 277, 23)
            both = {f"{split}_{of}": loss + 0 * step for split in ("train", "test") for of in ("loss", "error")}
            curves.append(pd.DataFrame({"run_id": spec.run_id, "step": step, "running_loss": np.nan, **both}))
            if transform == "deepen":
                for mode, value in (("eval", largest), ("training", 0.1)):
                    table = {"run_id": spec.run_id, "mode": mode, "precision": "float64", "max_difference": value}
                    measured.append({**table, "mean_difference": value / 9, "scale": 2.0, "changed": 0.1})
        return {"runs": pd.DataFrame(rows), "curves": pd.concat(curves), "construct": pd.DataFrame(measured)}

    return frames_of


def judged(frames):
    return judge("construct", frames, PROBE.settings())


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        ({}, ["supported", "supported", "supported"]),
        ({"deep": -3.0, "constructed": 1e-2, "largest": 1e-6}, ["refuted", "refuted", "refuted"]),
        ({"seeds": 1}, ["supported", "inconclusive", "inconclusive"]),  # that it exists is no matter of statistics
    ],
)
def test_every_claim_is_judged_by_its_criterion(frames_of, made, expected):
    findings = judged(frames_of(**made))
    keys = ("solution-exists", "not-found", "constructed-gets-better")
    assert [findings.verdict(key).word for key in keys] == expected
    assert findings.verdict("solution-exists").estimates[0].mean == made.get("largest", 1e-14)
    assert findings.verdict("not-found").estimates[0].mean == pytest.approx(made.get("deep", 45.0), abs=1.5)
    assert len(findings.tables["outcomes"]) == 3 * made.get("seeds", 6)


def test_one_network_that_differs_refutes_that_all_are_the_same(frames_of):
    frames = frames_of()
    frames["construct"].loc[frames["construct"]["mode"] == "eval", "max_difference"] = [1e-14] * 5 + [1e-3]
    verdict = judged(frames).verdict("solution-exists")
    assert (verdict.word, verdict.estimates[0].mean) == ("refuted", 1e-3)


def test_arms_are_named_by_where_the_weights_came_from(frames_of):
    findings = judged(frames_of(seeds=1))
    assert list(findings.tables["outcomes"]["arm"]) == ["shallow", "constructed", "deep"]
    curves = findings.tables["curves"].groupby("arm")["step"]
    assert curves.max().to_dict() == dict.fromkeys(("shallow", "constructed", "deep"), 552)
    figure = FIGURES["construct"](findings)
    text = " ".join(item.get_text() for axes in figure.axes for item in axes.texts)
    assert all(name in text for name in ("plain-20", "plain-56", "constructed"))


def test_runs_without_a_constructed_network_and_mixed_rates_are_refused(frames_of):
    frames = frames_of(seeds=1)
    with pytest.raises(SpecError, match="no network was constructed"):
        judged({**frames, "runs": frames["runs"].iloc[:3]})
    frames["runs"].loc[frames["runs"].index[-1], "lr"] = 0.5
    with pytest.raises(SpecError, match="different rates"):
        judged(frames)
