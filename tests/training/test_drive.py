"""How steps are driven changes no number: chunks of any size, cohorts, catching up, checkpointing, CUDA graphs."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pretended_cuda import Machine as Cards
from torch.utils._python_dispatch import TorchDispatchMode

from resx import data, engines
from resx.engines import here, train_all
from resx.engines.here import cohorts
from resx.model import SHORTCUTS
from resx.spec import DataSpec, RunSpec, SpecError
from resx.store.run import finished_result, open_run
from resx.training import drive as driving
from resx.training import loop, step
from resx.training.evaluate import CUDA_EVAL_VALUES
from resx.training.loop import train_networks
from resx.training.machine import Machine, computing
from resx.training.memory import (
    OPTION,
    checkpoint_activations,
    cohort_memory,
    evaluation_memory,
    memory_needed,
    memory_warning,
)
from resx.training.resolve import resolve
from resx.training.step import Learner, drive, load_chunk, make_feeds, make_learner, train_step

SMALL = {
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


def specs_of(*variants: dict[str, Any]) -> list[RunSpec]:
    return resolve([{**SMALL, **variant} for variant in variants], Machine())


def make(spec: RunSpec, device: str = "cpu", checkpointed: bool = False) -> Learner:
    dataset = data.load(spec.data, None)
    [feed] = make_feeds([spec], dataset, torch.device(device))
    return make_learner(spec, dataset, feed, Path(), checkpointed)


def trained_steps(spec: RunSpec, chunks: list[int], device: str = "cpu", checkpointed: bool = False) -> Learner:
    """Train in chunks of these sizes and return the network with what it has become."""
    learner = make(spec, device, checkpointed)
    done, driver = 0, None
    for steps in chunks:
        load_chunk([learner], done, steps)
        driver = driver or drive([learner])
        assert driver.run(steps, lambda: False) == steps
        done += steps
    return learner


def tensors(learner: Learner) -> dict[str, torch.Tensor]:
    """Everything that training changed, by name."""
    state = learner.state()
    momentum = {f"momentum {n}": values for n, values in enumerate(state["momentum"])}
    flags = {name: state[name] for name in ("warming", "running_error")}
    return {**learner.network.state_dict(), **momentum, **flags}


def assert_same(mine: Learner, other: Learner) -> None:
    first, second = tensors(mine), tensors(other)
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name].cpu(), second[name].cpu())]
    assert different == []


class Reads(TorchDispatchMode):
    """Records operations that read the device back or whose result's shape depends on values."""

    FORBIDDEN = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal.default")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.shapes: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.seen += [str(func) for name in self.FORBIDDEN if name in str(func)]
        self.shapes.append((str(func), getattr(result, "shape", None)))
        return result


@pytest.mark.parametrize(
    "variant", [{}, {"shortcut": "none"}, {"order": "pre"}, {"active_blocks": 2}, {"precision": "bf16"}]
)
def test_a_step_reads_nothing_back_and_has_static_shapes(variant: dict[str, Any]) -> None:
    [spec] = specs_of(variant)
    learner = trained_steps(spec, [1])
    load_chunk([learner], 1, 3)
    taken = []
    for k in range(3):
        with Reads() as reads:
            train_step(learner, torch.tensor([k]))
        assert reads.seen == []
        taken.append(reads.shapes)
    assert taken[0] == taken[1] == taken[2]
    assert len(taken[0]) > 50


def test_a_step_changes_no_other_tensor_than_it_says() -> None:
    """What a graph's warm-up does must be undone by restoring `changed`; and nothing may move in memory."""
    [spec] = specs_of({})
    learner, untouched = trained_steps(spec, [2]), trained_steps(spec, [2])
    before = [tensor.clone() for tensor in learner.changed]
    places = [tensor.data_ptr() for tensor in learner.changed]
    drive([learner]).run(2, lambda: False)
    assert places == [tensor.data_ptr() for tensor in learner.changed]
    with torch.no_grad():
        for tensor, values in zip(learner.changed, before, strict=True):
            tensor.copy_(values)
    for one in (learner, untouched):
        load_chunk([one], 2, 4)
        drive([one]).run(4, lambda: False)
    assert_same(learner, untouched)


def test_loaded_chunks_stay_where_they_are() -> None:
    [spec] = specs_of({"active_blocks": 2})
    learner = trained_steps(spec, [5])

    def places() -> list[int]:
        planned = [tensor for pair in learner.chunk.planned.values() for tensor in pair]
        batches = learner.feed.batch(torch.tensor([0]))
        assert all(tensor.isfinite().all() for tensor in batches)
        return [
            tensor.data_ptr() for tensor in [learner.chunk.rates, *planned, learner.feed._inputs, learner.feed._targets]
        ]

    before = places()
    load_chunk([learner], 5, 3)
    assert places() == before


@pytest.mark.parametrize("chunks", [[1] * 12, [5, 7], [3, 1, 8]])
def test_chunks_of_any_size_give_the_same_numbers(chunks: list[int]) -> None:
    [spec] = specs_of({})
    assert_same(trained_steps(spec, [12]), trained_steps(spec, chunks))


SEQUENCES = {"dataset": "digits-sequence:steps=8", "augment": None, "norm": None, "width": 8}


@pytest.mark.parametrize(
    "variant",
    [
        {},
        {"adapter": "C", "shortcut": "linear"},
        {"order": "pre", "shortcut": "shortcut-gate", "active_blocks": 2},
        {"family": "rnn-time", "depth": 1, **SEQUENCES},
        {"family": "transformer", "depth": 2, **SEQUENCES, "order": "pre"},
    ],
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_is_done_for_all_layers_at_once_gives_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, variant: dict[str, Any], precision: str
) -> None:
    """The weights that autocast would round one by one, and the batches that normalisations count."""
    [spec] = specs_of({**variant, "precision": precision})
    together = trained_steps(spec, [6])
    assert together.together.places or precision == "fp32"
    monkeypatch.setattr(step, "_called_once", lambda *given: frozenset())
    alone = trained_steps(spec, [6])
    assert not alone.together.places and not alone.together.counts
    assert_same(together, alone)


def test_runs_of_one_seed_share_their_batches_and_all_share_the_images() -> None:
    specs = specs_of({}, {"shortcut": "none"}, {"seed": 1})
    feeds = make_feeds(specs, data.load(specs[0].data, None), torch.device("cpu"))
    assert feeds[0] is feeds[1] and feeds[0] is not feeds[2]
    assert feeds[0].batches._x["train"] is feeds[2].batches._x["train"]
    assert [feed.batches.seed for feed in feeds] == [0, 0, 1]


def metrics(results: Path, spec: RunSpec) -> bytes:
    return (results / "runs" / spec.run_id / "metrics.csv").read_bytes()


def test_a_cohort_gives_every_network_the_bytes_it_has_alone(tmp_path: Path) -> None:
    specs = specs_of({"shortcut": "none"}, {"seed": 1}, {"depth": 14})
    train_all(specs, Machine(results=tmp_path / "alone"))
    together(tmp_path / "together", specs)
    for spec in specs:
        assert metrics(tmp_path / "together", spec) == metrics(tmp_path / "alone", spec)


def together(results: Path, specs: list[RunSpec], stop_after: int | None = None) -> None:
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return stop_after is not None and asked > stop_after

    with ExitStack() as stack:
        folders = [stack.enter_context(open_run(results, spec)) for spec in specs]
        dataset = data.load(specs[0].data, None)
        train_networks(folders, dataset, Machine(results=results), should_stop=should_stop)


def test_a_network_that_is_behind_its_cohort_catches_up(tmp_path: Path) -> None:
    specs = specs_of({"shortcut": "none"}, {})
    train_all(specs, Machine(results=tmp_path / "alone"))
    with pytest.raises(loop.Stopped):
        together(tmp_path / "both", specs[:1], stop_after=6)
    with pytest.raises(loop.Stopped):
        together(tmp_path / "both", specs, stop_after=2)
    together(tmp_path / "both", specs)
    for spec in specs:
        assert metrics(tmp_path / "both", spec) == metrics(tmp_path / "alone", spec)


def test_a_diverged_network_leaves_its_cohort_alone(tmp_path: Path) -> None:
    good, bad = specs = specs_of({}, {"lr": 1e30, "warmup": False, "norm": "none"})
    together(tmp_path / "together", specs)
    train_all([good], Machine(results=tmp_path / "alone"))
    assert finished_result(bad, tmp_path / "together")["status"] == "diverged"  # type: ignore[index]
    assert metrics(tmp_path / "together", good) == metrics(tmp_path / "alone", good)


# --- memory --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "variant",
    [{}, {"order": "pre"}, {"shortcut": "none"}, {"adapter": "C"}, {"active_blocks": 2}, {"precision": "bf16"}],
)
def test_checkpointed_activations_change_no_bit(variant: dict[str, Any]) -> None:
    """Running statistics among them, which the second forward pass must not update again."""
    [spec] = specs_of(variant)
    kept = trained_steps(spec, [6])
    assert_same(kept, trained_steps(spec, [6], checkpointed=True))
    assert int(kept.network.state_dict()["stem.norm.num_batches_tracked"]) == 6


def test_checkpointed_runs_write_the_same_metrics(tmp_path: Path) -> None:
    [spec] = specs_of({})
    train_all([spec], Machine(results=tmp_path / "kept"))
    train_all([spec], Machine(results=tmp_path / "again", checkpoint_activations=True))
    assert metrics(tmp_path / "kept", spec) == metrics(tmp_path / "again", spec)


def test_the_memory_estimate_follows_depth_batch_and_checkpointing() -> None:
    def need(checkpointed: bool = False, **variant: Any) -> int:
        [spec] = specs_of(variant)
        return memory_needed(spec, (3, 32, 32), 3, checkpointed)

    shallow, deep = need(depth=8), need(depth=20)
    assert 1.8 * shallow < deep < 3.5 * shallow
    assert need(depth=20, batch_size=32) == pytest.approx(2 * deep, rel=0.1)
    assert need(depth=20, checkpointed=True) < deep / 2
    one_map = 16 * 4 * 32 * 32 * 4  # bytes of an activation of the first stage: batch, channels, pixels, float32
    assert shallow > 7 * one_map  # seven layers of at least a quarter of that, each kept twice or more


def test_what_will_not_fit_is_told_with_the_option() -> None:
    assert memory_warning(2**30, 2**31, False) is None
    line = memory_warning(3 * 2**30, 2**30, False)
    assert line is not None and "3.0 GiB" in line and "1.0 GiB" in line and OPTION in line and "\n" not in line
    again = memory_warning(3 * 2**30, 2**30, True)
    assert again is not None and OPTION not in again and "--batch-size" in again


def test_a_network_without_blocks_cannot_be_checkpointed() -> None:
    with pytest.raises(SpecError, match=OPTION):
        checkpoint_activations(torch.nn.Linear(2, 2))


# --- cohorts on a GPU, without one ---------------------------------------------------------------------------------


def cohorts_with(cards: Cards, specs: list[RunSpec], jobs: int, free: int) -> list[list[RunSpec]]:
    cards.free = [free, free]
    machine = Machine(device="cuda:0", jobs=jobs)
    return cohorts(specs, lambda spec: data.load(spec, None), machine)


def test_cohorts_share_data_and_schedule_and_are_no_larger_than_jobs(cards: Cards) -> None:
    variants = [{"shortcut": s, "depth": d} for d in (8, 14) for s in ("none", "identity")]
    alike, other = specs_of(*variants), specs_of({"steps": 24}, {"batch_size": 8}, {"precision": "bf16"})
    groups = cohorts_with(cards, alike + other, 3, 2**40)
    assert [len(group) for group in groups] == [3, 1, 1, 1, 1]
    assert [spec for group in groups for spec in group] == alike + other
    assert cohorts(alike, lambda spec: pytest.fail("no data needed"), Machine(jobs=3)) == [[spec] for spec in alike]


def memory_of(specs: list[RunSpec]) -> int:
    """What these runs take side by side: images and the largest evaluation once, batches once a seed."""
    dataset = data.load(specs[0].data, None)
    shape = dataset.input_shape, dataset.n_outputs
    needs = {spec: memory_needed(spec, *shape) for spec in specs}
    evaluation = max(evaluation_memory(spec, *shape, torch.device("cuda", 0)) for spec in specs)
    return cohort_memory(specs, dataset, torch.device("cuda", 0), needs, evaluation)


def test_cohorts_fit_into_memory(cards: Cards, caplog: pytest.LogCaptureFixture) -> None:
    specs = specs_of({}, {"seed": 1}, {"seed": 2})
    assert [len(group) for group in cohorts_with(cards, specs, 10, memory_of(specs[:2]))] == [2, 1]
    assert caplog.text == ""
    with caplog.at_level(logging.WARNING, "resx"):
        assert [len(group) for group in cohorts_with(cards, specs, 10, memory_of(specs[:1]) - 1)] == [1, 1, 1]
    assert caplog.text.count(OPTION) == 3


def test_what_torch_holds_in_its_cache_counts_as_free(cards: Cards) -> None:
    specs = specs_of({}, {"seed": 1}, {"seed": 2})
    cards.reserved[0], cards.allocated[0] = memory_of(specs) + 100, 100
    assert [len(group) for group in cohorts_with(cards, specs, 10, 0)] == [3]


def test_a_cohort_holds_images_once_and_batches_once_for_each_seed() -> None:
    twins, seeds = specs_of({}, {"shortcut": "none"}), specs_of({}, {"seed": 1})
    dataset = data.load(twins[0].data, None)
    device, needs = torch.device("cuda", 0), dict.fromkeys(twins + seeds, 0)
    alone, same_seed, other_seed = (
        cohort_memory(specs, dataset, device, needs, 0) for specs in (twins[:1], twins, seeds)
    )
    assert alone == same_seed
    images = dataset.train_x.nbytes + dataset.test_x.nbytes
    assert other_seed - images == 2 * (alone - images)
    assert cohort_memory(twins, dataset, device, needs, 1000) == alone + 1000, "evaluation, on top of the graph"


def test_an_evaluation_takes_its_largest_layers() -> None:
    [narrow, wide] = specs_of({}, {"width": 8})
    sizes = [evaluation_memory(spec, (3, 32, 32), 3, torch.device("cuda", 0)) for spec in (narrow, wide)]
    assert sizes[1] == pytest.approx(2 * sizes[0])
    one_map = 4 * 32 * 32 * 4 * (CUDA_EVAL_VALUES // (3 * 32 * 32))  # bytes of an output of the first stage
    assert 3 * one_map < sizes[0] < 8 * one_map


@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_run_that_cannot_be_prepared_fails_alone(tmp_path: Path, cards: Cards, checkpointed: bool) -> None:
    """On a GPU cohorts are made before anything trains: data that is missing must not stop a whole sweep."""
    good, bad = specs_of({"steps": 2}, {"steps": 2, "dataset": "digits"})
    if checkpointed:
        [bad] = specs_of({"steps": 2, "family": "vgg", "depth": 16, "width": None, "shortcut": "none"})

    def datasets(spec: DataSpec) -> data.Dataset:
        if spec.dataset == "digits":
            raise SpecError("the files are gone")
        return data.load(spec, None)

    machine = Machine(results=tmp_path, device="cuda:0", jobs=4, checkpoint_activations=checkpointed)
    assert sorted(map(len, cohorts([good, bad], datasets, machine))) == [1, 1]


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: x")]
)
def test_a_cohort_that_does_not_fit_is_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    specs = specs_of({}, {"seed": 1}, {"seed": 2})
    sizes = []

    def train_networks_of_one(folders: list[Any], *args: Any, **kwargs: Any) -> None:
        sizes.append(len(folders))
        if len(folders) > 1 or folders[0].spec.seed == 2:
            raise error

    monkeypatch.setattr(engines, "TRIES", 1)  # what is made up here records nothing
    monkeypatch.setattr(here, "train_networks", train_networks_of_one)
    monkeypatch.setattr(here, "cohorts", lambda specs, datasets, machine: [list(specs)])
    outcomes = train_all(specs, Machine(results=tmp_path))
    assert sizes == [3, 1, 2, 1, 1]
    assert [outcome.error is None for outcome in outcomes] == [True, True, False]
    assert OPTION in (outcomes[2].error or "")


def test_a_failed_capture_is_said_and_steps_are_launched_one_by_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(driving, "_captured", fail)
    device: Any = SimpleNamespace(type="cuda")
    assert driving.driver([], [], device).mode == "eager"
    assert "one by one" in caplog.text and "not permitted" in caplog.text


# --- on a GPU ------------------------------------------------------------------------------------------------------

EVERY_PART = [
    *({"shortcut": name} for name in SHORTCUTS),
    *({"adapter": name} for name in ("B", "C", "average+copy+fold-sum@all")),
    {"active_blocks": 2},
    {"precision": "bf16"},
    {"precision": "tf32"},
    {"order": "pre"},
]


@pytest.mark.cuda
@pytest.mark.parametrize("variant", EVERY_PART, ids=str)
def test_the_same_run_gives_the_same_bits_twice(variant: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    [spec] = resolve([{**SMALL, **variant}], Machine(device="cuda"))
    with computing(spec.train.precision):
        assert_same(trained_steps(spec, [5, 7], "cuda"), trained_steps(spec, [12], "cuda"))
    assert caplog.text == ""  # a capture that failed would say so


@pytest.mark.cuda
@pytest.mark.parametrize("variant", [{}, {"active_blocks": 2}, {"precision": "bf16"}, {"order": "pre"}])
def test_a_graph_gives_the_bits_of_steps_started_one_by_one(
    monkeypatch: pytest.MonkeyPatch, variant: dict[str, Any]
) -> None:
    [spec] = specs_of(variant)
    with computing(spec.train.precision):
        graph = trained_steps(spec, [5, 7], "cuda")
        monkeypatch.setattr(driving, "_INVALIDATED", ["not tried"])
        assert_same(graph, trained_steps(spec, [12], "cuda"))


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_network_of_a_cohort_gives_the_bits_it_has_alone(precision: str) -> None:
    specs = specs_of(*({"shortcut": shortcut, "precision": precision} for shortcut in ("none", "identity")))
    with computing(precision):
        pair = [make(spec, "cuda") for spec in specs]
        load_chunk(pair, 0, 12)
        drive(pair).run(12, lambda: False)
        for learner, spec in zip(pair, specs, strict=True):
            assert_same(learner, trained_steps(spec, [12], "cuda"))


@pytest.mark.cuda
def test_checkpointing_inside_a_graph_changes_nothing() -> None:
    [spec] = specs_of({})
    with computing():
        assert_same(trained_steps(spec, [6], "cuda"), trained_steps(spec, [6], "cuda", checkpointed=True))


@pytest.mark.cuda
@pytest.mark.parametrize("depth", [20, 56])
def test_the_memory_estimate_is_not_below_what_is_taken(depth: int) -> None:
    [spec] = specs_of({"depth": depth, "width": 16, "batch_size": 128})
    before = torch.cuda.memory_reserved()
    torch.cuda.reset_peak_memory_stats()
    trained_steps(spec, [3], "cuda")
    assert torch.cuda.max_memory_reserved() - before < 1.5 * memory_of([spec])


@pytest.mark.cuda
def test_runs_train_as_cohorts_on_a_gpu(tmp_path: Path) -> None:
    specs = specs_of({"shortcut": "none"}, {}, {"seed": 1})
    outcomes = train_all(specs, Machine(results=tmp_path, device="cuda", jobs=3))
    assert [outcome.result["steps_done"] for outcome in outcomes if outcome.result] == [12, 12, 12]
