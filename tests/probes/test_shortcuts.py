"""The probe of shortcut functions: what is run, and what is said of made tables with a known answer and with none."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resx import data, model
from resx.figures import FIGURES
from resx.model import SHORTCUTS
from resx.paper import IDENTITY_TABLE_1
from resx.probes import Findings, Request, judge, planned
from resx.probes.shortcuts import PROBE, SINCE, TABLE_1, ShortcutsSettings, plan
from resx.spec import RunSpec, SpecError, build_spec

SETTINGS = ShortcutsSettings()


def resolve(cells: Any) -> list[RunSpec]:
    specs = [build_spec(cell, (model.check_names, data.check_names)) for cell in cells]
    return [spec.model_copy(update={"model": model.complete(spec.model)}) for spec in specs]


def request(base: Mapping[str, Any] | None = None, settings: Any = SETTINGS, seeds: int = 2, **grid: Any) -> Request:
    return Request({"preset": "digits", **(base or {})}, range(seeds), settings, resolve, [grid])


@cache
def planned_once(seeds: int, grid: tuple[tuple[str, tuple[Any, ...]], ...]) -> list[RunSpec]:
    return plan(request(seeds=seeds, **dict(grid)))


def made(effects: Mapping[str, float], seeds: int = 6, noise: float = 0.02, **grid: Any) -> dict[str, pd.DataFrame]:
    """Return frames of a plan: log10 loss is −3 plus a function's effect (a share of it at a smaller depth), a seed's
    own level and noise; the spectrum says the effect.
    """
    return frames_of(
        planned_once(seeds, tuple((key, tuple(values)) for key, values in grid.items())), effects, seeds, noise
    )


def frames_of(
    specs: list[RunSpec], effects: Mapping[str, float], seeds: int, noise: float = 0.02
) -> dict[str, pd.DataFrame]:
    """Return the runs and spectra of these specs, as `made` says."""
    stream = np.random.default_rng(1)
    shortcut = {spec.run_id: spec.model.shortcut for spec in specs}
    names = {"none": "plain", "identity": "residual"}
    rows = []
    for spec in specs:
        start = spec.init_from
        name = f"fitted to {names[shortcut[start.run]]}" if start and start.run else spec.model.shortcut
        effect = effects.get(name, 0.0) * spec.model.depth / 32
        rows.append({**spec.flat(), "run_id": spec.run_id, "effect": effect})
    runs = pd.DataFrame(rows).assign(
        status="finished", test_loss=0.1, train_error=0.0, test_error=5.0, multiply_adds=1000, parameters=10,
        data_label="made-up digits", test_images=297,
    )  # fmt: skip
    level = runs["seed"].map(dict(enumerate(stream.normal(size=seeds))))
    runs["train_loss"] = 10 ** (-3 + runs["effect"] + level + noise * stream.normal(size=len(runs)))
    spectrum = pd.DataFrame({"image": 0, "rank": 1, "value": 10 ** -runs["effect"], "run_id": runs["run_id"]})
    return {"runs": runs.drop(columns="effect"), "spectrum": spectrum}


def words(findings: Findings) -> dict[str, str]:
    return {verdict.key.removeprefix("shortcuts:"): verdict.word for verdict in findings.verdicts}


def table(findings: Findings, name: str, order: str = "pre", depth: int = 32) -> pd.DataFrame:
    rows = findings.tables[name]
    return rows[(rows["order"] == order) & (rows["depth"] == depth)].set_index("shortcut")


def test_the_plan_holds_every_function_in_both_orders_with_donors_first() -> None:
    specs = plan(request())
    ids = [spec.run_id for spec in specs]
    texts = {spec.model.shortcut for spec in specs}
    fitted = [spec for spec in specs if spec.init_from]
    assert len(set(ids)) == len(ids) == 2 * 2 * (len(texts) + 1)  # `fitted` comes from two donors
    names = {text.partition(":")[0] for text in texts}
    assert names == {"none", "identity"} | {name for name in SHORTCUTS if hasattr(SHORTCUTS[name], "kind")}
    for spec in fitted:
        assert spec.init_from
        assert spec.init_from.run
        donor = specs[ids.index(spec.init_from.run)]
        assert (donor.seed, donor.model.order, donor.model.depth) == (spec.seed, spec.model.order, spec.model.depth)
        assert donor.model.shortcut in ("none", "identity")


def test_one_function_alone_is_compared_with_the_identity_and_none() -> None:
    specs = plan(request({"shortcut": "negation", "order": "pre"}))
    assert {spec.model.shortcut for spec in specs} == {"none", "identity", "negation"}
    assert {spec.model.order for spec in specs} == {"pre"}
    assert plan(request(shortcut=["negation"], order=["pre"], depth=[32])) == specs


def test_several_depths_and_grids_are_planned_once_each() -> None:
    specs = planned(PROBE, request(shortcut=["negation"], depth=[20, 56]))
    assert {(spec.model.depth, spec.model.order) for spec in specs} == {
        (20, "pre"), (20, "post"), (56, "pre"), (56, "post"),
    }  # fmt: skip
    union = [{"shortcut": ["negation"], "depth": [20, 56]}, {"shortcut": ["rezero"], "depth": [20], "seed": [0]}]
    both = planned(PROBE, Request({"preset": "digits"}, [0, 1], SETTINGS, resolve, union))
    assert set(specs) < set(both)
    assert [(spec.model.depth, spec.seed) for spec in both if spec.model.shortcut == "rezero"] == [(20, 0)] * 2


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        (request(adapter=["A", "B"]), "at one adapter"),
        (request(settings=ShortcutsSettings(donors=("fitted",))), "needs a donor itself"),
        (request(settings=ShortcutsSettings(donors=("identty",))), "setting 'donors': .*did you mean 'identity'"),
        (request(settings=ShortcutsSettings(margin=0.1), shortcut=["negation"]), "less than two of 297 test images"),
    ],
)
def test_what_cannot_be_answered_is_refused_before_training(asked: Request, line: str) -> None:
    with pytest.raises(SpecError, match=line):
        plan(asked)


def test_the_words_of_table_1_are_the_papers_and_the_functions_exist() -> None:
    assert set(TABLE_1.values()) < set(IDENTITY_TABLE_1)
    for text in TABLE_1:
        assert SHORTCUTS.complete(text) == text


KNOWN = {
    "negation": 1.0, "permutation": 0.8, "orthogonal": 1.2, "gaussian": 2.0, "lowrank:fraction=0.5": 1.5,
    "fitted to residual": -1.0, "conv:init=he": 1.0, "learned-scalar:start=0.0": 1.0, "learned-channels:start=0.0": 1.1,
}  # fmt: skip


def test_a_known_answer_is_supported() -> None:
    findings = judge("shortcuts", made(KNOWN), SETTINGS)
    judged = words(findings)
    others = ["asked", *(claim.key for claim in PROBE.claims if getattr(claim, "family", "") == SINCE)]
    assert list(judged) == [claim.key for claim in PROBE.claims if claim.key not in others]  # a survey
    assert {key: judged[key] for key in ("fixed-maps-worse", "known", "start-matters", "relu-cuts")} == {
        "fixed-maps-worse": "supported",
        "known": "supported",
        "start-matters": "supported",
        "relu-cuts": "inconclusive",
    }
    fixed = findings.verdict("fixed-maps-worse")
    assert fixed
    assert fixed.estimates[0].mean == pytest.approx(1.3, abs=0.03)
    assert [one.name.split(", ")[2] for one in fixed.estimates] == ["pre", "post"]
    ranking = table(findings, "ranking")
    last = len(ranking)
    assert (ranking.loc["fitted to residual", "rank"], ranking.loc["gaussian", "rank"]) == (1, last)
    assert ranking.loc["gaussian", "difference"] == pytest.approx(2, abs=0.1)
    assert ranking.loc["identity", "difference"] == 0
    assert ranking.loc["negation", "kind"] == "fixed"
    errors = table(findings, "errors", "post")
    assert (errors.loc[["negation", "fitted to residual"], "compute"] == [1, 2]).all()
    assert errors.loc["conv:init=he", "table_1"] == "12.22 %"
    assert findings.effects["family"].unique() == ["planned contrasts"]


def test_the_contrary_is_refuted_and_nothing_is_inconclusive() -> None:
    opposite = words(judge("shortcuts", made({name: -effect for name, effect in KNOWN.items()}), SETTINGS))
    assert (opposite["fixed-maps-worse"], opposite["known"]) == ("refuted", "refuted")
    nothing = made({})
    del nothing["spectrum"]
    assert set(words(judge("shortcuts", nothing, SETTINGS)).values()) == {"inconclusive"}


def test_few_seeds_never_judge() -> None:
    assert set(words(judge("shortcuts", made(KNOWN, seeds=2), SETTINGS)).values()) <= {"screening", "inconclusive"}


@pytest.mark.parametrize(("effect", "word"), [(-0.5, "supported"), (0.5, "refuted"), (0.0, "inconclusive")])
def test_a_function_that_is_asked_for_has_the_first_claim(effect: float, word: str) -> None:
    findings = judge("shortcuts", made({"rezero": effect}, shortcut=["rezero"]), SETTINGS)
    first = findings.verdicts[0]
    assert (first.key, first.word) == ("shortcuts:asked:rezero", word)
    assert first.says == "rezero trains better than the identity (pre-activation order, 32 layers)"
    assert findings.answer[0].startswith(first.says)
    assert [one.name.split(", ")[2] for one in first.estimates] == ["pre", "post"]
    assert "spectrum-explains" not in words(findings)  # three functions have no ranking to explain


def test_each_of_several_functions_has_a_claim_of_its_own() -> None:
    grid = {"shortcut": ["rezero", "negation", "fitted"], "order": ["post"]}
    judged = words(judge("shortcuts", made({"rezero": -0.5, "negation": 0.5}, **grid), SETTINGS))
    assert {key: word for key, word in judged.items() if key.startswith("asked")} == {
        "asked:rezero": "supported",
        "asked:negation": "refuted",
    }
    assert "known" in judged  # which is the claim on `fitted`


def test_depths_and_orders_have_rankings_and_contrasts_of_their_own() -> None:
    findings = judge("shortcuts", made(KNOWN, depth=[14, 32], shortcut=["negation", "orthogonal"]), SETTINGS)
    fixed = findings.verdict("fixed-maps-worse")
    assert fixed
    assert "32 layers" in fixed.says
    effects = findings.effects[findings.effects["effect"].str.contains("fixed maps − identity")]
    assert [name.split(", ")[2:] for name in effects["effect"]] == [
        ["pre", "14 layers"], ["pre", "32 layers"], ["post", "14 layers"], ["post", "32 layers"],
    ]  # fmt: skip
    assert list(effects["mean"]) == pytest.approx([1.1 * 14 / 32, 1.1] * 2, abs=0.03)
    for depth, mean in ((14, 14 / 32), (32, 1.0)):
        assert table(findings, "ranking", "post", depth).loc["negation", "difference"] == pytest.approx(mean, abs=0.05)
    assert findings.tables["ranking"].groupby(["order", "depth"])["rank"].max().eq(4).all()


def test_functions_since_2016_are_one_family_at_each_depth_and_the_deep_gate_has_as_many_parameters() -> None:
    names = ["mixing", "doubly-stochastic", "hyper", "exclusive-gate:bias=-6", "delta"]
    union = [
        {"shortcut": names, "depth": [14, 32], "order": ["pre"]},
        {"shortcut": ["highway"], "width": [11], "depth": [14, 32], "order": ["pre"]},
    ]
    specs = planned(PROBE, Request({"preset": "digits"}, range(6), SETTINGS, resolve, union))
    assert {spec.model.shortcut for spec in specs if spec.model.width == 11} == {"highway:bias=-6.0"}
    known = {"mixing:groups=4": 0.5, "highway:bias=-6.0": -0.5, "delta:beta=1.0": 0.5, "hyper:streams=4": -0.5}
    findings = judge("shortcuts", {"runs": frames_of(specs, known, 6)["runs"]}, SETTINGS)
    judged = words(findings)
    assert {key: judged.get(key) for key in (
        "constraint-helps", "doubly-stochastic-better", "delta-better", "deep-gate-helps", "deep-gate-better",
        "streams-help", "constrained-streams-help", "perpendicular-better",
    )} == {
        "constraint-helps": "supported", "doubly-stochastic-better": "inconclusive", "delta-better": "refuted",
        "deep-gate-helps": "supported", "deep-gate-better": "supported", "streams-help": "supported",
        "constrained-streams-help": None, "perpendicular-better": None,
    }  # fmt: skip
    verdict = findings.verdict("streams-help")
    assert verdict
    assert [one.mean for one in verdict.estimates] == pytest.approx([-14 / 32, -1, 14 / 32 - 1], abs=0.04)
    assert "highway:bias=-6.0, width 11" in set(findings.tables["ranking"]["shortcut"])
    assert len(findings.effects[findings.effects["family"] == SINCE]) == 6 * 3


def test_a_diverged_function_is_a_row_and_leaves_the_others_judged() -> None:
    frames = made(KNOWN)
    lost = (frames["runs"]["shortcut"] == "gaussian") & (frames["runs"]["order"] == "pre")
    frames["runs"].loc[lost, ["status", "train_error"]] = ["diverged", np.nan]
    findings = judge("shortcuts", frames, SETTINGS)
    ranking = table(findings, "ranking")
    assert ranking.loc["gaussian", "diverged"] == 6
    assert np.isnan(ranking.loc["gaussian", "difference"])
    assert ranking.loc["negation", "p"] <= 0.05
    assert any("gaussian" in line for line in findings.notes())
    fixed = findings.verdict("fixed-maps-worse")
    assert fixed is None  # no seed has them all


def test_runs_that_are_not_alike_are_refused() -> None:
    frames = made(KNOWN, shortcut=["negation"])
    other = frames["runs"].assign(adapter=frames["runs"]["adapter"].astype("string").where(lambda a: a.isna(), "B"))
    both = pd.concat([frames["runs"], other])
    with pytest.raises(SpecError, match=r"these runs differ in adapter: .*--where adapter="):
        judge("shortcuts", {"runs": both}, SETTINGS)
    with pytest.raises(SpecError, match="two runs are the"):
        judge("shortcuts", {"runs": pd.concat([frames["runs"], frames["runs"]])}, SETTINGS)
    without = frames["runs"][frames["runs"]["shortcut"] != "identity"]
    with pytest.raises(SpecError, match="no run with the identity to compare with: pre-activation order, 32 layers"):
        judge("shortcuts", {"runs": without}, SETTINGS)


def dots(axes: Axes) -> int:
    """Return how many rows have a dot for each seed."""
    return sum(line.get_marker() == "o" for line in axes.get_lines())


def texts(figure: Figure) -> str:
    return " ".join(text.get_text() for text in [*figure.texts, *(text for axes in figure.axes for text in axes.texts)])


@pytest.mark.parametrize("seeds", [1, 3])
def test_figures_show_every_function_of_each_order(seeds: int) -> None:
    findings = judge("shortcuts", made(KNOWN, seeds=seeds), SETTINGS)
    figure = FIGURES["shortcuts"](findings)
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ranking = table(findings, "ranking")
    assert names == [name for name in ranking.index if name != "identity"]
    assert [axes.get_title("left") for axes in figure.axes] == ["pre-activation order", "original order"]
    assert [dots(axes) for axes in figure.axes] == [len(names) if seeds > 1 else 0] * 2
    assert "12.22 %" in texts(figure)
    spectrum = FIGURES["shortcut-spectrum"](findings)
    assert [label.get_text() for label in spectrum.axes[0].get_yticklabels()] == list(ranking.index)


def test_depths_are_never_pooled_in_a_figure() -> None:
    findings = judge("shortcuts", made(KNOWN, depth=[14, 32], shortcut=["negation", "orthogonal"]), SETTINGS)
    for name in PROBE.figures:
        titles = [axes.get_title("left") for axes in FIGURES[name](findings).axes]
        assert len(titles) == len(set(titles)) == 4
        assert titles[0] == "pre-activation order, 14 layers"


def test_the_outcome_that_is_judged_is_drawn() -> None:
    frames = made(KNOWN, shortcut=["negation"], order=["pre"])
    frames["runs"]["test_error"] += 3.0 * (frames["runs"]["shortcut"] == "negation")
    findings = judge("shortcuts", frames, ShortcutsSettings(primary="test_error"))
    first = findings.verdicts[0].estimates[0]
    assert first.mean == 3.0
    figure = FIGURES["shortcuts"](findings)
    assert "final test error (points)" in texts(figure)
    assert "negation against the identity" in texts(figure)
    diamonds = [line.get_xdata()[0] for line in figure.axes[0].get_lines() if line.get_marker() == "D"]
    assert 3.0 in diamonds


def test_a_mean_far_outside_and_a_diverged_function_are_marked_at_the_edge() -> None:
    frames = made({**KNOWN, "gaussian": 40.0})
    lost = frames["runs"]["shortcut"] == "rezero"
    frames["runs"].loc[lost, "status"] = "diverged"
    figure = FIGURES["shortcuts"](judge("shortcuts", frames, SETTINGS))
    assert "+40 →" in texts(figure)
    assert figure.axes[0].get_xlim()[1] < 3
    assert any(line.get_marker() == "x" for line in figure.axes[0].get_lines())


def test_the_paths_table_has_the_gain_before_and_after_training_and_the_share_along_x() -> None:
    frames = made({}, seeds=1, shortcut=["mixing"], order=["pre"])
    ids = frames["runs"].set_index("shortcut")["run_id"]
    gain = [(ids["mixing:groups=4"], step, 0, 1.0 + step, 1.0 + 2 * step) for step in (0, 9)]
    frames["gain"] = pd.DataFrame(gain, columns=["run_id", "step", "image", "forward", "backward"])
    share = [(ids["mixing:groups=4"], block, 0.1 * block, -0.2) for block in (1, 2)]
    frames["parallel"] = pd.DataFrame(share, columns=["run_id", "block", "position", "sign"])
    paths = table(judge("shortcuts", frames, SETTINGS), "paths")
    assert list(paths.index) == ["mixing:groups=4"]
    row = paths.loc["mixing:groups=4", ["forward_start", "forward", "backward", "parallel", "sign"]]
    assert row.tolist() == pytest.approx([1.0, 10.0, 19.0, 0.15, -0.2])
