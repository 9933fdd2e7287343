"""Claims as data: what a contrast takes from a table, which word follows, and the one rule for missing seeds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from resx import stats
from resx.claims import (
    AnyDiffers,
    AtMost,
    Claim,
    Combination,
    Contrast,
    OneOfEach,
    Within,
    at_scale,
    combine,
    contrast,
    describe,
    interaction,
    judge,
    plain,
    residual,
    scale,
    scale_rank,
    weakest,
)
from resx.spec import Foreign, RunSpec, build_spec

NOISE = np.random.default_rng(0).normal(0, 0.01, 6)


def table(**values: float) -> pd.DataFrame:
    """Return a row per network and seed; names such as plain_56 give the mean of `loss`."""
    rows = [
        {"kind": kind, "depth": int(depth), "seed": seed, "loss": value + seed + NOISE[seed] * int(depth)}
        for name, value in values.items()
        for kind, depth in [name.split("_")]
        for seed in range(6)
    ]
    return pd.DataFrame(rows)


FULL = table(plain_20=0.0, plain_56=3.0, residual_20=0.0, residual_56=1.0)
SYMBOLS = {"deep": 56, "shallow": 20}
DEPTHS = interaction("loss", (plain("{deep}"), plain("{shallow}")), (residual("{deep}"), residual("{shallow}")))


def verdicts(*claims: Claim, rows: pd.DataFrame = FULL, **symbols: object) -> dict[str, str]:
    _, judged = judge(claims, {}, {"outcomes": rows}, {**SYMBOLS, **symbols}, {})
    return {verdict.key: verdict.word for verdict in judged}


def test_a_contrast_is_a_difference_within_seeds_with_a_name_of_its_own() -> None:
    effects, _ = judge([Claim("k", "s", 1, contrast("loss", plain(56), residual(56)))], {}, {"t": FULL}, SYMBOLS, {})
    [row] = effects.to_dict("records")
    assert row["effect"] == "loss, plain-56 − residual-56"
    assert (row["mean"], row["low"], row["high"]) == pytest.approx((2.0, 2.0, 2.0))


def test_an_interaction_is_a_difference_of_differences() -> None:
    effects, _ = judge([Claim("k", "s", 1, DEPTHS)], {}, {"t": FULL}, SYMBOLS, {"loss": "log10 loss"})
    assert effects["effect"].item() == "log10 loss, (plain-56 − plain-20) − (residual-56 − residual-20)"
    assert effects["mean"].item() == pytest.approx(2.0)


def test_what_all_cells_share_is_named_once() -> None:
    rows = FULL.assign(phase="trained")
    both = contrast("loss", plain(56, phase="trained"), residual(56, phase="trained"))
    effects, _ = judge([Claim("k", "s", 1, both)], {}, {"t": rows}, SYMBOLS, {})
    assert effects["effect"].item() == "loss, plain-56 − residual-56, trained"


def test_a_tuple_is_the_mean_over_its_values_and_needs_them_all() -> None:
    both = contrast("loss", {"kind": ("plain", "residual"), "depth": 56}, plain(20))
    rows = FULL[~((FULL["kind"] == "residual") & (FULL["depth"] == 56) & (FULL["seed"] == 3))]
    effects, _ = judge([Claim("k", "s", 1, both)], {}, {"t": rows}, SYMBOLS, {})
    assert effects["n"].item() == 5
    assert effects["mean"].item() == pytest.approx(2.0, abs=1)


def test_a_contrast_over_a_column_is_one_for_each_of_its_values() -> None:
    each = contrast("loss", plain("{depth}"), residual("{depth}"), over=("depth",))
    effects, _ = judge([Claim("k", "s", 1, each)], {}, {"t": FULL}, SYMBOLS, {})
    assert list(effects["effect"]) == ["loss, plain-20 − residual-20", "loss, plain-56 − residual-56"]


def test_several_values_behind_a_symbol_are_named_by_it_and_depth_alone_is_named_as_layers() -> None:
    rows = FULL.rename(columns={"kind": "shortcut"})
    at = {"depth": 56}
    claim = Claim("k", "s", 1, contrast("loss", {"shortcut": "{all of them}", **at}, {"shortcut": "plain", **at}))
    effects, [verdict] = judge([claim], {}, {"t": rows}, {**SYMBOLS, "all of them": ("plain", "residual")}, {})
    assert effects["effect"].item() == "loss, all of them − plain, 56 layers"
    assert verdict.criterion.startswith(effects["effect"].item())
    assert effects["mean"].item() == pytest.approx(-1.0)


def test_a_claim_for_each_value_has_a_verdict_for_each() -> None:
    each = contrast("loss", plain("{depth}"), residual("{depth}"), over=("depth",), where={"kind": "plain"})
    beside = (contrast("loss", plain("{depth}"), 0.0),)
    claim = Claim("costs", "Plain networks of {depth} layers train worse", 1, each, beside, each=True)
    _, judged = judge([claim], {}, {"t": FULL}, SYMBOLS, {})
    assert [(one.key, one.says, one.word) for one in judged] == [
        ("costs:20", "Plain networks of 20 layers train worse", "inconclusive"),
        ("costs:56", "Plain networks of 56 layers train worse", "supported"),
    ]
    assert [one.name for one in judged[1].estimates] == ["loss, plain-56 − residual-56", "loss, plain-56"]
    assert judged[1].deciding == 1


def test_a_claim_on_networks_that_are_not_there_is_not_judged() -> None:
    assert verdicts(Claim("k", "s", 1, contrast("loss", plain(110), plain(20)))) == {}
    assert verdicts(Claim("k", "s", 1, contrast("absent", plain(56), plain(20)))) == {}
    assert verdicts(Claim("k", "s", 1, DEPTHS), deep=20) == {}


def test_several_rows_of_a_seed_are_a_mistake_of_the_probe() -> None:
    with pytest.raises(ValueError, match="several rows of one seed"):
        verdicts(Claim("k", "s", 1, contrast("loss", {"depth": 56})))


@pytest.mark.parametrize(("expected", "word"), [(1, "supported"), (-1, "refuted")])
def test_the_sign_decides(expected: int, word: str) -> None:
    assert verdicts(Claim("k", "s", expected, DEPTHS)) == {"k": word}


def test_symbols_are_filled_in_sentence_criterion_and_margin() -> None:
    claim = Claim("k", "It is so at {deep} layers", 0, contrast("loss", plain(56), plain(20)), rule=Within("{margin}"))
    _, [verdict] = judge([claim], {}, {"t": FULL}, {**SYMBOLS, "margin": 4.0}, {})
    assert verdict.says == "It is so at 56 layers"
    assert "±4 " in verdict.criterion
    assert verdict.word == "supported"


@pytest.mark.parametrize(("margin", "word"), [(5.0, "supported"), (1.0, "refuted")])
def test_equivalence_within_a_margin(margin: float, word: str) -> None:
    assert verdicts(Claim("k", "s", 0, contrast("loss", plain(56), plain(20)), rule=Within(margin))) == {"k": word}


@pytest.mark.parametrize(
    ("error", "images", "word"), [(9, 1000, "supported"), (0, 1000, "inconclusive"), (9, np.nan, "inconclusive")]
)
def test_errors_are_equivalent_only_off_the_floor_and_of_a_known_number_of_images(
    error: float, images: float, word: str
) -> None:
    rows = FULL.assign(loss=error)
    claim = Claim("k", "s", 0, contrast("loss", plain(56), plain(20)), rule=Within(1.0, errors=True))
    assert verdicts(claim, rows=rows, test_images=images) == {"k": word}


def test_a_fact_needs_no_statistics() -> None:
    small = FULL.assign(loss=1e-12)
    claim = Claim("k", "s", 1, contrast("loss", plain(56)), rule=AtMost(1e-10))
    assert verdicts(claim, rows=small) == {"k": "supported"}
    assert verdicts(claim) == {"k": "refuted"}


def test_any_of_several_differs() -> None:
    each = contrast("loss", plain("{depth}"), residual("{depth}"), over=("depth",))
    assert verdicts(Claim("k", "s", 0, each, rule=AnyDiffers("{alike}")), alike=False) == {"k": "supported"}
    same = FULL[FULL["depth"] == 20]
    assert verdicts(Claim("k", "s", 0, each, rule=AnyDiffers("{alike}")), rows=same, alike=True) == {"k": "refuted"}
    assert verdicts(Claim("k", "s", 0, each, rule=AnyDiffers("{alike}")), rows=same, alike=False) == {
        "k": "inconclusive"
    }


def test_all_hold_only_as_far_as_the_weakest() -> None:
    assert weakest(["supported", "supported"]) == "supported"
    assert weakest(["supported", "screening"]) == "screening"
    assert weakest(["screening", "inconclusive"]) == "inconclusive"
    assert weakest(["supported", "refuted", "inconclusive"]) == "refuted"


@pytest.mark.parametrize(("expected", "word"), [(1, "supported"), (-1, "refuted")])
def test_a_combined_claim_takes_the_words_of_its_parts(expected: int, word: str) -> None:
    _, [verdict] = judge([Claim("k", "s", expected, DEPTHS)], {}, {"t": FULL}, SYMBOLS, {})
    assert combine(Combination("c", "s", ("p:k",)), {"p:k": verdict}).word == word


def test_a_combined_claim_without_any_part_is_inconclusive() -> None:
    assert combine(Combination("c", "s", ("p:k",)), {}).word == "inconclusive"


def effects(**columns: list[float]) -> dict[str, stats.Estimate]:
    return stats.judge_family({name: pd.Series(values, dtype=float) for name, values in columns.items()})


def test_an_effect_that_lacks_a_seed_has_an_interval_and_no_p_and_costs_the_others_none() -> None:
    whole = [1.0, 1.1, 0.9, 1.0, 1.2, 0.8]
    judged = effects(a=whole, b=[2 * value for value in whole], c=[*whole[:5], np.nan])
    assert (judged["a"].p, judged["b"].p, judged["c"].p) == (2 / 2**6, 2 / 2**6, None)
    assert judged["c"].n == 5
    assert judged["c"].low < judged["c"].mean < judged["c"].high


def test_a_seed_that_only_few_effects_have_is_no_seed_of_the_family() -> None:
    five = [1.0, 1.1, 0.9, 1.0, 1.2, np.nan]
    judged = effects(a=five, b=five, c=[1.0] * 6)
    assert judged["a"].p == judged["c"].p == 2 / 2**5


def test_an_effect_without_any_value_is_left_out() -> None:
    assert effects(a=[1.0, 2.0], b=[np.nan, np.nan]).keys() == {"a"}


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"preset": "digits"}, "toy"),
        ({"preset": "small"}, "reduced"),
        ({"preset": "paper"}, "paper"),
        ({"preset": "paper", "steps": 63_999}, "reduced"),
        ({"preset": "paper", "width": 8}, "reduced"),
        ({"preset": "paper", "dataset": "folder", "label": "CIFAR-10"}, "toy"),
        ({"preset": "paper", "dataset": "folder", "reference": "cifar10"}, "paper"),
    ],
)
def test_the_scale_comes_from_the_specification(fields: dict[str, object], word: str) -> None:
    spec: RunSpec = build_spec(fields)
    assert scale(pd.DataFrame([spec.flat()])) == word
    assert scale(pd.DataFrame([spec.flat(), RunSpec().flat()])) == "toy"


def test_the_scale_says_that_others_trained() -> None:
    others = RunSpec(foreign=Foreign(network="n", weights="0"))
    text = scale(pd.DataFrame([others.flat(), build_spec({"preset": "paper"}).flat()]))
    assert (text, at_scale(text), at_scale("toy")) == (
        "toy, trained by others",
        "toy scale, trained by others",
        "toy scale",
    )
    assert scale_rank(text) == 0
    with pytest.raises(ValueError, match="not in"):
        scale_rank("large")


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ([[1.0], [2.0]], "screening"),
        ([[-1.0], [-2.0]], "screening"),
        ([[1.0], [-2.0]], "inconclusive"),
        ([[1.0], [0.0]], "inconclusive"),
        ([[1.0, 1.1, 1.2, 1.3, 1.4, 1.5], [2.0, 2.1, 2.2, 2.3, 2.4, 2.5]], "supported"),
    ],
)
def test_one_network_of_each_kind_is_screening_at_most(values: list[list[float]], word: str) -> None:
    rows = [
        {"depth": depth, "seed": seed, "loss": value}
        for depth, own in enumerate(values)
        for seed, value in enumerate(own)
    ]
    claim = Claim("c", "s", 1, contrast("loss", {"depth": "{depth}"}, over=("depth",)), rule=OneOfEach())
    _, [verdict] = judge([claim], {}, {"t": pd.DataFrame(rows)}, {}, {})
    assert verdict.word == word


def test_weights_other_than_one_are_written() -> None:
    one = Contrast("loss", ((0.5, plain(56)), (-1.0, {"kind": "x", "depth": 56}), (0.5, residual(56))))
    assert describe(one, {"loss": "loss"}) == "loss, 0.5·plain-56 − x-56 + 0.5·residual-56"
