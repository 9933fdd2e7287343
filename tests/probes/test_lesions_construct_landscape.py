"""Lesions, construct and landscape: which runs they ask for, and what they say of made-up tables."""

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from resx.probes.study import Order

from resx.figures import FIGURES
from resx.figures.construct import arms
from resx.probes import construct, landscape, lesions
from resx.spec import SpecError, build_spec
from resx.training.machine import Machine
from resx.training.resolve import resolve

BASE = {"preset": "digits"}


def order_of(study, seeds=(0, 1), base=BASE, **settings):
    resolved = study.STUDY.settings(settings)
    machine = Machine(results=Path("nowhere"))
    return Order(base, list(seeds), resolved, {}, lambda fields: resolve(fields, machine))


def words(findings):
    return [verdict.word for verdict in findings.verdicts]


# --- lesions -------------------------------------------------------------------------------------------------------


def test_lesions_plan_its_networks_and_their_controls():
    order = order_of(lesions, active="4,12")
    specs = list(dict.fromkeys(lesions.plan(order)))
    full = [spec for spec in specs if spec.train.active_blocks is None]
    kinds = {(spec.model.shortcut, spec.model.depth, spec.seed) for spec in full if spec.seed < 2}
    shallow = {("none", 20), ("identity", 20), ("identity", 56), ("identity", 8)}
    assert kinds == {(*kind, seed) for kind, seed in product(shallow, (0, 1))}
    extra = sorted(spec.seed for spec in full if spec.seed >= 2 and spec.model.depth == 8)
    assert extra == [*range(1001, 1010), *range(2001, 2010)]
    assert sorted({spec.train.active_blocks for spec in specs if spec.train.active_blocks}) == [4, 12]
    lesioned = [spec for spec in specs if lesions.STUDY.measures["lesions"].wants(spec, order.settings)]
    assert {spec.model.depth for spec in lesioned} == {20, 56}
    assert len(lesioned) == 6
    assert sum(lesions.STUDY.measures["ensembles"].wants(spec, order.settings) for spec in specs) == 2


@pytest.mark.parametrize(
    ("base", "settings", "message"),
    [
        ({**BASE, "depth": 20}, {}, "--set shallow"),
        (BASE, {"ensembles": "3*20"}, "members x depth"),
        (BASE, {"ensembles": "3x21"}, "6n"),
        (BASE, {"active": "0"}, "whole numbers"),
        (BASE, {"active": "28"}, "between 1 and 27"),
    ],
)
def test_lesions_refuse_what_cannot_be(base, settings, message):
    with pytest.raises(SpecError, match=message):
        lesions.plan(order_of(lesions, base=base, **settings))


def test_a_network_of_eight_layers_is_refused_in_one_line():
    spec = build_spec({**BASE, "depth": 8})
    reason = lesions.refuses(spec)
    assert "at least 4" in reason
    assert "\n" not in reason


def lesion_frames(plain=50.0, residual=5.0, interaction=0.0, ensemble=4.0, short=5.0, seeds=6):
    """Tables in which one removed block costs so many points, and two so much more than their sum (a share)."""
    rows, measured, ensembles, shorts = [], [], [], []
    settings = lesions.STUDY.settings({"active": "12"})
    machine = Machine(results=Path("nowhere"))
    cells = [("none", 20, None), ("identity", 20, None), ("identity", 56, None), ("identity", 56, 12)]
    for (shortcut, depth, active), seed in product(cells, range(seeds)):
        fields = {**BASE, "shortcut": shortcut, "depth": depth, "active_blocks": active, "seed": seed}
        [spec] = resolve([fields], machine)
        rng = np.random.default_rng([depth, seed, len(shortcut)])
        run = {"run_id": spec.run_id, "status": "finished", "test_error": 5.0, "test_images": 1000}
        rows.append({**spec.flat(), **run, "data_label": "made-up"})
        if active:
            shorts += [
                {"run_id": spec.run_id, "blocks": "all", "statistics": kind, "draw": 0, "error": short + error}
                for kind, error in (("re-estimated", rng.normal(0, 0.02)), ("running", 80.0))
            ]
            continue
        cost = {"none": plain, "identity": residual if depth == 20 else residual / 2}[shortcut] + rng.normal(0, 0.05)
        rise = cost / 20
        both = 2 * rise * (1 + interaction + rng.normal(0, 0.01))
        for statistics in ("running", "re-estimated"):
            lines = [("none", None, np.nan, np.nan, 0.2, 5.0)]
            lines += [("remove", f"stages.0.{k}", 1, np.nan, 0.2 + rise, 5.0 + cost) for k in range(3)]
            lines += [("remove", "stages.1.0", 1, np.nan, 9.0, 90.0)] if shortcut != "none" else []
            lines += [("random", "stages.0.0+stages.0.1+stages.0.2", 3, np.nan, 3.0, 40.0)]
            lines += [("permute", "stages.0.0+stages.0.1", 1, 0.9, 3.0, 40.0)]
            lines += [("pair", "stages.0.0+stages.0.2", 2, np.nan, 0.2 + both, 20.0)]
            table = pd.DataFrame(lines, columns=["lesion", "blocks", "count", "tau", "loss", "error"])
            measured.append(table.assign(run_id=spec.run_id, statistics=statistics, draw=0))
        if depth == 56:
            row = {"run_id": spec.run_id, "ensemble": "3 × 20", "members": 3, "cost": 0.97, "member_error": 6.0}
            ensembles.append({**row, "error": ensemble + rng.normal(0, 0.05)})
    tables = {"lesions": pd.concat(measured), "ensembles": pd.DataFrame(ensembles), "short_paths": pd.DataFrame(shorts)}
    return {"runs": pd.DataFrame(rows), **tables}, settings


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        ({}, ["supported", "supported", "supported", "supported", "refuted", "supported"]),
        (
            {"plain": 2.0, "interaction": 0.8, "ensemble": 7.0, "short": 9.0},
            ["refuted", "refuted", "supported", "refuted", "supported", "refuted"],
        ),
        ({"seeds": 2}, ["screening"] * 6),
    ],
)
def test_lesions_are_judged_by_their_criteria(made, expected):
    frames, settings = lesion_frames(**made)
    findings = lesions.judge(frames, settings)
    assert words(findings) == expected
    first = findings.verdicts[0].estimates[0]
    assert first.mean == pytest.approx(made.get("plain", 50.0) - 5.0, abs=0.2)  # the block that adapts is left out


def test_the_figure_of_lesions_shows_every_network():
    frames, _ = lesion_frames(seeds=1)
    text = " ".join(item.get_text() for axes in FIGURES["lesions"](frames).axes for item in axes.texts)
    assert all(name in text for name in ("plain-20", "residual-20", "residual-56"))


# --- construct -----------------------------------------------------------------------------------------------------


def test_construct_gives_every_arm_twice_the_steps_and_one_restart():
    specs = construct.plan(order_of(construct, seeds=[0], restart=0.5))
    by_id = {spec.run_id: spec for spec in specs}
    seconds = [spec for spec in specs if spec.init_from]
    assert len(specs) == 5
    chains = [(by_id[s.init_from.run].model.depth, s.model.depth, s.init_from.transform) for s in seconds]
    assert chains == [(20, 20, "same"), (20, 56, "deepen"), (56, 56, "same")]
    assert {spec.train.steps for spec in specs} == {276}
    assert {spec.train.lr for spec in seconds} == {0.01}
    assert {spec.model.shortcut for spec in specs} == {"none"}


@pytest.mark.parametrize(
    ("base", "settings", "message"),
    [
        ({**BASE, "shortcut": "identity"}, {}, "plain networks"),
        ({**BASE, "order": "pre"}, {}, "original order"),
        ({**BASE, "depth": 20}, {}, "--set shallow"),
        (BASE, {"restart": 0.0}, "above 0"),
        (BASE, {"deep": 20}, "above"),
    ],
)
def test_construct_refuses_what_cannot_be(base, settings, message):
    with pytest.raises(SpecError, match=message):
        construct.plan(order_of(construct, base=base, **settings))


def construct_frames(deep=45.0, constructed=1e-3, largest=1e-14, seeds=6):
    order = order_of(construct, seeds=range(seeds))
    rows, measured, curves = [], [], []
    for spec in construct.plan(order):
        transform = spec.init_from.transform if spec.init_from else None
        rng = np.random.default_rng([spec.seed, spec.model.depth])
        is_deep = spec.model.depth == 56 and transform != "deepen"
        loss = (1.5 if is_deep else constructed if transform == "deepen" else 2e-3) * rng.uniform(0.95, 1.05)
        error = deep + rng.normal() if is_deep else 0.0
        result = {"status": "finished", "train_loss": loss, "train_error": error, "test_error": error + 5}
        rows.append({**spec.flat(), "run_id": spec.run_id, **result, "data_label": "made-up"})
        step = np.arange(0, 277, 23)
        both = {f"{split}_{of}": loss + 0 * step for split in ("train", "test") for of in ("loss", "error")}
        curves.append(pd.DataFrame({"run_id": spec.run_id, "step": step, "running_loss": np.nan, **both}))
        if transform == "deepen":
            for mode, value in (("eval", largest), ("training", 0.1)):
                table = {"run_id": spec.run_id, "mode": mode, "precision": "float64", "max_difference": value}
                measured.append({**table, "mean_difference": value / 9, "scale": 2.0, "changed": 0.1})
    frames = {"runs": pd.DataFrame(rows), "curves": pd.concat(curves), "construct": pd.DataFrame(measured)}
    return frames, order.settings


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        ({}, ["supported", "supported", "supported"]),
        ({"deep": -3.0, "constructed": 1e-2, "largest": 1e-6}, ["refuted", "refuted", "refuted"]),
        ({"seeds": 1}, ["supported", "inconclusive", "inconclusive"]),  # that it exists is no matter of statistics
    ],
)
def test_construct_is_judged_by_its_criteria(made, expected):
    findings = construct.judge(*construct_frames(**made))
    assert words(findings) == expected
    assert len(findings.tables["arms"]) == 3 * made.get("seeds", 6)


def test_arms_are_told_by_where_the_weights_came_from():
    frames, _ = construct_frames(seeds=1)
    assert list(arms(frames["runs"])) == [None, None, "shallow", "constructed", "deep"]
    figure = FIGURES["construct"](frames)
    text = " ".join(item.get_text() for axes in figure.axes for item in axes.texts)
    assert all(name in text for name in ("plain-20", "plain-56", "constructed"))
    with pytest.raises(SpecError, match="no constructed network"):
        FIGURES["construct"]({**frames, "runs": frames["runs"].iloc[:3]})


# --- landscape -----------------------------------------------------------------------------------------------------


def landscape_frames(plain, residual, seeds=6):
    """plain, residual: the loss at (a, b), the same for every seed but for noise."""
    rows, measured = [], []
    axis = np.linspace(-1, 1, 5)
    for shortcut, seed in product(("none", "identity"), range(seeds)):
        spec = build_spec({**BASE, "shortcut": shortcut, "depth": 56, "seed": seed})
        rows.append({**spec.flat(), "run_id": spec.run_id, "status": "finished", "data_label": "made-up"})
        surface = plain if shortcut == "none" else residual
        rng = np.random.default_rng([seed, len(shortcut)])
        for statistics in ("batch", "running"):
            lines = [("line", 0, a, 0.0, surface(a, 0.0)) for a in axis]
            lines += [("plane", 0, a, b, surface(a, b)) for a, b in product(axis, axis)]
            table = pd.DataFrame(lines, columns=["shape", "direction", "a", "b", "loss"])
            table["loss"] += 0.05 * rng.standard_normal(len(table))
            measured.append(table.assign(run_id=spec.run_id, statistics=statistics))
    return {"runs": pd.DataFrame(rows), "landscape": pd.concat(measured)}


def bowl(a, b):
    return 1 + 3 * a**2 + 3 * b**2


def saddle(a, b):
    return 4 + 3 * a**2 - 3 * b**2


@pytest.mark.parametrize(
    ("plain", "residual", "word"),
    [(saddle, bowl, "supported"), (bowl, saddle, "refuted"), (bowl, bowl, "inconclusive")],
)
def test_landscapes_are_judged_by_the_share_that_is_not_convex(plain, residual, word):
    findings = landscape.judge(landscape_frames(plain, residual), {})
    assert words(findings) == [word]
    shares = findings.tables["landscape"].groupby("kind")["not_convex"].mean()
    assert (shares["plain"] == 100.0) == (plain is saddle)


def test_the_figure_of_landscapes_has_a_column_per_network():
    figure = FIGURES["landscape"](landscape_frames(saddle, bowl, seeds=1))
    assert [axes.get_title(loc="left") for axes in figure.axes[:2]] == ["plain-56", "residual-56"]


def test_landscape_settings_that_leave_nothing_are_refused():
    with pytest.raises(SpecError, match="at least 3"):
        landscape.plan(order_of(landscape, grid=2))
