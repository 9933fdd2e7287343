"""Responses, gradients, paths and question 1: judged on made-up tables of which the answer is known."""

from math import comb

import numpy as np
import pandas as pd
import pytest
from resx.probes.study import Order

from resx.claims import estimates, phases, verdict
from resx.probes import gradients, paths, question1, responses
from resx.spec import build_spec
from resx.training.machine import Machine
from resx.training.resolve import resolve

SEEDS = range(6)


def runs_of(depths=(20, 56), shortcuts=("none", "identity"), norms=("batch",), seeds=SEEDS, diverged=()):
    rows = []
    for depth in depths:
        for shortcut in shortcuts:
            for norm in norms:
                for seed in seeds:
                    spec = build_spec({"depth": depth, "shortcut": shortcut, "norm": norm, "seed": seed})
                    status = "diverged" if (shortcut, depth, norm, seed) in diverged else "finished"
                    rows.append({**spec.flat(), "run_id": spec.run_id, "status": status, "data_label": "made-up"})
    return pd.DataFrame(rows)


def gradient_frames(growth, half, **kwargs):
    """growth, half: {(shortcut, depth): % per layer, distance}, the same at every step but for noise by seed."""
    runs = runs_of(**kwargs)
    norms, alike = [], []
    distance = np.array(gradients.DISTANCES)
    for run in runs.itertuples():
        noise = 0.1 * np.random.default_rng([run.seed, run.depth]).standard_normal()
        layer = np.arange(1, run.depth, 2)
        factor = 1 + (growth[run.shortcut, run.depth] + noise) / 100
        middle = half[run.shortcut, run.depth] * 10**noise
        for step in (0, 10, 276):
            table = {"run_id": run.run_id, "step": step, "quantity": "activation", "stage": 0, "layer": layer}
            norms.append(pd.DataFrame({**table, "value": factor ** -layer.astype(float)}))
        for step in (0, 276):
            correlation = 1 / (1 + distance / middle)
            table = {"run_id": run.run_id, "step": step, "distance": distance, "correlation": correlation}
            alike.append(pd.DataFrame(table))
    return {"runs": runs, "gradients": pd.concat(norms), "shattering": pd.concat(alike)}


PLAIN, RESIDUAL = "none", "identity"
HALVES = {(PLAIN, 20): 1e-2, (PLAIN, 56): 1e-4, (RESIDUAL, 20): 1e-1, (RESIDUAL, 56): 5e-2}


def growths_of(plain):
    return {(PLAIN, 20): plain, (PLAIN, 56): plain, (RESIDUAL, 20): 1.0, (RESIDUAL, 56): 1.0}


@pytest.mark.parametrize(("plain", "word"), [(15.0, "refuted"), (-15.0, "supported"), (0.0, "inconclusive")])
def test_vanishing_is_judged_by_the_sign_of_the_growth(plain, word):
    findings = gradients.judge(gradient_frames(growths_of(plain), HALVES), {})
    initial, training, shattered, after = findings.verdicts
    assert [initial.word, training.word] == [word, word]
    assert initial.estimates[0].mean == pytest.approx(plain, abs=0.3)
    assert [shattered.word, after.word] == ["supported", "supported"]
    assert shattered.estimates[0].mean == pytest.approx(-2 + np.log10(2), abs=0.2)


def test_equal_effects_of_depth_are_no_shattering_and_two_seeds_only_a_screening():
    halves = {(PLAIN, 20): 1e-1, (PLAIN, 56): 1e-2, (RESIDUAL, 20): 1e-1, (RESIDUAL, 56): 1e-2}
    assert gradients.judge(gradient_frames(growths_of(15.0), halves), {}).verdicts[2].word == "inconclusive"
    few = gradients.judge(gradient_frames(growths_of(15.0), HALVES, seeds=(0, 1)), {})
    assert {item.word for item in few.verdicts} <= {"screening", "inconclusive"}
    one = gradients.judge(gradient_frames(growths_of(15.0), HALVES, seeds=(0,), depths=(56,)), {})
    assert {item.word for item in one.verdicts} == {"inconclusive"}


def test_a_diverged_run_counts_at_initialisation_only_and_is_shown():
    frames = gradient_frames(growths_of(15.0), HALVES, diverged={(PLAIN, 56, "batch", 3)})
    findings = gradients.judge(frames, {})
    initial, training, *_ = findings.verdicts
    assert (initial.estimates[0].n, training.estimates[0].n) == (6, 5)
    table = findings.tables["growth"].set_index("network")
    assert table.loc["plain-56", "diverged"] == 1


def path_frames(middle, depths=(20, 56), seeds=SEEDS):
    """middle: {depth: the length around which the share lies}."""
    runs = runs_of(depths=depths, shortcuts=(RESIDUAL,), seeds=seeds)
    frames = []
    for run in runs.itertuples():
        n = (run.depth - 2) // 2
        length = np.arange(n + 1)
        share = np.exp(-0.5 * (length - middle[run.depth] - 0.6 * (run.seed % 2)) ** 2)
        counts = np.array([comb(n, k) for k in length], float)
        table = {"length": length, "share": share / share.sum(), "gradient": share, "whole": share.sum()}
        table |= {"sampled": share / share.sum(), "binomial": counts / counts.sum(), "residue": 0.0}
        frames += [pd.DataFrame({**table, "run_id": run.run_id, "step": step}) for step in (0, 276)]
    return {"runs": runs, "paths": pd.concat(frames)}


@pytest.mark.parametrize(("middle", "word"), [({20: 3, 56: 5}, "supported"), ({20: 6, 56: 20}, "refuted")])
def test_paths_are_judged_against_the_middle_of_all_paths(middle, word):
    findings = paths.judge(path_frames(middle), {})
    assert findings.verdicts[0].word == word
    assert findings.tables["paths"]["cancels"].tolist() == [1.0] * 4


def test_paths_refuse_plain_networks_and_accept_scaled_shortcuts():
    assert "one path only" in paths.refuses(build_spec({"shortcut": "none"}))
    assert paths.refuses(build_spec({"shortcut": "scaled:alpha=0.5"})) is None
    assert "no blocks" in paths.refuses(build_spec({"family": "vgg", "depth": 16, "shortcut": "none"}))


def response_frames(trained, seeds=SEEDS):
    runs = runs_of(seeds=seeds)
    frames = []
    for run in runs.itertuples():
        rng = np.random.default_rng([run.seed, run.depth, len(run.shortcut)])
        for step in (0, 276):
            std = trained[run.shortcut, run.depth] if step else 1.0
            values = [("std", layer, "", std + 0.01 * rng.standard_normal()) for layer in range(1, run.depth)]
            if run.shortcut != "none":
                values += [("ratio", block, "", (0.4 if step else 0.6) + 0.01 * rng.random()) for block in (1, 2)]
                values += [("cosine", block, "", 0.0) for block in (1, 2)]
            table = pd.DataFrame(values, columns=["quantity", "layer", "name", "value"])
            frames.append(table.assign(run_id=run.run_id, step=step))
    return {"runs": runs, "responses": pd.concat(frames)}


def test_smaller_responses_of_residual_layers_and_shrinking_branches_are_found():
    trained = {(PLAIN, 20): 1.0, (PLAIN, 56): 1.0, (RESIDUAL, 20): 0.8, (RESIDUAL, 56): 0.5}
    less, deeper, learned, by_depth = responses.judge(response_frames(trained), {}).verdicts
    assert (less.word, deeper.word, learned.word) == ("supported", "supported", "supported")
    assert less.estimates[0].mean == pytest.approx(-0.5, abs=0.02)
    assert by_depth.word == "inconclusive"
    grown = {**trained, (RESIDUAL, 20): 1.0, (RESIDUAL, 56): 1.5}
    assert [item.word for item in responses.judge(response_frames(grown), {}).verdicts[:2]] == ["refuted", "refuted"]


def test_the_trained_phase_leaves_diverged_runs_out():
    table = pd.DataFrame(
        {"run_id": ["a", "a", "b", "b"], "step": [0, 9, 0, 4], "status": ["finished"] * 2 + ["diverged"] * 2}
    )
    assert phases(table)[["run_id", "phase"]].to_numpy().tolist() == [
        ["a", "initial"],
        ["b", "initial"],
        ["a", "trained"],
    ]


def test_effects_without_values_are_left_out_and_verdicts_on_them_too():
    found = estimates({"there": pd.Series([1.0, 2.0]), "not there": pd.Series(dtype=float)})
    assert list(found) == ["there"]
    assert verdict("", "", found, ["not there", "there"], 1) == []


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
