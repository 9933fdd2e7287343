"""What training must be: the paper's recipe, paired twins, honest rows, a diverged run as an outcome."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from resx import data, model
from resx.data.batches import Batches
from resx.engines import train_all
from resx.lab import train
from resx.spec import SpecError, TrainSpec
from resx.store.run import read_run
from resx.store.tables import load_runs
from resx.training import loop
from resx.training.evaluate import Evaluation
from resx.training.machine import Machine
from resx.training.resolve import resolve
from resx.training.schedule import evaluation_steps, learning_rates, snapshot_steps
from resx.training.step import drive, load_chunk, make_feeds, make_learner

SMALL = {
    "dataset": "synthetic:classes=3,size=8,train=96,test=48",
    "depth": 8,
    "width": 4,
    "steps": 20,
    "batch_size": 16,
    "eval_every": 7,
    "eval_images": 40,
}


def trained(tmp_path: Path, **fields: Any) -> tuple[dict[str, Any], pd.DataFrame]:
    result = train(machine=Machine(results=tmp_path), **{**SMALL, **fields})
    return result, pd.read_csv(Path(result["folder"]) / "metrics.csv")


def test_the_rate_drops_at_the_papers_iterations() -> None:
    paper = TrainSpec(steps=64_000, lr=0.1)
    rates = torch.cat([learning_rates(paper, first, 1) for first in (0, 31_999, 32_000, 47_999, 48_000)])
    assert torch.allclose(rates, torch.tensor([0.1, 0.1, 0.01, 0.01, 0.001]))
    assert torch.equal(learning_rates(paper, 0, 50_000)[31_990:32_010], learning_rates(paper, 31_990, 20))


def test_a_drop_is_not_late_through_rounding() -> None:
    for steps in (90, 100, 390):
        for percent in range(1, 100):
            rates = learning_rates(TrainSpec(steps=steps, lr=1, drops=(percent / 100,)), 0, steps)
            assert int((rates == 1).sum()) == -(-percent * steps // 100)


def test_what_is_kept_and_when() -> None:
    train_spec = TrainSpec(steps=276, eval_every=23)
    assert evaluation_steps(train_spec) == set(range(0, 277, 23))
    assert snapshot_steps(train_spec) == {0, 4, 9, 17, 34, 69, 138, 276}


def test_steps_are_sgd_with_momentum_and_decay_written_out() -> None:
    """Two steps of the engine against the update rule v ← μv + g + λw, w ← w − ηv, by hand."""
    [spec] = resolve([{**SMALL, "steps": 2, "drops": [0.5], "augment": "crop-flip"}], Machine())
    dataset = data.load(spec.data, None)
    [feed] = make_feeds([spec], dataset, torch.device("cpu"))
    learner = make_learner(spec, dataset, feed, Path())
    load_chunk([learner], 0, 2)
    drive([learner]).run(2, lambda: False)
    network = model.build(spec.model, dataset.input_shape, dataset.n_outputs, spec.seed)
    batches = Batches(dataset, spec.data, spec.train.batch_size, spec.seed, "cpu")
    tables = batches.tables(0, 2)
    speeds = [torch.zeros_like(weight) for weight in network.parameters()]
    for step, rate in enumerate((0.02, 0.002)):
        inputs, labels = batches.assemble(tables, torch.tensor([step]))
        gradients = torch.autograd.grad(F.cross_entropy(network(inputs), labels), list(network.parameters()))
        with torch.no_grad():
            for weight, speed, gradient in zip(network.parameters(), speeds, gradients, strict=True):
                speed.mul_(0.9).add_(gradient + 1e-4 * weight)
                weight.sub_(rate * speed)
    for mine, by_hand in zip(learner.network.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(mine, by_hand, rtol=1e-4, atol=1e-6)


def test_twins_see_the_same_batches_and_start_from_the_same_weights() -> None:
    specs = resolve([{**SMALL, "shortcut": name, "augment": "crop-flip"} for name in ("none", "identity")], Machine())
    seen, weights = [], []
    for spec in specs:
        dataset = data.load(spec.data, None)
        [feed] = make_feeds([spec], dataset, torch.device("cpu"))
        learner = make_learner(spec, dataset, feed, Path())
        load_chunk([learner], 0, 20)
        seen.append(torch.stack([feed.batch(torch.tensor([k]))[0] for k in range(20)]))
        weights.append(dict(learner.network.named_parameters()))
    assert torch.equal(seen[0], seen[1])
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_row_is_what_an_evaluation_by_hand_gives(tmp_path: Path) -> None:
    result, rows = trained(tmp_path)
    run = read_run(Path(result["folder"]))
    dataset = data.load(run.spec.data, None)
    network = model.build(run.spec.model, dataset.input_shape, dataset.n_outputs, 0)
    network.load_state_dict(run.load_weights())
    batches = Batches(dataset, run.spec.data, 16, 0, "cpu")
    with torch.no_grad():
        [(x, _)] = batches.evaluation("test", None, len(dataset.test_x))
        outputs = network.eval()(x)
    error = 100 * float((outputs.argmax(dim=1) != dataset.test_y).float().mean())
    assert rows["step"].tolist() == [0, 7, 14, 20]
    assert result["test_error"] == rows["test_error"].iloc[-1] == pytest.approx(error)
    assert result["test_loss"] == pytest.approx(float(F.cross_entropy(outputs, dataset.test_y)), rel=1e-5)
    logits, labels = run.load_predictions()
    torch.testing.assert_close(torch.from_numpy(logits), outputs, rtol=1e-4, atol=1e-5)
    assert torch.equal(torch.from_numpy(labels), dataset.test_y)


def test_the_reported_number_is_the_last_iterates(tmp_path: Path) -> None:
    result, rows = trained(tmp_path, lr=0.3, steps=40)
    assert result["train_error"] == rows["train_error"].iloc[-1]


def test_a_last_loss_that_is_not_finite_is_an_outcome_too(tmp_path: Path) -> None:
    """Every training loss is finite; only the evaluation after the last step is not."""
    result, metrics = trained(tmp_path, norm="none", steps=1, lr=1e8, warmup=False)
    assert result["status"] == "diverged" and result["steps_done"] == 1
    assert result["test_loss"] is None and metrics["test_loss"].isna().iloc[-1]


def test_an_evaluation_that_overflows_before_the_end_does_not_end_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At initialisation running statistics are 0 and 1: every block of a deep residual network adds to its input."""
    real, calls = loop.evaluate, iter(range(100))

    def overflows_at_first(*args: Any, **kwargs: Any) -> Evaluation:
        numbers = real(*args, **kwargs)
        return replace(numbers, loss=math.inf) if next(calls) == 0 else numbers

    monkeypatch.setattr(loop, "evaluate", overflows_at_first)
    result, rows = trained(tmp_path)
    assert result["status"] == "finished" and result["steps_done"] == 20
    assert rows["train_loss"].isna().tolist() == [True, False, False, False]


def test_a_diverged_run_is_an_outcome(tmp_path: Path) -> None:
    result, rows = trained(tmp_path, lr=1e4, norm="none", shortcut="none")
    assert result["status"] == "diverged"
    assert result["train_error"] is None
    assert result["steps_done"] == rows["step"].iloc[-1] < 20
    assert rows["train_error"].notna().any(), "the curve up to there is kept"
    runs, _ = load_runs(tmp_path)
    assert runs["status"].tolist() == ["diverged"]


def test_the_warm_up_ends_when_the_running_error_falls(tmp_path: Path) -> None:
    _, rows = trained(
        tmp_path,
        dataset="synthetic:classes=6,size=8,train=96,test=48",
        warmup=True,
        steps=80,
        eval_every=2,
        drops=[0.99],
    )
    rates = rows["lr"].tolist()[1:]
    assert rates[0] == pytest.approx(0.002)
    assert rates[-2] == pytest.approx(0.02)
    assert rates == sorted(rates[:-1]) + rates[-1:], "it does not come back"


def test_a_validation_split_is_measured_too(tmp_path: Path) -> None:
    result, rows = trained(tmp_path, validation=30)
    assert result["train_images"] == 66
    assert rows["val_error"].notna().all()


def test_a_restart_begins_with_the_parents_weights(tmp_path: Path) -> None:
    machine = Machine(results=tmp_path)
    [parent] = resolve([SMALL], machine)
    [child] = resolve([{**SMALL, "init_from": {"run": parent.run_id, "transform": "same"}}], machine)
    outcomes = train_all([child, parent], machine)
    assert all(outcome.result for outcome in outcomes), [outcome.error for outcome in outcomes]
    runs = {spec: read_run(tmp_path / "runs" / spec.run_id) for spec in (parent, child)}
    end, start = runs[parent].load_weights(), runs[child].load_weights(0)
    assert all(torch.equal(end[name], start[name]) for name in end)


@pytest.mark.parametrize(("text", "twin"), [("start=1,end=1", "identity"), ("start=0,end=0", "none")])
def test_an_annealed_shortcut_at_its_ends_is_the_identity_and_a_plain_network(
    tmp_path: Path, text: str, twin: str
) -> None:
    texts = []
    for shortcut in (f"annealed:{text}", twin):
        result, _ = trained(tmp_path, shortcut=shortcut, depth=14, augment="crop-flip")
        texts.append((Path(result["folder"]) / "metrics.csv").read_bytes())
    assert texts[0] == texts[1]


def test_an_annealed_weight_is_the_step_s_own_and_is_saved_with_the_weights(tmp_path: Path) -> None:
    result, _ = trained(tmp_path, shortcut="annealed:start=0.2,end=0.6")  # 20 steps
    run = read_run(Path(result["folder"]))
    weights = {step: float(run.load_weights(step)["stages.0.0.shortcut.weight"]) for step in run.snapshots()}
    assert weights == pytest.approx({0: 1, 1: 1, 2: 1, 5: 1, 10: 3 / 8, 20: 0})


@pytest.mark.parametrize("classes", [2, 5])
def test_a_warm_up_that_few_classes_end_by_chance_is_refused(classes: int) -> None:
    with pytest.raises(SpecError, match="by chance"):
        resolve([{"dataset": f"synthetic:classes={classes}", "depth": 8, "warmup": True}], Machine())
