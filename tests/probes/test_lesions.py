"""Lesions: which runs they ask for, and what is said of made-up damage of which the size is known."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest

from resx.figures import FIGURES
from resx.probes import judge, load_probe, parse_settings
from resx.probes.lesions import refuses
from resx.spec import SpecError, build_spec
from resx.training.machine import Machine
from resx.training.resolve import resolve

MEASURES = load_probe("lesions").measures


def test_the_networks_and_their_controls_are_planned(request_of):
    asked = request_of("lesions", active=(4, 12))
    specs = list(dict.fromkeys(load_probe("lesions").plan(asked)))
    full = [spec for spec in specs if spec.train.active_blocks is None]
    kinds = {(spec.model.shortcut, spec.model.depth, spec.seed) for spec in full if spec.seed < 2}
    networks = {("none", 20), ("identity", 20), ("identity", 56), ("identity", 8)}
    assert kinds == {(*network, seed) for network, seed in product(networks, (0, 1))}
    members = sorted(spec.seed for spec in full if spec.seed >= 2 and spec.model.depth == 8)
    assert members == [*range(1001, 1010), *range(2001, 2010)]
    assert sorted({spec.train.active_blocks for spec in specs if spec.train.active_blocks}) == [4, 12]
    wanted = {name: [one for one in specs if measure.wants(one, asked.settings)] for name, measure in MEASURES.items()}
    assert {spec.model.depth for spec in wanted["lesions"]} == {20, 56}
    assert {name: len(runs) for name, runs in wanted.items()} == {"lesions": 6, "ensembles": 2, "short_paths": 4}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"base": {"preset": "digits", "depth": 20}}, "--set shallow"),
        ({"ensembles": ("3x21",)}, "6n"),
        ({"active": (28,)}, "between 1 and 27"),
    ],
)
def test_what_cannot_be_is_refused(specs_of, asked, message):
    with pytest.raises(SpecError, match=message):
        specs_of("lesions", **asked)


@pytest.mark.parametrize("settings", [{"ensembles": "3*20"}, {"ensembles": "1x20"}, {"active": "0"}, {"counts": "x"}])
def test_settings_that_cannot_be_read_are_refused_by_name(settings):
    with pytest.raises(SpecError, match=next(iter(settings))):
        parse_settings(load_probe("lesions"), settings)


def test_a_network_of_eight_layers_is_refused_in_one_line():
    reason = refuses(build_spec({"preset": "digits", "depth": 8}))
    assert "at least 4" in reason
    assert "\n" not in reason


CELLS = (("none", 20, None), ("identity", 20, None), ("identity", 56, None), ("identity", 56, 12))


def findings_of(plain=50.0, residual=5.0, interaction=0.0, ensemble=5.0, short=5.0, seeds=6):
    """Judge networks that make 5 % errors, in which one removed block costs so many points, and two so much more than
    their sum (a share). ensemble, short: the errors (%) of the controls."""
    rows, measured, ensembles, shorts = [], [], [], []
    for (shortcut, depth, active), seed in product(CELLS, range(seeds)):
        fields = {"preset": "digits", "shortcut": shortcut, "depth": depth, "active_blocks": active, "seed": seed}
        [spec] = resolve([fields], Machine())
        rng = np.random.default_rng([depth, seed, len(shortcut)])
        run = {"run_id": spec.run_id, "status": "finished", "test_error": 5.0, "test_images": 1000}
        rows.append({**spec.flat(), **run, "data_label": "made-up"})
        if active:
            shorts += [
                {"run_id": spec.run_id, "blocks": "all", "statistics": kind, "draw": 0, "error": error}
                for kind, error in (("re-estimated", short + rng.normal(0, 0.02)), ("running", 80.0))
            ]
            continue
        cost = {"none": plain, "identity": residual if depth == 20 else residual / 2}[shortcut] + rng.normal(0, 0.05)
        both = 2 * cost / 20 * (1 + interaction + rng.normal(0, 0.01))
        lines = [("none", None, np.nan, 0.2, 5.0)]
        lines += [("remove", f"stages.0.{k}", 1, 0.2 + cost / 20, 5.0 + cost) for k in range(3)]
        lines += [("remove", "stages.1.0", 1, 9.0, 90.0)] if shortcut != "none" else []
        lines += [("random", "stages.0.0+stages.0.1+stages.0.2", 3, 3.0, 40.0)]
        lines += [("permute", "stages.0.0+stages.0.1", 1, 3.0, 40.0)]
        lines += [("pair", "stages.0.0+stages.0.2", 2, 0.2 + both, 20.0)]
        table = pd.DataFrame(lines, columns=["lesion", "blocks", "count", "loss", "error"])
        measured += [table.assign(run_id=spec.run_id, statistics=one, draw=0) for one in ("running", "re-estimated")]
        if depth == 56:
            row = {"run_id": spec.run_id, "ensemble": "3 × 20", "members": 3, "cost": 0.97, "member_error": 6.0}
            ensembles.append({**row, "error": ensemble + rng.normal(0, 0.05)})
    tables = {"lesions": pd.concat(measured), "ensembles": pd.DataFrame(ensembles), "short_paths": pd.DataFrame(shorts)}
    settings = parse_settings(load_probe("lesions"), {"active": "12", "ensembles": "3x20"})
    return judge("lesions", {"runs": pd.DataFrame(rows), **tables}, settings)


def words(findings):
    return {verdict.key.partition(":")[2]: verdict.word for verdict in findings.verdicts}


ALL = (
    "removal-hurts-plain-more",
    "removal-hurts-plain-more-re-estimated",
    "removal-hurts-deeper-less",
    "removals-add-up",
    "ensemble-equals-deep:ensemble 3 × 20",
    "short-paths-suffice:12 active",
)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        ({}, ["supported"] * 6),
        (
            {"plain": 2.0, "interaction": 0.8, "ensemble": 7.0, "short": 9.0},
            ["refuted", "refuted", "supported", "refuted", "refuted", "refuted"],
        ),
        ({"seeds": 2}, ["screening"] * 6),
    ],
)
def test_every_claim_is_judged_by_its_criterion(made, expected):
    findings = findings_of(**made)
    assert words(findings) == dict(zip(ALL, expected, strict=True))
    first = findings.verdict("removal-hurts-plain-more").estimates[0]
    assert first.mean == pytest.approx(made.get("plain", 50.0) - 5.0, abs=0.2)  # the block that adapts is left out


@pytest.mark.parametrize(
    ("ensemble", "word"),
    [(5.0, "supported"), (5.6, "supported"), (4.4, "supported"), (7.0, "refuted"), (3.0, "refuted")],
)
def test_an_ensemble_counts_as_like_the_deep_network_only_where_it_is_neither_better_nor_worse(ensemble, word):
    verdict = findings_of(ensemble=ensemble).verdict("ensemble-equals-deep:ensemble 3 × 20")
    assert verdict.word == word
    assert verdict.estimates[0].mean == pytest.approx(ensemble - 5.0, abs=0.1)


def test_the_figure_shows_every_network_and_the_ensemble():
    figure = FIGURES["lesions"](findings_of(seeds=1))
    text = " ".join(item.get_text() for axes in figure.axes for item in axes.texts)
    assert all(name in text for name in ("plain-20", "residual-20", "residual-56"))
    assert any("3 × 20" in text.get_text() for legend in figure.legends for text in legend.get_texts())
