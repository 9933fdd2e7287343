"""Interventions judged on made-up runs of which the answer is clear, and what the probe plans."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from resx.figures import FIGURES
from resx.probes import Findings, Request, gradients, judge, load_probe, parse_settings, planned
from resx.probes.interventions import ARMS
from resx.training.machine import Machine
from resx.training.resolve import resolve

# log10 of the loss and of the half-distance, by arm; the rest is like a plain network
CLEAR = {
    "plain": (0.2, -4.4),
    "residual": (-2.8, -1.4),
    "looks-linear plain": (-2.2, 0.0),
    "weak shortcut": (0.1, -4.2),
}


def frames(ends: dict[str, tuple[float, float]], seeds: int = 6) -> dict[str, pd.DataFrame]:
    probe = load_probe("interventions")
    settings = parse_settings(probe, {})
    request = Request({"preset": "digits"}, range(seeds), settings, lambda cells: resolve(cells, Machine()))
    words = {fields["shortcut"]: name for name, fields in ARMS.items()}
    distance = np.array(gradients.DISTANCES)
    runs, norms, alike = [], [], []
    for place, spec in enumerate(planned(probe, request)):
        start = spec.model.init or ("crelu" if spec.model.activation else None)
        loss, half = ends.get(f"{start} plain" if start else words[spec.model.shortcut], CLEAR["plain"])
        noise = 0.02 * np.random.default_rng([place]).standard_normal()
        result = {
            "status": "finished",
            "data_label": "made-up",
            "parameters": 1,
            "train_error": 1.0,
            "test_error": 2.0,
            "test_loss": 0.1,
        }
        runs.append(
            {**spec.flat(), **result, "run_id": spec.run_id, "train_loss": 10 ** (loss + noise), "content": None}
        )
        layer = np.arange(1, spec.model.depth, 2)
        for step in (0, 276):
            at = {"run_id": spec.run_id, "step": step}
            norms.append(
                pd.DataFrame({**at, "quantity": "activation", "stage": 0, "layer": layer, "value": 1.1**-layer})
            )
            correlation = 1 / (1 + distance / 10 ** (half + noise))
            alike.append(pd.DataFrame({**at, "distance": distance, "correlation": correlation}))
    return {"runs": pd.DataFrame(runs), "gradients": pd.concat(norms), "shattering": pd.concat(alike)}


def findings(ends: dict[str, tuple[float, float]], **more: Any) -> Findings:
    return judge("interventions", frames(ends, **more), parse_settings(load_probe("interventions"), {}))


def word(judged: Findings, key: str) -> str:
    verdict = judged.verdict(key)
    assert verdict
    return verdict.word


@pytest.mark.parametrize(
    ("share", "expected"),
    [(1.0, "supported"), (0.6, "supported"), (0.3, "inconclusive"), (0.05, "refuted"), (-0.2, "refuted")],
)
def test_an_arm_is_judged_by_the_share_of_the_gap_that_it_closes(share: float, expected: str) -> None:
    (plain, _), (residual, _) = CLEAR["plain"], CLEAR["residual"]
    judged = findings({**CLEAR, "looks-linear plain": (plain - share * (plain - residual), 0.0)})
    assert word(judged, "unshattered-trains") == expected
    assert word(judged, "dirac-trains") == "refuted"  # it is like the plain network
    assert word(judged, "shattered-fails") == "supported"
    assert word(judged, "looks-linear-is-unshattered") == "supported"
    assert word(judged, "weak-shortcut-is-shattered") == "supported"
    assert word(judged, "dirac-is-unshattered") == "refuted"


def test_a_weak_shortcut_that_trains_refutes_the_contrary() -> None:
    assert word(findings({**CLEAR, "weak shortcut": CLEAR["residual"]}), "shattered-fails") == "refuted"


def test_few_seeds_only_screen() -> None:
    judged = findings(CLEAR, seeds=3)
    assert word(judged, "unshattered-trains") == "screening"
    assert {one.word for one in judged.verdicts} <= {"screening", "inconclusive"}


def test_the_criterion_says_both_thresholds() -> None:
    verdict = findings(CLEAR).verdict("unshattered-trains")
    loss = "log10 of the final training loss"
    assert verdict and verdict.criterion == (
        f"supported where {loss}, 0.5·plain-56 − looks-linear plain-56 + 0.5·residual-56 is above 0, "
        f"refuted where {loss}, 0.9·plain-56 − looks-linear plain-56 + 0.1·residual-56 is below 0"
    )


def test_networks_with_crelus_have_about_as_many_parameters_and_a_width_that_is_given_is_theirs_too() -> None:
    probe = load_probe("interventions")
    for width, narrow in ((None, 11), (32, 23)):
        base = {"preset": "digits"} | ({"width": width} if width else {})
        request = Request(base, [0], parse_settings(probe, {}), lambda cells: resolve(cells, Machine()))
        widths = {spec.model.activation: spec.model.width for spec in planned(probe, request)}
        assert widths == {None: width or 16, "crelu": narrow}


def test_the_figure_draws_every_network() -> None:
    figure = FIGURES["interventions"](findings(CLEAR))
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names[:2] == ["plain-56", "residual-56"]
    assert len(names) == 9 + 4 + 3
