"""A run of foreign weights: recorded once, evaluated, never trained; published errors are reproduced."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from resx import model, paper
from resx.data import load
from resx.engines import train_all
from resx.measurements.inputs import Specimen
from resx.model.layouts import LAYOUTS
from resx.spec import RunSpec, SpecError
from resx.store.run import read_run
from resx.training.foreign import describe_foreign, record_all
from resx.training.initial import build_network
from resx.training.machine import Machine
from resx.training.resolve import resolve

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


def recorded(network, weights, machine, **fields):
    """Record a run and return it."""
    [spec] = resolve([{"dataset": "folder", **fields, "foreign": describe_foreign(network, str(weights))}], machine)
    errors = record_all([spec], machine)
    assert not errors, errors
    return read_run(machine.results / "runs" / spec.run_id)


@pytest.fixture
def machine(tmp_path, folder, weights):
    return Machine(results=tmp_path / "results", data_dir=folder, weights=(str(weights),))


def test_foreign_weights_are_a_run(machine, weights):
    run = recorded(NAME, weights, machine)
    assert run.run_id.startswith("akamaster-resnet20-")
    assert (run.result["status"], run.result["test_images"]) == ("finished", 10)
    assert list(run.snapshots()) == [78_200]
    assert torch.equal(run.load_weights()["head.weight"], torch.load(weights)["state_dict"]["head.weight"])
    [outcome] = train_all([run.spec], machine)
    assert outcome.result == run.result  # there is nothing to train


def test_weights_are_found_by_their_content(machine, weights, tmp_path):
    [spec] = resolve([{"dataset": "folder", "foreign": describe_foreign(NAME, str(weights))}], machine)
    (tmp_path / "notes.txt").write_text("not weights")
    assert not record_all([spec], replace(machine, weights=(str(tmp_path),)))
    other = spec.model_copy(update={"foreign": spec.foreign.model_copy(update={"weights": "0" * 16})})
    assert "the weights with the content 0000" in record_all([other], machine)[other.run_id]
    assert "names no file" in record_all([other], replace(machine, weights=()))[other.run_id]


def test_it_is_never_trained(machine, weights, tmp_path):
    with pytest.raises(SpecError, match="trained elsewhere"):
        build_network(recorded(NAME, weights, machine).spec, None, tmp_path)


def test_what_the_weights_have_of_their_own_is_refused(machine, weights):
    foreign = describe_foreign(NAME, str(weights))
    for fields, words in (({"depth": 32}, "depth: "), ({"normalize": None}, "normalize: "), ({"lr": 1.0}, "lr: ")):
        with pytest.raises(SpecError, match=words):
            resolve([{"dataset": "folder", **fields, "foreign": foreign}], machine)
    [spec] = resolve([{"dataset": "synthetic", "foreign": foreign}], machine)
    assert "do not fit" in record_all([spec], machine)[spec.run_id]


MINE = """
import torch

class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 3, 3, padding=1)
    def forward(self, x):
        return x + self.layer(x).relu()

def make():
    return torch.nn.Sequential(Block(), Block(), torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 10))
"""


def test_a_user_s_own_network_is_a_run_too(machine, tmp_path):
    code = tmp_path / "mine.py"
    code.write_text(MINE)
    scope: dict = {}
    exec(MINE, scope)
    torch.save(scope["make"]().state_dict(), tmp_path / "mine.pt")
    machine = replace(machine, weights=(str(tmp_path / "mine.pt"),), code=code)
    run = recorded(f"{code}:make", tmp_path / "mine.pt", machine, normalize="symmetric")
    assert run.spec.foreign.network == "mine.py:make"
    specimen = Specimen(run, load(run.spec.data, machine.data_dir), torch.device("cpu"))
    network = specimen.network(2, 1)
    assert [block.name for block in network.blocks] == ["0", "1"]
    code.write_text(MINE + "#")
    with pytest.raises(SpecError, match="has changed since"):
        specimen.network(2, 1)


def test_networks_that_there_are_not(weights):
    with pytest.raises(SpecError, match="did you mean 'akamaster/resnet56'"):
        describe_foreign("akamaster/resnet57", str(weights))
    with pytest.raises(SpecError, match="not the weights of akamaster/resnet32"):
        describe_foreign("akamaster/resnet32", str(weights))
    with pytest.raises(SpecError, match="is for networks of torchvision"):
        describe_foreign("timm/resnet18", "DEFAULT")
    with pytest.raises(SpecError, match="say how the inputs of timm/vit_tiny"):
        resolve(
            [{"foreign": {"network": "timm/vit_tiny", "weights": "0", "layers": 3}, "dataset": "digits"}], Machine()
        )


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
    machine = Machine(results=tmp_path, data_dir=places[1], weights=(str(places[0]),))
    run = recorded(NAME, files[0], machine)
    assert run.result["test_error"] == pytest.approx(paper.PUBLIC_NETWORKS[NAME].value, abs=0.05)
