"""Question 1: what it runs, and how its hypotheses follow from the claims of its parts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from resx.claims import Combination, Verdict, combine
from resx.probes import load_probe
from resx.stats import Estimate

PROBE = load_probe("question1")
ESTIMATE = Estimate("", 0.0, 0.0, 0.0, 6)
PARTS = {
    "vanishing": ["gradients:vanish-initially", "gradients:vanish-in-training"],
    "shattering": ["gradients:shatter-initially"],
    "many-shallow-networks": [
        "paths:short-paths",
        "lesions:removal-hurts-plain-more",
        "lesions:ensemble-equals-deep",
    ],
}


def hypothesis(key: str) -> Combination:
    return next(claim for claim in PROBE.claims if claim.key == key)


def test_a_hypothesis_rests_on_claims_of_its_parts():
    assert {claim.key: list(claim.parts) for claim in PROBE.claims} == PARTS


@pytest.mark.parametrize(
    ("words", "word"),
    [
        (["supported", "supported"], "supported"),
        (["supported", "refuted"], "refuted"),
        (["inconclusive", "refuted"], "refuted"),
        (["supported", "inconclusive"], "inconclusive"),
        (["screening", "supported"], "screening"),
        (["supported"], "inconclusive"),
        (["refuted"], "refuted"),
        ([], "inconclusive"),
    ],
)
def test_a_hypothesis_stands_only_with_all_its_parts(words, word):
    judged = {key: Verdict(key, "", "", one, (ESTIMATE,)) for key, one in zip(PARTS["vanishing"], words, strict=False)}
    assert combine(hypothesis("vanishing"), judged).word == word


@pytest.mark.parametrize(
    ("words", "word"),
    [(("supported", "supported"), "supported"), (("supported", "refuted"), "refuted")],
)
def test_every_ensemble_that_was_measured_counts(words, word):
    keys = ["paths:short-paths", "lesions:removal-hurts-plain-more"]
    judged = {key: Verdict(key, "", "", "supported", (ESTIMATE,)) for key in keys}
    for size, one in zip(("3 × 20", "10 × 8"), words, strict=True):
        key = f"lesions:ensemble-equals-deep:ensemble {size}"
        judged[key] = replace(judged[keys[0]], key=key, word=one)
    assert combine(hypothesis("many-shallow-networks"), judged).word == word


def test_every_network_is_trained_once_and_each_measurement_has_its_own_networks(request_of):
    asked = request_of("question1", seeds=[0], ensembles=("3x20",), active=(12,))
    specs = list(dict.fromkeys(PROBE.plan(asked)))
    # {plain, residual} × {batch, none} × {20, 56}, one net with subsets of blocks, two more members of the ensemble
    assert len(specs) == 8 + 1 + 2
    wanted = {
        name: sum(measure.wants(spec, asked.settings) for spec in specs) for name, measure in PROBE.measures.items()
    }
    assert wanted == {"gradients": 8, "shattering": 8, "paths": 2, "lesions": 3, "ensembles": 1, "short_paths": 1}


def test_settings_reach_every_part(request_of):
    settings = request_of("question1", inputs=8, samples=3, margin=2.0).settings
    parts = {name: part.settings(settings) for name, part in PROBE.parts.items()}
    assert (parts["gradients"].inputs, parts["paths"].inputs) == (8, 8)
    assert (parts["paths"].samples, parts["lesions"].margin) == (3, 2.0)
