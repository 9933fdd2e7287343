"""The study of shortcut functions: what is run, and what is said of made tables with a known answer and with none."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from resx.probes.study import Order

from resx import data, model
from resx.figures.shortcuts import TABLE_1, draw, draw_spectrum, variants
from resx.model import SHORTCUTS
from resx.paper import IDENTITY_TABLE_1
from resx.probes import question2, shortcuts
from resx.spec import RunSpec, SpecError, build_spec

SETTINGS = dict(shortcuts.STUDY.defaults)


def resolve(cells: Any) -> list[RunSpec]:
    specs = [build_spec(cell, (model.check_names, data.check_names)) for cell in cells]
    return [spec.model_copy(update={"model": model.complete(spec.model)}) for spec in specs]


def order(base: Mapping[str, Any] | None = None, **grid: list[Any]) -> Order:
    return Order({"preset": "digits", **(base or {})}, [0, 1], SETTINGS, grid, resolve)


def made(effects: Mapping[str, float], seeds: int, noise: float = 0.02) -> dict[str, pd.DataFrame]:
    """Return frames of the whole plan: log10 loss is −3 plus a variant's effect, a seed's own level and noise."""
    stream = np.random.default_rng(1)
    specs = shortcuts.plan(Order({"preset": "digits"}, range(seeds), SETTINGS, {}, resolve))
    runs = variants(_table(specs))
    runs["train_loss"] = 10 ** (
        -3
        + runs["variant"].map(lambda name: effects.get(name, 0.0))
        + runs["seed"].map(dict(enumerate(stream.normal(size=seeds))))
        + noise * stream.normal(size=len(runs))
    )
    far = runs["variant"].map(lambda name: 10 ** -effects.get(name, 0.0))
    spectrum = pd.DataFrame({"image": 0, "rank": 1, "value": far, "run_id": runs["run_id"]})
    return {"runs": runs, "spectrum": spectrum}


def _table(specs: list[RunSpec]) -> pd.DataFrame:
    rows = [{**spec.flat(), "run_id": spec.run_id} for spec in specs]
    return pd.DataFrame(rows).assign(
        status="finished", train_loss=1e-3, test_loss=0.1, train_error=0.0, test_error=5.0,
        multiply_adds=1000, parameters=10, data_label="made-up digits", test_images=297,
    )  # fmt: skip


def test_the_plan_holds_every_function_in_both_orders_with_donors_first() -> None:
    specs = shortcuts.plan(order())
    ids = [spec.run_id for spec in specs]
    assert len(set(ids)) == len(ids) == 2 * 2 * 28
    names = {spec.model.shortcut.partition(":")[0] for spec in specs}
    assert names == {"none", "identity"} | {name for name in SHORTCUTS if hasattr(SHORTCUTS[name], "kind")}
    fitted = [spec for spec in specs if spec.init_from]
    assert len(fitted) == 2 * 2 * 2
    for spec in fitted:
        donor = specs[ids.index(spec.init_from.run)]
        assert (donor.seed, donor.model.order, donor.model.depth) == (spec.seed, spec.model.order, spec.model.depth)
        assert donor.model.shortcut in ("none", "identity")


def test_one_function_alone_is_compared_with_the_identity_and_none() -> None:
    specs = shortcuts.plan(order({"shortcut": "negation", "order": "pre"}))
    assert {spec.model.shortcut for spec in specs} == {"none", "identity", "negation"}
    assert {spec.model.order for spec in specs} == {"pre"}
    asked = shortcuts.plan(order(shortcut=["negation"], order=["pre"], depth=[32]))
    assert asked == specs


def test_what_is_asked_for_in_vain_is_refused() -> None:
    with pytest.raises(SpecError, match="at one depth"):
        shortcuts.plan(order(depth=[20, 32]))
    with pytest.raises(SpecError, match="did you mean 'train_error'"):
        shortcuts.check({**SETTINGS, "primary": "trainerror"})
    with pytest.raises(SpecError, match="needs a donor itself"):
        shortcuts.check({**SETTINGS, "donors": "fitted"})


def test_the_words_of_table_1_are_the_papers_and_the_functions_exist() -> None:
    assert set(TABLE_1.values()) < set(IDENTITY_TABLE_1)
    for text in TABLE_1:
        assert SHORTCUTS.complete(text) == text


KNOWN = {
    "negation": 1.0, "permutation": 0.8, "orthogonal": 1.2, "gaussian": 2.0, "lowrank:fraction=0.5": 1.5,
    "fitted to residual": -1.0, "conv:init=he": 1.0, "learned-scalar:start=0.0": 1.0, "learned-channels:start=0.0": 1.1,
}  # fmt: skip


def test_a_known_answer_is_found() -> None:
    findings = shortcuts.judge(made(KNOWN, seeds=6), SETTINGS)
    words = {verdict.hypothesis: verdict.word for verdict in findings.verdicts}
    assert words["Fixed maps other than the identity train worse"] == "supported"
    assert words[shortcuts.KNOWN] == "supported"
    assert words["Where a learned shortcut starts matters"] == "supported"
    assert words["In the original order the ReLU throws a negated or rotated shortcut away"] == "inconclusive"
    ranking = findings.tables["ranking-pre"].set_index("shortcut")
    assert ranking.loc["fitted to residual", "rank"] == 1
    assert ranking.loc["gaussian", "rank"] == 28
    assert ranking.loc["gaussian", "Δ"] == pytest.approx(2, abs=0.1)
    assert ranking.loc["identity", "Δ"] == 0
    costs = findings.tables["errors-post"].set_index("shortcut")
    assert (costs.loc[["negation", "fitted to residual"], "compute"] == [1, 2]).all()
    assert costs.loc["conv:init=he", "table 1"] == "12.22 %"


def test_the_contrary_is_refuted_and_nothing_is_inconclusive() -> None:
    opposite = {name: -effect for name, effect in KNOWN.items()}
    words = {item.hypothesis: item.word for item in shortcuts.judge(made(opposite, seeds=6), SETTINGS).verdicts}
    assert words["Fixed maps other than the identity train worse"] == "refuted"
    assert words[shortcuts.KNOWN] == "refuted"
    nothing = shortcuts.judge(made({}, seeds=6), SETTINGS).verdicts[:5]
    assert {verdict.word for verdict in nothing} == {"inconclusive"}


def test_few_seeds_never_judge() -> None:
    findings = shortcuts.judge(made(KNOWN, seeds=2), SETTINGS)
    assert {verdict.word for verdict in findings.verdicts} <= {"screening", "inconclusive"}
    assert "screening" in findings.answer


def test_a_diverged_variant_is_a_row_and_leaves_the_others_judged() -> None:
    frames = made(KNOWN, seeds=6)
    lost = (frames["runs"]["variant"] == "gaussian") & (frames["runs"]["order"] == "pre")
    frames["runs"].loc[lost, ["status", "train_error"]] = ["diverged", np.nan]
    findings = shortcuts.judge(frames, SETTINGS)
    ranking = findings.tables["ranking-pre"].set_index("shortcut")
    assert ranking.loc["gaussian", "diverged"] == 6
    assert np.isnan(ranking.loc["gaussian", "Δ"])
    assert ranking.loc["negation", "p"] <= 0.05
    assert "Diverged in some seed: gaussian" in findings.answer
    assert draw(frames).axes


@pytest.mark.parametrize("seeds", [1, 3])
def test_figures_show_every_function(seeds: int) -> None:
    frames = made(KNOWN, seeds=seeds)
    shown = {label.get_text() for label in draw(frames).axes[0].get_yticklabels()}
    assert shown == set(frames["runs"]["variant"]) - {"identity"}
    assert len(draw_spectrum(frames).axes) == 2


def test_question_2_plans_both_studies_and_keeps_their_runs_apart() -> None:
    settings = {**question2.STUDY.defaults, "maps": "negation", "layers": "1", "away": "45"}
    asked = Order({"preset": "digits", "depth": 8, "steps": 2}, [0], settings, {}, resolve)
    specs = question2.plan(asked)
    teacher = [spec for spec in specs if spec.model.family == question2.FAMILY]
    assert len(teacher) == 5
    assert {spec.train.steps for spec in teacher} == {300}
    assert {(spec.train.steps, spec.model.depth) for spec in specs if spec not in teacher} == {(2, 8)}
    for name, measure in question2.STUDY.measures.items():
        wanted = [spec for spec in specs if measure.wants(spec, settings)]
        assert wanted == (teacher if name == "mapping" else [spec for spec in specs if spec not in teacher])
