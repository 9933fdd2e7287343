"""`resx bench`: the baseline trains the same network by the same recipe, counts are right, the document is whole."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pretended_cuda import Machine as Cards

from resx import data, model
from resx.bench import process, roofline, shortcuts, show, subjects
from resx.bench.plan import ENGINE, Plan
from resx.cli import run
from resx.data.batches import CHUNK
from resx.training.step import drive, load_chunk, make_feeds, make_learner

TINY = Plan(
    depths=(8,), batch_size=8, image_size=8, processes=1, workers=0, repetitions=2, seconds=0.001, shortcut="none"
)


def test_the_baselines_steps_are_the_recipes() -> None:
    """Three steps on the same batches from the same weights: the same losses and weights as the engine's."""
    spec = TINY.spec(8)
    dataset = data.load(spec.data, None)
    [feed] = make_feeds([spec], dataset, torch.device("cpu"))
    learner = make_learner(spec, dataset, feed, Path())
    load_chunk([learner], 0, 3)
    batches = [feed.batch(torch.tensor([k])) for k in range(3)]
    network = model.build(spec.model, dataset.input_shape, dataset.n_outputs, spec.seed)
    network = network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    optimizer = subjects.conventional_optimizer(network, spec)
    losses = [
        subjects.conventional_step(network, optimizer, inputs.contiguous(), labels, "fp32")
        for inputs, labels in batches
    ]
    drive([learner]).run(3, lambda: False)
    assert learner.chunk.losses[:3].tolist() == pytest.approx(losses, rel=1e-4)
    assert losses[0] != losses[1]
    for mine, its in zip(learner.network.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-3, atol=1e-5)


def test_the_baselines_images_are_augmented_and_normalised() -> None:
    dataset = data.load(TINY.spec(8).data, None)
    pictures = subjects.Pictures(dataset.train_x, dataset.train_y, augment=True)
    image, label = pictures[5]
    assert image.shape == (3, 8, 8)
    assert label == int(dataset.train_y[5])
    assert any(not torch.equal(pictures[5][0], image) for _ in range(10))
    plain = subjects.Pictures(dataset.train_x, dataset.train_y, augment=False)
    expected = (dataset.train_x[5, 0].float() / 255 - 0.49) / 0.25
    torch.testing.assert_close(plain[5][0][0], expected)


def test_the_arithmetic_of_a_step_is_that_of_the_network() -> None:
    plan = Plan(batch_size=4)
    counted = roofline.work(plan, 20)
    complexity = model.count(plan.spec(20).model, (3, 32, 32), 10)
    forward = 2 * complexity.multiply_adds * 4
    assert counted["evaluate"].flops == forward
    stem = 2 * 4 * 32 * 32 * 3 * 16 * 9  # its input needs no gradient
    assert counted["train"].flops == 3 * forward - stem
    assert counted["train"].bytes > 2 * counted["evaluate"].bytes > 0


def test_the_roofline_is_the_longer_of_arithmetic_and_traffic() -> None:
    work = roofline.Work(flops=100, bytes=50)
    assert work.seconds(10, 1) == 50
    assert work.seconds(1, 10) == 100


def test_traffic_counts_inputs_and_outputs_once_and_views_not_at_all() -> None:
    x = torch.zeros(8, 4)
    with roofline._Traffic() as traffic:
        y = x + x
        y.view(4, 8)
        y.relu_()
    assert traffic.bytes == 3 * x.nbytes + 2 * x.nbytes


def test_a_busy_machine_is_said_to_be_one() -> None:
    assert process._busy([0.99, 1.0, 0.98], 0.1) == []
    [line] = process._busy([0.4, 0.5, 0.99], 7.3)
    assert "50%" in line and "7.3" in line


def test_a_measurement_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes start, answer in turns and end; the document can be printed and published."""
    monkeypatch.setattr(process, "machine_limit", lambda device, precision: (1e11, 1e10))  # takes seconds
    told: list[str] = []
    result = process.measure(TINY, told.append)
    assert told[0] == "depth 8: starting" and told[-1] == "depth 8: 2 of 2"
    rows = {(row["loop"], row["what"]): row for row in result["rows"]}
    assert set(rows) == {(name, what) for name in ("resx", "conventional") for what in ("train", "evaluate")}
    for row in rows.values():
        for key in ("ms_per_step", "images_per_second", "images_per_core_second", "share_of_limit"):
            median, least, most = row[key]
            assert 0 < least <= median <= most
        assert row["peak_memory"] >= 0  # a tiny network may stay below what start-up took
    assert [item["what"].split(":")[0] for item in result["ratios"]] == ["train", "evaluate"]
    assert set(result["modes"].values()) == {"eager"}, "there is no graph on a CPU"
    assert sum(result["profiles"]["8"].values()) <= 1.001
    table, numbers = show.publish(result, tmp_path)
    assert json.loads(numbers.read_text()) == result
    lines = table.read_text().splitlines()
    assert sum(line.startswith("| 8 |") for line in lines) == 4
    assert result["environment"]["command"] in table.read_text()


def test_what_a_measuring_process_cannot_do_is_raised() -> None:
    plan = Plan(depths=(9,), device="cpu")
    measured = process._Process(ENGINE, plan, 9)
    with pytest.raises(Exception, match="6n\\+2"):
        measured.answer()
    measured.close()
    assert measured.process.exitcode == 0


def test_each_number_of_networks_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "machine_limit", lambda device, precision: (1e11, 1e10))
    result = process.measure(replace(TINY, networks=(1, 2), repetitions=1))
    trained = {row["loop"]: row for row in result["rows"] if row["what"] == "train"}
    assert set(trained) == {"conventional", "resx", "resx, 2 networks"}
    assert [item["what"] for item in result["ratios"]][-1] == "train: resx, 2 networks / resx, images/s"
    assert json.loads(json.dumps(result)) == result


def test_the_best_number_of_networks_is_named() -> None:
    def row(loop: str, rate: float, what: str = "train") -> dict[str, Any]:
        return {"depth": 20, "what": what, "loop": loop, "images_per_second": [rate, rate, rate]}

    result = {
        "plan": {"networks": [1, 4, 10]},
        "rows": [
            row("conventional", 900),
            row("resx", 100),
            row("resx, 4 networks", 300),
            row("resx, 10 networks", 290),
            row("resx, 10 networks", 9000, "evaluate"),
        ],
    }
    assert show._best_number(result, 20).endswith("(300) with --jobs 4")


@pytest.mark.parametrize("networks", [1, 3])
def test_the_engine_says_how_steps_are_driven_on_a_card(
    monkeypatch: pytest.MonkeyPatch, cards: Cards, networks: int
) -> None:
    monkeypatch.setitem(CHUNK, "cuda", 20)
    with subjects.engine(replace(TINY, device="cuda:1"), 8, networks) as subject:
        assert subject.mode == "graph"
        subject.train(30)  # more than a chunk
        subject.evaluate(1)
    assert subject.train_images == 8 * networks


def test_the_limit_is_measured_in_the_precision_of_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed: list[bool] = []
    monkeypatch.setattr(
        process,
        "machine_limit",
        lambda device, precision: allowed.append(torch.backends.cudnn.allow_tf32) or (1.0, 1.0),
    )
    for precision in ("fp32", "tf32"):
        process._limit(replace(TINY, precision=precision))
    assert allowed == [False, True]


def test_a_step_with_each_shortcut_is_compared_with_the_identitys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shortcuts, "SHORTCUTS", ["none", "identity", "hyper"])
    sizes = ["--depth", "8,14", "--batch-size", "8", "--image-size", "8", "--repetitions", "2", "--seconds", "0.001"]
    assert run(["bench", "--each-shortcut", *sizes, "--publish", str(tmp_path), "-q", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result["shortcuts"]) == {"none", "identity", "hyper"}
    assert result["shortcuts"]["identity"]["ratio"] == [1.0, 1.0, 1.0]
    assert all(0 < row["ms_per_step"][1] <= row["ms_per_step"][2] for row in result["shortcuts"].values())
    page = (tmp_path / "shortcuts.md").read_text()
    assert "8 layers" in page and all(f"| {name} |" in page for name in result["shortcuts"])
