"""Question 3: which runs are made, and what is said of made tables with a known answer and with none."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from resx import data, model
from resx.figures.mismatch import DESIGNS, REFERENCE, arms, differences, draw
from resx.model import GROW, SHRINK, SPATIAL, count
from resx.probes import mismatch, question3
from resx.probes.study import Order
from resx.spec import FIELDS, ModelSpec, RunSpec, SpecError, build_spec

BASE = "subsample+pad+chop"
SETTINGS = dict(mismatch.STUDY.defaults)


def resolve(cells: Any) -> list[RunSpec]:
    specs = [build_spec(cell, (model.check_names, data.check_names)) for cell in cells]
    return [spec.model_copy(update={"model": model.complete(spec.model)}) for spec in specs]


def order(settings: Mapping[str, Any] = SETTINGS, **grid: list[Any]) -> Order:
    return Order({"preset": "digits"}, [0, 1], settings, grid, resolve)


def made(effects: Mapping[str, float], seeds: int = 6, noise: float = 0.01, **fields: Any) -> pd.DataFrame:
    """Return runs whose log10 training loss is −3 plus the arm's effect plus a seed's own, and a little noise."""
    stream = np.random.default_rng(0)
    rows = []
    for seed in range(seeds):
        level = stream.normal()
        for key, effect in effects.items():
            row = {**dict.fromkeys(FIELDS), **RunSpec().flat(), "dataset": "digits", "seed": seed, "depth": 20}
            row |= {"run_id": f"{key}-{seed}", "shortcut": "identity", "adapter": key, "widths": "alternating"}
            row |= {"plain": {"shortcut": "none", "adapter": None}, "constant": {"widths": None, "width": 20}}.get(
                key, {}
            )
            row |= {"status": "finished", "data_label": "digits", "reference": None, "test_images": 297}
            row |= {"parameters": 1000 + 500 * ("project" in key), "multiply_adds": 1e6}
            row["train_loss"] = 10 ** (-3 + level + effect + noise * stream.normal())
            row |= {"train_error": 0.0, "test_error": 3 + effect + noise * stream.normal(), **fields}
            rows.append(row)
    runs = pd.DataFrame(rows)
    return runs.assign(adapter=runs["adapter"].replace("constant", "subsample+pad"))


def composed(runs: pd.DataFrame, gains: Mapping[str, float]) -> pd.DataFrame:
    rows = runs[runs["shortcut"] != "none"]
    return pd.DataFrame(
        {"run_id": rows["run_id"], "block": 9, "name": "stages.2.2", "gain": rows["adapter"].map(gains).fillna(1.0)}
    )


EFFECTS = {
    BASE: 0.0,
    "plain": 1.0,
    "constant": -0.3,
    "average+pad+chop": 0.0,
    "subsample+copy+chop": 0.4,
    "subsample+zero+chop": 0.8,
    "zero+pad+chop": 0.7,
    "subsample+pad+fold-sum": 0.0,
    "subsample+project:norm=true+chop": -0.5,
}
GAINS = {"subsample+zero+chop": 0.0, "zero+pad+chop": 0.0, "subsample+copy+chop": 2.0}


def words(findings: Any) -> dict[str, str]:
    return {verdict.hypothesis.partition(":")[0]: verdict.word for verdict in findings.verdicts}


@pytest.mark.parametrize("design", DESIGNS)
def test_each_network_has_a_name_of_its_own_made_of_parts_that_it_has(design: str) -> None:
    specs = mismatch.plan(order({**SETTINGS, "design": design}))
    runs = pd.DataFrame([{**spec.flat(), "run_id": spec.run_id} for spec in specs])
    named = arms(runs.assign(status="finished", train_loss=1.0, train_error=0.0, test_error=0.0))
    assert named.groupby("arm")["seed"].nunique().eq(2).all()
    assert len(named) == 2 * named["arm"].nunique()
    assert not named["arm"].str.contains("None").any()
    one_part = named["arm"].str.startswith("spatial: space-to-depth")
    assert set(named.loc[one_part, "group"]) == {"spatial"}
    assert one_part.any()


def test_every_registered_part_is_tried() -> None:
    for part in [*SPATIAL, *GROW, *SHRINK]:
        assert any(part in text.replace(":", "+").split("+") for text in mismatch.ways())


def test_the_plan_varies_parts_beside_a_plain_and_a_constant_twin() -> None:
    specs = mismatch.plan(order(depth=[14], adapter=["subsample+copy+chop"]))
    assert len(specs) == len(set(specs)) == 2 * 4
    found = {(str(spec.model.adapter), spec.model.shortcut, spec.model.widths) for spec in specs}
    assert found == {
        (BASE, "identity", "alternating"),
        ("subsample+copy+chop", "identity", "alternating"),
        ("None", "none", "alternating"),
        ("subsample+pad", "identity", None),
    }


def test_the_constant_network_has_the_nearest_multiply_adds() -> None:
    depth = 14
    spec = ModelSpec(depth=depth, widths="alternating")
    width = mismatch.matched_width(spec)
    wanted = count(spec, (3, 32, 32), 10).multiply_adds

    def miss(candidate: int) -> int:
        return abs(count(ModelSpec(depth=depth, width=candidate), (3, 32, 32), 10).multiply_adds - wanted)

    assert miss(width) < min(miss(width - 1), miss(width + 1))
    assert miss(width) / wanted < 0.06


def test_the_standard_design_has_nothing_that_shrinks() -> None:
    specs = mismatch.plan(order({**SETTINGS, "design": "standard"}))
    assert len(specs) == len(set(specs))
    assert {spec.model.widths for spec in specs} == {None}
    assert all(spec.model.adapter is None or spec.model.adapter.shrink is None for spec in specs)


def test_question_3_runs_both_designs() -> None:
    asked = order(question3.STUDY.defaults, adapter=["subsample+copy+chop"])
    specs = question3.plan(asked)
    assert len(specs) == 2 * (4 + 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"design": "alternatng"}, "did you mean 'alternating'"),
        ({"primary": "loss"}, "setting 'primary'"),
        ({"margin": 0.5}, "less than two of 297 test images"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_training(change: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        mismatch.plan(order({**SETTINGS, **change}, adapter=[BASE]))


def test_a_depth_without_a_shrinking_shortcut_is_refused() -> None:
    with pytest.raises(SpecError, match="use 14 or more"):
        mismatch.plan(order(depth=[8]))


def test_differences_are_paired_within_a_seed_and_averaged_over_depths() -> None:
    shallow, deep = made(EFFECTS), made({key: 3 * effect for key, effect in EFFECTS.items()})
    named = arms(pd.concat([shallow, deep.assign(depth=56, run_id=deep["run_id"] + "d")], ignore_index=True))
    table = differences(named, "log10_train_loss")
    assert REFERENCE not in table
    assert table["grow: copy"].to_numpy() == pytest.approx([0.8] * 6, abs=0.05)
    assert table["constant width"].to_numpy() == pytest.approx([-0.6] * 6, abs=0.05)


def test_parts_of_one_name_are_told_apart() -> None:
    table = differences(arms(made(EFFECTS)), "log10_train_loss").mean()
    assert table["grow: zero"] == pytest.approx(0.8, abs=0.05)
    assert table["spatial: zero"] == pytest.approx(0.7, abs=0.05)


def test_a_known_answer() -> None:
    runs = made(EFFECTS)
    findings = mismatch.judge({"runs": runs, "composed": composed(runs, GAINS)}, SETTINGS)
    assert words(findings) == {
        "Modifying the input works": "supported",
        "The way matters": "refuted",  # the last of the three: shrinking channels
        "Learned adapters are better than the reference": "supported",
        "Leaving the shortcut out at the mismatch costs": "supported",
        "Constant width is better at equal multiply-adds": "supported",
        "Gains away from 1 cost": "supported",
    }
    matters = [verdict.word for verdict in findings.verdicts if verdict.hypothesis.startswith("The way")]
    assert matters == ["refuted", "supported", "refuted"]
    table = findings.tables["differences"].set_index("network")
    assert table.loc["grow: copy", "within ±1"] == "equivalent"
    assert table.loc["plain", "within ±1"] == "not shown"
    networks = findings.tables["costs"].set_index("network")
    assert networks.loc["grow: zero", "gain"] == networks.loc["spatial: zero", "gain"] == 0
    assert networks.loc["grow: copy", "gain"] == pytest.approx(2)
    assert "modifying the input works is supported" in findings.answer
    assert "Of 3 other ways without parameters 3 have an interval wholly below" in findings.answer


def test_no_answer() -> None:
    runs = made(dict.fromkeys(EFFECTS, 0.0), noise=0.3)
    found = words(mismatch.judge({"runs": runs, "composed": composed(runs, GAINS)}, SETTINGS))
    assert set(found.values()) <= {"inconclusive", "refuted"}
    assert found["Modifying the input works"] == "inconclusive"


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_seeds_are_screening_at_most(seeds: int) -> None:
    findings = mismatch.judge({"runs": made(EFFECTS, seeds)}, SETTINGS)
    assert {verdict.word for verdict in findings.verdicts} <= {"screening", "inconclusive"}
    assert isinstance(draw({"runs": made(EFFECTS, seeds)}), Figure)


def test_a_diverged_run_is_seen_and_in_no_mean() -> None:
    runs = made(EFFECTS)
    spoilt = runs["run_id"] == "subsample+copy+chop-2"
    runs.loc[spoilt, ["status", "train_loss", "test_error"]] = ["diverged", 1e9, 90.0]
    findings = mismatch.judge({"runs": runs}, SETTINGS)
    networks = findings.tables["outcomes"].set_index("network")
    table = findings.tables["differences"].set_index("network")
    assert networks.loc["grow: copy", "diverged"] == 1
    assert networks.loc["grow: copy", "test %"] < 4
    assert table.loc["grow: copy", "seeds"] == 5
    assert np.isnan(table.loc["grow: copy", "p"])
    assert table.loc["grow: zero", "p"] == pytest.approx(2 / 2**6)
    assert "1 runs did not finish or diverged (grow: copy)" in findings.answer
    draw({"runs": runs})


def test_question_3_answers_with_the_alternating_design() -> None:
    alternating = made(EFFECTS)
    standard = made({BASE: 0.0, "plain": -1.0, "average+pad+chop": 0.0}, widths=None)
    runs = pd.concat([alternating, standard.assign(run_id="s" + standard["run_id"])], ignore_index=True)
    findings = question3.judge({"runs": runs}, question3.STUDY.defaults)
    assert "Supported" in findings.answer
    works = {verdict.hypothesis: verdict.word for verdict in findings.verdicts if "works" in verdict.hypothesis}
    assert list(works.values()) == ["supported", "refuted"]
    assert {"costs-alternating", "differences-standard"} <= set(findings.tables)
    draw({"runs": runs})


def test_runs_of_several_recipes_are_refused() -> None:
    runs = pd.concat([made(EFFECTS), made(EFFECTS, steps=5)], ignore_index=True)
    with pytest.raises(SpecError, match="differ in steps"):
        draw({"runs": runs})


def test_question_3_without_a_plain_twin_that_finished() -> None:
    runs = made(EFFECTS)
    runs.loc[runs["shortcut"] == "none", "status"] = "diverged"
    findings = question3.judge({"runs": runs}, question3.STUDY.defaults)
    assert "Inconclusive: no plain twin finished" in findings.answer
    draw({"runs": runs})
