"""What runs will cost: steps are timed as they run, on a GPU long enough."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pretended_cuda import Machine as Cards

from resx.data.batches import CHUNK
from resx.spec import RunSpec
from resx.training import estimate
from resx.training.estimate import estimate_cost
from resx.training.machine import Machine
from resx.training.resolve import resolve

SMALL = {
    "dataset": "synthetic:classes=3,size=8,train=96,test=48",
    "depth": 8,
    "width": 4,
    "steps": 1000,
    "batch_size": 16,
    "eval_every": 500,
}


def specs_of(*variants: dict[str, Any]) -> list[RunSpec]:
    return resolve([{**SMALL, **variant} for variant in variants], Machine())


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> list[RunSpec]:
    """Pretend that a step takes a second per layer, and record what was timed."""
    timed: list[RunSpec] = []
    monkeypatch.setattr(estimate, "_step_seconds", lambda spec, machine: timed.append(spec) or spec.model.depth)
    return timed


def test_jobs_divide_the_time_on_a_cpu_and_cards_on_gpus(tmp_path: Path, cards: Cards, seconds: Any) -> None:
    specs = specs_of(*({"seed": seed} for seed in range(4)))
    costs = {
        device: estimate_cost(specs, Machine(results=tmp_path, device=device, jobs=4)).seconds
        for device in ("cpu", "cuda:0", "cuda")
    }
    assert costs["cuda:0"] == 4 * costs["cpu"] == 2 * costs["cuda"]
    assert len(seconds) == 3, "networks of one size are timed once"


def test_a_few_steps_are_timed_on_a_card_until_a_clock_can_tell(cards: Cards, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(n / 10 for n in range(100))
    monkeypatch.setattr(estimate.time, "perf_counter", lambda: next(ticks))
    [spec] = specs_of({})
    steps: list[int] = []
    drive = estimate.drive

    def counted(learners: Any) -> Any:
        driver = drive(learners)
        return type(driver)(lambda n, stop: steps.append(n) or (driver.run(2, stop) and n), driver.mode)

    monkeypatch.setattr(estimate, "drive", counted)
    per_step = estimate._step_seconds(spec, Machine(device="cuda:1"))
    assert steps == [1, *[250] * 5], "half a second, a tenth at a time"
    assert per_step == pytest.approx(0.5 / (5 * 250))
    assert set(cards.synchronized) == {1}, "the card that is used is waited for"


def test_a_step_is_timed_in_the_precision_of_its_run(monkeypatch: pytest.MonkeyPatch, cards: Cards) -> None:
    monkeypatch.setattr(estimate, "TIMED_SECONDS", 0.0)
    monkeypatch.setitem(CHUNK, "cuda", 20)
    allowed: list[bool] = []
    drive = estimate.drive
    monkeypatch.setattr(
        estimate, "drive", lambda learners: allowed.append(torch.backends.cudnn.allow_tf32) or drive(learners)
    )
    for precision in ("tf32", "fp32"):
        [spec] = resolve([{**SMALL, "precision": precision}], Machine(device="cuda:0"))
        estimate._step_seconds(spec, Machine(device="cuda:0"))
    assert allowed == [True, False]
