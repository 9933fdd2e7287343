"""A run of foreign weights: recorded once, evaluated, never trained; published errors are reproduced."""

import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from resx import model
from resx.model.layouts import LAYOUTS
from resx.spec import RunSpec, SpecError
from resx.store.run import read_run
from resx.training.foreign import record_foreign
from resx.training.initial import build_network
from resx.training.machine import make_machine

NAME = "akamaster/resnet20"


@pytest.fixture
def folder(tmp_path):
    """Two classes of 32×32 images, four of each in a split; ten classes are made by empty labels."""
    for split in ("train", "test"):
        for label in range(10):
            place = tmp_path / "images" / split / f"class{label}"
            place.mkdir(parents=True)
            Image.new("RGB", (32, 32), (25 * label, 10, 100)).save(place / f"{label}.png")
    return tmp_path / "images"


@pytest.fixture
def weights(tmp_path):
    network = model.build(LAYOUTS[NAME].model, (3, 32, 32), 10, 5)
    torch.save({"state_dict": network.state_dict()}, tmp_path / "w.th")
    return tmp_path / "w.th"


def test_foreign_weights_are_a_run(tmp_path, folder, weights):
    machine = make_machine(device="cpu", jobs=1, results=tmp_path / "results", data_dir=folder)
    spec = record_foreign(NAME, weights, {"dataset": "folder"}, machine)
    run = read_run(tmp_path / "results" / "runs" / spec.run_id)
    assert spec.run_id.startswith("akamaster-resnet20-")
    assert (run.result["status"], run.result["test_images"]) == ("finished", 10)
    assert list(run.snapshots()) == [78_200]
    assert torch.equal(run.load_weights()["head.weight"], torch.load(weights)["state_dict"]["head.weight"])
    before = {file: file.stat().st_mtime_ns for file in run.path.rglob("*")}
    assert record_foreign(NAME, weights, {"dataset": "folder"}, machine) == spec
    assert {file: file.stat().st_mtime_ns for file in run.path.rglob("*")} == before


def test_it_is_never_trained(tmp_path, folder, weights):
    machine = make_machine(device="cpu", jobs=1, results=tmp_path / "results", data_dir=folder)
    spec = record_foreign(NAME, weights, {"dataset": "folder"}, machine)
    with pytest.raises(SpecError, match="trained elsewhere"):
        build_network(spec, None, tmp_path)


def test_what_the_weights_have_of_their_own_is_refused(tmp_path, folder, weights):
    machine = make_machine(device="cpu", jobs=1, results=tmp_path / "results", data_dir=folder)
    for fields, words in (({"dataset": "folder", "depth": 20}, "depth: "), ({"dataset": "digits"}, "3 channels")):
        with pytest.raises(SpecError, match=words):
            record_foreign(NAME, weights, fields, machine)


def test_ids_of_other_runs_stay_and_zero_steps_are_theirs_alone():
    assert "foreign" not in RunSpec().canonical()
    with pytest.raises(ValueError, match="steps: must be at least 1"):
        RunSpec.model_validate({"train": {"steps": 0}})


def test_a_published_error_is_reproduced(tmp_path):
    """Needs RESX_TEST_WEIGHTS, a folder of akamaster's files, and RESX_TEST_CIFAR10, CIFAR-10 as class folders."""
    places = [Path(os.environ.get(name, "")) for name in ("RESX_TEST_WEIGHTS", "RESX_TEST_CIFAR10")]
    files = sorted(places[0].glob("resnet20-*.th"))
    if not files or not (places[1] / "test").is_dir():
        pytest.skip("public weights or CIFAR-10 are not at hand: set RESX_TEST_WEIGHTS and RESX_TEST_CIFAR10")
    machine = make_machine(device="cpu", jobs=1, results=tmp_path, data_dir=places[1])
    spec = record_foreign(NAME, files[0], {"dataset": "folder"}, machine)
    result = read_run(tmp_path / "runs" / spec.run_id).result
    assert result["test_error"] == pytest.approx(LAYOUTS[NAME].published, abs=0.05)
