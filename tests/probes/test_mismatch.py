"""Question 3: which runs are made, and what is said of made tables with a known answer and with none."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from resx import data, model
from resx.figures import FIGURES
from resx.model import GROW, SHRINK, SPATIAL, count
from resx.probes import Findings, Request, judge, parse_settings
from resx.probes.mismatch import (
    ALTERNATING,
    DESIGNS,
    PROBE,
    MismatchSettings,
    _arms,
    matched_width,
    ways,
)
from resx.probes.question3 import PROBE as QUESTION3
from resx.probes.question3 import Question3Settings
from resx.spec import FIELDS, ModelSpec, RunSpec, SpecError, build_spec

BASE = "subsample+pad+chop"
SETTINGS = MismatchSettings()


def resolve(cells: Any) -> list[RunSpec]:
    specs = [build_spec(cell, (model.check_names, data.check_names)) for cell in cells]
    return [spec.model_copy(update={"model": model.complete(spec.model)}) for spec in specs]


def request(settings: Any = SETTINGS, **grid: list[Any]) -> Request:
    return Request({"preset": "digits"}, [0, 1], settings, resolve, [grid])


def judged(runs: pd.DataFrame, gains: Mapping[str, float] | None = None, **settings: Any) -> Findings:
    frames = {"runs": runs} | ({} if gains is None else {"composed": composed(runs, gains)})
    return judge("mismatch", frames, MismatchSettings.model_validate(settings))


def differences(findings: Findings, outcome: str = "log10_train_loss") -> pd.Series:
    return findings.tables["ways"].set_index("arm")[outcome]


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
            row |= {"train_error": 0.0, "test_loss": 0.1, "test_error": 3 + effect + noise * stream.normal(), **fields}
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
    return {verdict.key.removeprefix("mismatch:"): verdict.word for verdict in findings.verdicts}


@pytest.mark.parametrize("design", DESIGNS)
def test_each_network_has_a_name_of_its_own_made_of_parts_that_it_has(design: str) -> None:
    specs = PROBE.plan(request(MismatchSettings(design=design)))
    runs = pd.DataFrame([{**spec.flat(), "run_id": spec.run_id} for spec in specs])
    named = _arms(runs.assign(status="finished", train_loss=1.0, train_error=0.0, test_loss=1.0, test_error=0.0))
    assert named.groupby("arm")["seed"].nunique().eq(2).all()
    assert len(named) == 2 * named["arm"].nunique()
    assert not named["arm"].str.contains("None").any()
    one_part = named["arm"].str.startswith("spatial: space-to-depth")
    assert set(named.loc[one_part, "group"]) == {"spatial"}
    assert one_part.any()


def test_every_registered_part_is_tried() -> None:
    for part in [*SPATIAL, *GROW, *SHRINK]:
        assert any(part in text.replace(":", "+").split("+") for text in ways())


def test_the_plan_varies_parts_beside_a_plain_and_a_constant_twin() -> None:
    specs = PROBE.plan(request(depth=[14], adapter=["subsample+copy+chop"]))
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
    width = matched_width(spec)
    wanted = count(spec, (3, 32, 32), 10).multiply_adds

    def miss(candidate: int) -> int:
        return abs(count(ModelSpec(depth=depth, width=candidate), (3, 32, 32), 10).multiply_adds - wanted)

    assert miss(width) < min(miss(width - 1), miss(width + 1))
    assert miss(width) / wanted < 0.06


def test_the_standard_design_has_nothing_that_shrinks() -> None:
    specs = PROBE.plan(request(MismatchSettings(design="standard")))
    assert len(specs) == len(set(specs))
    assert {spec.model.widths for spec in specs} == {None}
    assert all(spec.model.adapter is None or spec.model.adapter.shrink is None for spec in specs)


def test_question_3_runs_both_designs() -> None:
    specs = QUESTION3.plan(request(Question3Settings(), adapter=["subsample+copy+chop"]))
    assert len(set(specs)) == 2 * (4 + 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"design": "alternatng"}, "setting 'design'"),
        ({"primary": "loss"}, "setting 'primary'"),
        ({"margin": 0.5}, "less than two of 297 test images"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_training(change: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        PROBE.plan(request(parse_settings(PROBE, change), adapter=[BASE]))


def test_a_depth_without_a_shrinking_shortcut_is_refused() -> None:
    with pytest.raises(SpecError, match="use 14 or more"):
        PROBE.plan(request(depth=[8]))


def test_differences_are_paired_within_a_seed_and_averaged_over_depths() -> None:
    shallow, deep = made(EFFECTS), made({key: 3 * effect for key, effect in EFFECTS.items()})
    table = differences(judged(pd.concat([shallow, deep.assign(depth=56, run_id=deep["run_id"] + "d")])))
    assert BASE not in table
    assert table["grow: copy"] == pytest.approx(0.8, abs=0.05)
    assert table["constant width"] == pytest.approx(-0.6, abs=0.05)


def test_parts_of_one_name_are_told_apart() -> None:
    table = differences(judged(made(EFFECTS)))
    assert table["grow: zero"] == pytest.approx(0.8, abs=0.05)
    assert table["spatial: zero"] == pytest.approx(0.7, abs=0.05)


def test_a_known_answer() -> None:
    findings = judged(made(EFFECTS), GAINS)
    assert words(findings) == {
        "works": "supported",
        "spatial-matters": "refuted",
        "grow-matters": "supported",
        "shrink-matters": "refuted",
        "learned-better": "supported",
        "leaving-out-costs": "supported",
        "constant-width-better": "supported",
        "gain-costs": "supported",
    }
    same = findings.tables["ways"].set_index("arm")["same_test_error"]
    assert (same["grow: copy"], same["plain"]) == ("equivalent", "not shown")
    networks = findings.tables["networks"].set_index("arm")
    assert networks.loc["grow: zero", "gain"] == networks.loc["spatial: zero", "gain"] == 0
    assert networks.loc["grow: copy", "gain"] == pytest.approx(2)


def test_a_way_is_left_out_where_its_gain_is_zero_at_every_depth() -> None:
    shallow, deep = made(EFFECTS), made(EFFECTS).assign(depth=56)
    deep["run_id"] += "d"
    runs = pd.concat([shallow, deep], ignore_index=True)
    frames = {
        "runs": runs,
        "composed": pd.concat([composed(shallow, {}), composed(deep, {"subsample+copy+chop": 0.0})]),
    }
    networks = judge("mismatch", frames, SETTINGS).tables["networks"].set_index(["arm", "depth"])
    assert list(networks.loc["grow: copy", "gain"]) == [1.0, 0.0]
    assert not networks["left_out"].any()


def test_no_answer() -> None:
    judgement = words(judged(made(dict.fromkeys(EFFECTS, 0.0), noise=0.3), GAINS))
    assert set(judgement.values()) <= {"inconclusive", "refuted"}
    assert judgement["works"] == "inconclusive"


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_seeds_are_screening_at_most(seeds: int) -> None:
    findings = judged(made(EFFECTS, seeds))
    assert {verdict.word for verdict in findings.verdicts} <= {"screening", "inconclusive"}
    assert isinstance(FIGURES["mismatch"](findings), Figure)


def test_a_diverged_run_is_seen_and_in_no_mean() -> None:
    runs = made(EFFECTS)
    lost = runs["run_id"] == "subsample+copy+chop-2"
    runs.loc[lost, ["status", "train_loss", "test_error"]] = ["diverged", 1e9, 90.0]
    findings = judged(runs)
    networks = findings.tables["networks"].set_index("arm")
    assert networks.loc["grow: copy", "diverged"] == 1
    assert networks.loc["grow: copy", "test_error"] < 4
    effects = findings.effects.set_index(findings.effects["effect"].str.extract(r", (.*) − ")[0])
    assert effects.loc["grow: copy", "n"] == 5
    assert np.isnan(effects.loc["grow: copy", "p"])
    assert effects.loc["grow: zero", "p"] == pytest.approx(2 / 2**6)
    assert "1 runs diverged and are in no mean." in findings.answer
    FIGURES["mismatch"](findings)


def test_the_judged_outcome_is_the_drawn_one() -> None:
    axes = FIGURES["mismatch"](judged(made(EFFECTS), primary="train_error")).axes
    assert [one.get_xlabel() for one in axes] == [
        "difference in final training error (points)",
        "difference in final test error (points)",
    ]


def both_designs() -> pd.DataFrame:
    standard = made({BASE: 0.0, "plain": -1.0, "average+pad+chop": 0.0}, widths=None)
    return pd.concat([made(EFFECTS), standard.assign(run_id="s" + standard["run_id"])], ignore_index=True)


def test_question_3_answers_with_the_alternating_design() -> None:
    findings = judge("question3", {"runs": both_designs()}, Question3Settings())
    assert findings.verdict("input-can-be-modified").word == "supported"
    table = findings.verdicts_table()
    works = table[table["claim"] == "mismatch:works"].set_index("part")["word"]
    assert dict(works) == {"alternating": "supported", "standard": "refuted"}
    assert set(findings.drawings()) == {"mismatch-alternating", "mismatch-standard"}


def test_question_3_without_a_plain_twin_that_finished() -> None:
    runs = made(EFFECTS)
    runs.loc[runs["shortcut"] == "none", "status"] = "diverged"
    findings = judge("question3", {"runs": runs}, Question3Settings())
    assert findings.verdict("input-can-be-modified").word == "inconclusive"
    assert ALTERNATING in findings.parts


def test_runs_of_several_recipes_are_refused() -> None:
    with pytest.raises(SpecError, match="differ in steps"):
        judged(pd.concat([made(EFFECTS), made(EFFECTS, steps=5)], ignore_index=True))
