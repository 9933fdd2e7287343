"""The path to a GPU on pretended cards: what captures, what a graph computes, and what is left when a capture fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pretended_cuda import Machine as Cards
from torch import Tensor

from resx import data
from resx.engines import train_all
from resx.model import FAMILIES, SHORTCUTS
from resx.spec import RunSpec
from resx.store.run import read_run
from resx.training import drive as driving
from resx.training import loop
from resx.training.machine import Machine
from resx.training.resolve import resolve
from resx.training.step import Learner, drive, load_chunk, make_feeds, make_learner

CUDA = torch.device("cuda", 0)
SMALL: dict[str, Any] = {
    "dataset": "synthetic:classes=6,size=8,train=96,test=48",
    "augment": "crop-flip",
    "depth": 8,
    "width": 4,
    "steps": 12,
    "batch_size": 16,
    "eval_every": 5,
    "eval_images": 40,
    "warmup": True,
}
SEQUENCES = {"dataset": "digits-sequence:steps=8", "augment": None, "norm": None, "depth": 2}
LARGE = ("imagenet", "vgg")  # the blocks of other families, with millions of weights
FAMILY_FIELDS: dict[str, dict[str, Any]] = {
    "mlp": {"norm": None},
    "conv1d": {**SEQUENCES, "depth": 6},
    "rnn": SEQUENCES,
    "rnn-time": {**SEQUENCES, "depth": 1},
    "transformer": {**SEQUENCES, "order": "pre"},
    "mapping": {"dataset": "teacher:map=rotation-30,d=4,layers=2", "augment": None, "norm": None, "order": None},
}
VARIANTS: dict[str, dict[str, Any]] = {
    **{f"shortcut {name}": {"shortcut": name} for name in SHORTCUTS},
    **{f"adapter {name}": {"adapter": name} for name in ("A", "B", "C", "average+copy+fold-sum@all")},
    **{f"family {name}": {"family": name, **FAMILY_FIELDS.get(name, {})} for name in FAMILIES if name not in LARGE},
    "pre-activation": {"order": "pre"},
    "no normalisation": {"norm": "none"},
    "alternating widths": {"widths": "alternating"},
    "random subsets of blocks": {"active_blocks": 2},
    "bf16": {"precision": "bf16"},
    "bf16, option C, dropout": {"precision": "bf16", "adapter": "C", "shortcut": "dropout"},
}


def specs_of(*variants: dict[str, Any]) -> list[RunSpec]:
    return resolve([{**SMALL, **variant} for variant in variants], Machine())


def make(spec: RunSpec, device: torch.device = CUDA, checkpointed: bool = False) -> Learner:
    dataset = data.load(spec.data, None)
    [feed] = make_feeds([spec], dataset, device)
    return make_learner(spec, dataset, feed, Path(), checkpointed)


def run_steps(learners: list[Learner], chunks: tuple[int, ...] = (2, 1)) -> str:
    """Run steps in chunks and return how they were driven."""
    driver, done = None, 0
    for n in chunks:
        load_chunk(learners, done, n)
        driver = driver or drive(learners)
        assert driver.run(n, lambda: False) == n
        done += n
    assert driver is not None
    return driver.mode


def tensors(learner: Learner) -> list[Tensor]:
    return [tensor.detach().cpu() for tensor in learner.changed]


def same(mine: Learner, other: Learner) -> bool:
    return all(torch.equal(one, two) for one, two in zip(tensors(mine), tensors(other), strict=True))


def eager_twin(monkeypatch: pytest.MonkeyPatch, spec: RunSpec, **options: Any) -> Learner:
    twin = make(spec, **options)
    with monkeypatch.context() as patch:
        patch.setattr(driving, "_INVALIDATED", ["not tried"])
        assert run_steps([twin]) == "eager"
    return twin


@pytest.mark.parametrize("name", VARIANTS)
def test_a_graph_gives_the_bits_of_steps_started_one_by_one(
    monkeypatch: pytest.MonkeyPatch, cards: Cards, name: str
) -> None:
    """Every part of every registry can be captured: nothing is read back, drawn, or left behind from before."""
    [spec] = specs_of(VARIANTS[name])
    graph = make(spec)
    assert run_steps([graph]) == "graph"
    assert same(graph, eager_twin(monkeypatch, spec))
    assert all(bool(tensor.isfinite().all()) for tensor in tensors(graph)), "what a capture leaves is not used"


@pytest.mark.parametrize("variant", [{}, {"shortcut": "none"}, {"adapter": "C", "order": "pre"}])
def test_a_graph_gives_a_cpus_numbers(cards: Cards, variant: dict[str, Any]) -> None:
    [spec] = specs_of(variant)
    here, there = make(spec, torch.device("cpu")), make(spec)
    for learner in (here, there):
        run_steps([learner])
    for one, two in zip(here.network.parameters(), there.network.parameters(), strict=True):
        torch.testing.assert_close(one.detach(), two.detach().cpu(), rtol=0, atol=1e-6)


def test_checkpointed_activations_are_captured(monkeypatch: pytest.MonkeyPatch, cards: Cards) -> None:
    [spec] = specs_of({})
    graph = make(spec, checkpointed=True)
    assert run_steps([graph]) == "graph"
    assert same(graph, eager_twin(monkeypatch, spec))


def test_a_cohort_gives_every_network_what_it_has_alone(cards: Cards) -> None:
    specs = specs_of({"shortcut": "none"}, {"seed": 1}, {"depth": 14}, {"precision": "bf16"})
    dataset = data.load(specs[0].data, None)
    feeds = make_feeds(specs, dataset, CUDA)
    together = [make_learner(spec, dataset, feed, Path()) for spec, feed in zip(specs, feeds, strict=True)]
    assert run_steps(together) == "graph"
    for learner, spec in zip(together, specs, strict=True):
        alone = make(spec)
        run_steps([alone])
        assert same(learner, alone)


# --- when a capture fails ------------------------------------------------------------------------------------------


def simple_steps(n: int, device: torch.device = CUDA) -> tuple[list[Any], list[Tensor]]:
    """Steps that add the position to a number each."""
    numbers = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(n)]
    return [number.add_ for number in numbers], numbers


def fails_in_capture(cards: Cards, error: Exception | None = None) -> Any:
    """Return a step that works in the warm-up; in a capture it raises, or reads a number back."""
    number = torch.zeros(1, device=CUDA)

    def step(k: Tensor) -> None:
        number.add_(k)
        if error is not None and cards.capture is not None:
            raise error
        if error is None:
            float(number)

    return step


def check_that_a_capture_works(cards: Cards) -> None:
    assert cards.current == [0, 0], "the current stream is the default one again"
    assert not cards.allocator_captures
    steps, numbers = simple_steps(2)
    driven = driving.driver(steps, numbers, CUDA)
    assert driven.mode == "graph"
    driven.run(4, lambda: False)
    assert [number.item() for number in numbers] == [6, 6]


def test_an_error_in_a_branch_is_raised_and_leaves_nothing_behind(cards: Cards, caplog: Any) -> None:
    """The capture has branches that would be left unjoined, and the step's error is the one that is told."""
    steps, numbers = simple_steps(2)
    mistake = fails_in_capture(cards, RuntimeError("a shape does not fit\nand more"))
    driven = driving.driver([steps[0], mistake, steps[1]], numbers, CUDA)
    assert driven.mode == "eager"
    assert "(a shape does not fit)" in caplog.text and "one by one" in caplog.text
    assert [number.item() for number in numbers] == [0, 0], "the warm-up is undone"
    check_that_a_capture_works(cards)


def test_a_capture_that_cuda_invalidated_is_the_last_of_the_process(cards: Cards, caplog: Any) -> None:
    steps, numbers = simple_steps(2)
    driven = driving.driver([steps[0], fails_in_capture(cards), steps[1]], numbers, CUDA)
    assert driven.mode == "eager"
    assert "not permitted when stream is capturing" in caplog.text, "the first error, not that of the capture's end"
    assert cards.current == [0, 0]
    assert driven.run(3, lambda: False) == 3
    assert [number.item() for number in numbers] == [3, 3]
    caplog.clear()
    assert driving.driver(*simple_steps(1), CUDA).mode == "eager"
    assert len(cards.captures) == 1
    assert caplog.text == "", "it is said once"


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=str)
@pytest.mark.parametrize("place", ["in a branch", "at the end"])
def test_too_little_memory_in_a_capture_is_passed_on(cards: Cards, error: Exception, place: str) -> None:
    steps, numbers = simple_steps(2)
    if place == "in a branch":
        steps.insert(1, fails_in_capture(cards, error))
    else:
        cards.end_error = error
    with pytest.raises(type(error), match=str(error)[:20]):
        driving.driver(steps, numbers, CUDA)
    cards.end_error = None
    check_that_a_capture_works(cards)


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=str)
def test_a_cohort_whose_graph_does_not_fit_is_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cards: Cards, error: Exception
) -> None:
    specs = specs_of({"steps": 3}, {"steps": 3, "seed": 1}, {"steps": 3, "seed": 2})
    sizes: list[int] = []
    capture = driving._capture

    def fits_two(steps: Any, *others: Any) -> Any:
        sizes.append(len(steps))
        if len(steps) > 2:
            raise error
        return capture(steps, *others)

    monkeypatch.setattr(driving, "_capture", fits_two)
    outcomes = train_all(specs, Machine(results=tmp_path, device="cuda:0", jobs=3))
    assert [outcome.error for outcome in outcomes] == [None] * 3
    assert sizes == [3, 1, 2]


# --- streams and memory --------------------------------------------------------------------------------------------


def test_the_fifth_cohort_of_ten_has_streams_of_its_own(cards: Cards) -> None:
    """Torch hands out 32 streams in turns: networks must not come to share one, least of all the capture's."""
    for _ in range(5):
        driven = driving.driver(*simple_steps(10), CUDA)
        [graph] = cards.graphs
        assert sorted(graph.launches.values()) == [1] * 11, "ten branches, and the position on the capture's own stream"
        del driven, graph


def test_more_networks_than_streams_share_them(cards: Cards) -> None:
    steps, numbers = simple_steps(40)
    driven = driving.driver(steps, numbers, CUDA)
    [graph] = cards.graphs
    assert len(graph.launches) == 32
    assert driven.run(3, lambda: False) == 3
    assert {number.item() for number in numbers} == {3}


def test_the_second_card_has_its_own_streams(cards: Cards) -> None:
    second = torch.device("cuda", 1)
    for device in (CUDA, second):
        steps, numbers = simple_steps(2, device)
        driven = driving.driver(steps, numbers, device)
        assert driven.mode == "graph"
        driven.run(4, lambda: False)
        assert [number.item() for number in numbers] == [6, 6]
    assert set(cards.synchronized) == {0, 1}


def test_one_graph_at_a_time_lives(tmp_path: Path, cards: Cards) -> None:
    """A network that diverges leaves its cohort: the others' new graph is captured when the old one is gone."""
    specs = specs_of({}, {"lr": 1e30, "warmup": False, "norm": "none"}, {"seed": 1})
    outcomes = train_all(specs, Machine(results=tmp_path, device="cuda:0", jobs=3))
    assert sorted(outcome.result["status"] for outcome in outcomes if outcome.result) == [
        "diverged",
        "finished",
        "finished",
    ]
    assert cards.captures == [0, 0]


def test_a_sweep_on_a_card_writes_what_a_cpu_writes(tmp_path: Path, cards: Cards) -> None:
    """From end to end: cohort, evaluations, snapshots, checkpoints, results."""
    specs = specs_of({"shortcut": "none"}, {}, {"seed": 1})
    train_all(specs, Machine(results=tmp_path / "cuda", device="cuda:0", jobs=3))
    train_all(specs, Machine(results=tmp_path / "cpu"))
    for spec in specs:
        there, here = (tmp_path / name / "runs" / spec.run_id for name in ("cuda", "cpu"))
        assert {file.name for file in there.iterdir()} == {file.name for file in here.iterdir()}
        assert (there / "metrics.csv").read_text().count("\n") == (here / "metrics.csv").read_text().count("\n")
        weights = [read_run(path).load_weights() for path in (there, here)]
        for one, two in zip(weights[0].values(), weights[1].values(), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("mode", ["graph", "eager"])
def test_a_run_says_on_which_card_and_how_it_was_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cards: Cards, mode: str
) -> None:
    if mode == "eager":
        monkeypatch.setattr(driving, "_INVALIDATED", ["not tried"])
    specs = specs_of({"steps": 3}, {"steps": 3, "seed": 1})
    train_all(specs, Machine(results=tmp_path, device="cuda:1", jobs=2))
    for spec in specs:
        [attempt] = read_run(tmp_path / "runs" / spec.run_id).attempts()
        recorded = {key: attempt[key] for key in ("device", "hardware", "cohort", "mode")}
        assert recorded == {"device": "cuda", "hardware": "Pretended Card 1", "cohort": 2, "mode": mode}
        assert {"cuda", "cudnn", "driver"} <= attempt.keys()


def test_a_resume_on_another_card_is_refused(tmp_path: Path, cards: Cards) -> None:
    [spec] = specs_of({"steps": 3})
    train_all([spec], Machine(results=tmp_path, device="cuda:0"))
    (tmp_path / "runs" / spec.run_id / "result.json").unlink()
    [outcome] = train_all([spec], Machine(results=tmp_path, device="cuda:1"))
    assert "hardware Pretended Card 0, this is Pretended Card 1" in str(outcome.error)
    [outcome] = train_all([spec], Machine(results=tmp_path, device="cuda:1", allow_change=True))
    assert outcome.result is not None


def test_the_seconds_of_a_cohort_are_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cards: Cards) -> None:
    """The seconds of a sweep's runs add up to what the GPU was busy for."""
    now = iter(range(0, 10_000, 10))
    monkeypatch.setattr(loop.time, "monotonic", lambda: float(next(now)))
    specs = specs_of(*({"steps": 2, "seed": seed} for seed in range(4)))
    outcomes = train_all(specs, Machine(results=tmp_path, device="cuda:0", jobs=4))
    seconds = [outcome.result["seconds"] for outcome in outcomes if outcome.result]
    assert len(seconds) == 4
    assert sum(seconds) < next(now), "not four times the clock"


def test_steps_started_one_by_one_stop_when_asked(cards: Cards) -> None:
    steps, numbers = simple_steps(1)
    driven = driving.Driver(driving._eager(steps, CUDA), "eager")
    assert driven.run(100, lambda: True) == driving.ASK_EVERY
    assert numbers[0].item() == sum(range(driving.ASK_EVERY))


def test_what_trains_on_a_card_lies_on_it(cards: Cards) -> None:
    [spec] = specs_of({"shortcut": "dropout"})
    learner = make(spec, torch.device("cuda", 1))
    run_steps([learner])
    assert {tensor.device for tensor in learner.changed} == {torch.device("cuda", 1)}
