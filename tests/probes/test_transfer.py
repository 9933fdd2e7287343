"""Transfer: its runs, its verdicts on made frames, and heterogeneity against known numbers."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from resx.figures import FIGURES
from resx.probes import Request, judge
from resx.probes.transfer import ARMS, PROBE, TransferSettings, has_trees, heterogeneity
from resx.spec import SpecError
from resx.training.machine import Machine
from resx.training.resolve import resolve

SETTINGS = TransferSettings()


def plan(seeds=(0,), base=(), grid=()):
    request = Request(dict(base), list(seeds), SETTINGS, lambda cells: resolve(cells, Machine()), [dict(grid)])
    return PROBE.plan(request)


def made(effect, seeds=6, spread=0.05, trees=0.7, diverged=()):
    """Return frames in which plain networks lose `effect` in log10 from the small to the large size."""
    runs, measured = [], []
    small = {(arm.family, *arm.small) for arm in ARMS}
    for spec in plan(range(seeds)):
        model, draw = spec.model, np.random.default_rng([spec.seed, len(spec.run_id), spec.model.depth])
        is_small = any(
            (model.family, model.depth) == (family, depth) and spec.data.dataset.startswith(data)
            for family, data, depth in small
        )
        worse = effect * (model.shortcut == "none" and not is_small)
        lost = model.family in diverged
        row = dict.fromkeys(["train_error", "test_error", "test_loss"], 0.0)
        row |= {"status": "diverged" if lost else "finished", "train_loss": 10 ** (worse - 1 + draw.normal(0, spread))}
        runs.append({**spec.flat(), **row, "run_id": spec.run_id})
        if has_trees(spec, SETTINGS):
            for task in ("digits", "diabetes"):
                for n in (1, 50):
                    loss = {"boosting": 10 ** (-trees * (n > 1) + draw.normal(0, 0.02)), "bagging": 1.0}
                    measured += [
                        {"run_id": spec.run_id, "task": task, "trees": n, "kind": kind}
                        | {"train_loss": loss[kind], "test_loss": 1.0}
                        for kind in loss
                    ]
    return {"runs": pd.DataFrame(runs), "boosting": pd.DataFrame(measured)}


def test_the_plan_pairs_plain_and_residual_at_two_sizes_of_every_arm():
    specs = plan()
    assert len(specs) == len({spec.run_id for spec in specs}) == 4 * len(ARMS)
    assert {spec.model.shortcut for spec in specs} == {"none", "identity"}
    assert len(plan(grid={"family": ["mlp"]})) == 8
    assert {spec.train.steps for spec in plan(base={"steps": 5})} == {5}
    assert sum(has_trees(spec, SETTINGS) for spec in plan(seeds=(0, 1))) == 2  # once a seed


@pytest.mark.parametrize("grid", [{"family": ["mpl"]}, {"depth": [20]}])
def test_a_grid_that_is_not_this_probes_is_refused(grid):
    with pytest.raises(SpecError, match="family"):
        plan(grid=grid)


def test_made_frames_with_the_answer_are_supported():
    findings = judge("transfer", made(effect=1), SETTINGS)
    networks, large, trees = findings.verdicts
    assert (networks.word, large.word, trees.word) == ("supported",) * 3
    assert [one.mean for one in networks.estimates] == pytest.approx([1] * len(ARMS), abs=0.1)
    assert findings.tables["pooled"]["mean_interaction"].to_numpy() == pytest.approx([1] * 6, abs=0.1)
    assert [one.mean for one in trees.estimates] == pytest.approx([0.7] * 2, abs=0.05)


def test_made_frames_with_the_contrary_or_nothing():
    assert judge("transfer", made(effect=-1), SETTINGS).verdicts[0].word == "refuted"
    assert judge("transfer", made(effect=0), SETTINGS).verdicts[0].word == "inconclusive"
    assert judge("transfer", made(effect=1, seeds=1), SETTINGS).verdicts[0].word == "inconclusive"


def test_a_shortcut_that_only_hurts_less_at_the_large_size_has_not_transferred():
    frames = made(effect=1)
    hurt = (frames["runs"]["shortcut"] == "identity") & (frames["runs"]["family"] == "rnn-time")
    frames["runs"].loc[hurt, "train_loss"] *= 100
    growing, large, _ = judge("transfer", frames, SETTINGS).verdicts
    assert (growing.word, large.word) == ("supported", "refuted")
    assert [one.name.split(", ", 1)[1] for one in large.estimates if one.mean < 0] == [
        "RNN, in time, digits, greatest",
        "RNN, in time, long range, greatest",
    ]


def test_diverged_runs_are_counted_and_their_effects_left_out():
    frames = made(effect=1, diverged={"rnn-time"})
    findings = judge("transfer", frames, SETTINGS)
    assert findings.tables["networks"]["diverged"].sum() == 6 * 8
    assert len(findings.verdicts[0].estimates) == len(ARMS) - 2
    assert "48 runs diverged; their effects leave them out." in findings.answer
    assert FIGURES["transfer"](findings)


def test_without_trees_there_is_no_word_on_them():
    findings = judge("transfer", {"runs": made(effect=1)["runs"]}, SETTINGS)
    assert len(findings.verdicts) == 2
    assert FIGURES["transfer"](findings)


def series(*rows):
    return {f"effect {k}": pd.Series(row) for k, row in enumerate(rows)}


def test_heterogeneity_of_two_effects_is_welchs_t_test():
    first, second = [1.0, 1.4, 1.1, 0.9], [2.0, 2.5, 1.2]
    [row] = heterogeneity(series(first, second)).to_dict("records")
    t = scipy_stats.ttest_ind(first, second, equal_var=False)
    assert row["p"] == pytest.approx(t.pvalue)
    assert row["q"] == pytest.approx(t.statistic**2)
    assert [row["df"], row["lowest"], row["highest"]] == pytest.approx([1, 1.1, 1.9])
    assert row["i2"] == pytest.approx(100 * max(0, 1 - 1 / t.statistic**2))


def test_heterogeneity_of_equal_means_is_none_and_of_one_seed_unknown():
    [row] = heterogeneity(series([1.0, 2.0, 3.0], [1.5, 2.0, 2.5], [0.0, 2.0, 4.0])).to_dict("records")
    assert (row["q"], row["i2"]) == (pytest.approx(0), 0)
    assert row["p"] == pytest.approx(1)
    [row] = heterogeneity(series([1.0], [2.0])).to_dict("records")
    assert np.isnan([row["q"], row["i2"], row["p"]]).all()


@pytest.mark.parametrize("seeds", [1, 6])
def test_the_forest_has_a_row_per_effect_and_a_gap_before_the_trees(seeds):
    left, _ = FIGURES["transfer"](judge("transfer", made(effect=1, seeds=seeds), SETTINGS)).axes
    labels = [text.get_text() for text in left.get_yticklabels()]
    assert len(labels) == len(ARMS) + 2
    ticks = list(left.get_yticks())
    assert ticks[len(ARMS)] - ticks[len(ARMS) - 1] == 2
    assert [label.startswith("boosting") for label in labels] == [False] * len(ARMS) + [True] * 2
