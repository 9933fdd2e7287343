"""Question 1: what it runs, and how its hypotheses follow from the verdicts of its parts."""

import pytest
from resx.probes.study import Order

from resx.probes import question1
from resx.training.machine import Machine
from resx.training.resolve import resolve


@pytest.mark.parametrize(
    ("words", "word"),
    [
        (["supported", "supported"], "supported"),
        (["supported", "refuted", "inconclusive"], "refuted"),
        (["supported", "inconclusive"], "inconclusive"),
        (["screening", "supported"], "screening"),
        ([], "inconclusive"),
    ],
)
def test_a_hypothesis_stands_only_with_all_its_parts(words, word):
    assert question1.combine(words) == word


def test_question_1_trains_every_network_once_and_measures_each_probe_on_its_own_networks(tmp_path):
    machine = Machine(results=tmp_path)
    settings = {**question1.STUDY.defaults, "ensembles": "3x20", "active": "12"}
    order = Order({"preset": "digits"}, [0], settings, {}, lambda fields: resolve(fields, machine))
    specs = question1.plan(order)
    # {plain, residual} × {batch, none} × {20, 56}, one net with subsets of blocks, two more members of the ensemble
    assert len(specs) == len(set(specs)) == 8 + 1 + 2
    wanted = {
        name: sum(measure.wants(spec, settings) for spec in specs) for name, measure in question1.STUDY.measures.items()
    }
    assert wanted == {"gradients": 8, "shattering": 8, "paths": 2, "lesions": 3, "ensembles": 1, "short_paths": 1}
