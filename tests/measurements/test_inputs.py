"""What measurements are given: whose statistics, which images, which steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from resx import data
from resx.data.batches import Batches
from resx.engines import train_all
from resx.measurements.inputs import Specimen
from resx.store.files import StoreError
from resx.store.run import RunFolder, read_run
from resx.training.evaluate import EVAL_BATCH
from resx.training.machine import Machine
from resx.training.resolve import resolve

FIELDS = {"dataset": "synthetic:classes=3,size=8,train=96,test=48", "depth": 8, "width": 4, "augment": "crop-flip"}
CPU = torch.device("cpu")


def trained(results: Path, steps: int, snapshots: str = "log") -> RunFolder:
    machine = Machine(results=results, snapshots=snapshots)
    [spec] = resolve([{**FIELDS, "steps": steps, "batch_size": 16, "eval_every": 50}], machine)
    [outcome] = train_all([spec], machine)
    assert outcome.result
    return read_run(results / "runs" / spec.run_id)


def test_statistics_decide_on_the_mode_and_on_the_images(tmp_path: Path) -> None:
    run = trained(tmp_path, 4)
    dataset = data.load(run.spec.data)
    specimen = Specimen(run, dataset, CPU)
    outputs, inputs = {}, {}
    for statistics in ("running", "batch", "augmented"):
        x, y = specimen.sample(24, statistics)
        assert x.shape == (24, 3, 8, 8) and y.shape == (24,)
        with torch.no_grad():
            outputs[statistics] = specimen.network(len(x), 4, statistics)(x)
        inputs[statistics] = x
    assert torch.equal(inputs["running"], inputs["batch"])
    assert not torch.allclose(outputs["running"], outputs["batch"], atol=1e-3)
    batches = Batches(dataset, run.spec.data, 24, run.spec.seed, CPU)
    first, _ = batches.assemble(batches.tables(0, 1), torch.tensor([0]))
    assert torch.equal(inputs["augmented"], first)
    anew, augmented = (specimen.statistics_inputs(90, one) for one in ("batch", "augmented"))
    assert [len(x) for x in anew] == [90] and [len(x) for x in augmented] == [EVAL_BATCH]
    evaluated = specimen.network(24).eval()
    with torch.no_grad():
        assert torch.equal(outputs["running"], evaluated(inputs["running"]))


@pytest.mark.parametrize(("steps", "expected"), [(4, [0, 4]), (1, [0])])
def test_a_run_of_one_step_stands_for_its_initial_weights(tmp_path: Path, steps: int, expected: list[int]) -> None:
    run = trained(tmp_path, steps)
    assert Specimen(run, data.load(run.spec.data), CPU).first_and_last() == expected


def test_a_run_without_weights_is_named(tmp_path: Path) -> None:
    run = trained(tmp_path, 4, snapshots="none")
    specimen = Specimen(run, data.load(run.spec.data), CPU)
    for ask in (specimen.kept_steps, specimen.last_step, lambda: specimen.network(2)):
        with pytest.raises(StoreError, match=f"{run.run_id}: no weights were kept"):
            ask()
