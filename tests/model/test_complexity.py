"""Parameters and multiply-adds: exactly those of the paper's architectures."""

import json

import pytest
import torch
import typer
from typer.testing import CliRunner

from resx import model, paper
from resx.cli import models as command
from resx.cli import run
from resx.model.complexity import CIFAR_INPUT, IMAGENET_INPUT, references
from resx.model.construction import skeleton
from resx.spec import ModelSpec

# of option A, which are the plain network's too, as the paper's architecture gives them
CIFAR_PARAMETERS = {20: 269_722, 32: 464_154, 44: 658_586, 56: 853_018, 110: 1_727_962, 1202: 19_421_274}
CIFAR_MULTIPLY_ADDS = {20: 40.55, 32: 68.86, 44: 97.17, 56: 125.49, 110: 252.89}  # millions
OPTION_B_EXTRA_PARAMETERS = 2752  # at any depth


def parameters(family: str = "cifar", **fields: object) -> int:
    spec = ModelSpec.model_validate({"family": family, **fields})
    shape = CIFAR_INPUT if family == "cifar" else IMAGENET_INPUT
    network = skeleton(spec, shape, 10 if family == "cifar" else 1000)
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("depth", CIFAR_PARAMETERS)
def test_cifar_parameters(depth: int) -> None:
    expected = CIFAR_PARAMETERS[depth]
    assert expected == pytest.approx(paper.CIFAR_PARAMETERS_PRINTED[depth].value, rel=0.02)
    assert parameters(depth=depth) == expected
    assert parameters(depth=depth, shortcut="none") == expected
    assert parameters(depth=depth, adapter="B") == expected + OPTION_B_EXTRA_PARAMETERS


@pytest.mark.parametrize("depth", CIFAR_MULTIPLY_ADDS)
@pytest.mark.parametrize("shortcut", ["none", "identity"])
def test_cifar_multiply_adds(depth: int, shortcut: str) -> None:
    counted = model.count(ModelSpec(depth=depth, width=16, shortcut=shortcut), CIFAR_INPUT, 10)
    assert counted.parameters == CIFAR_PARAMETERS[depth]
    assert round(counted.multiply_adds / 1e6, 2) == CIFAR_MULTIPLY_ADDS[depth]


@pytest.mark.parametrize("depth", list(paper.IMAGENET_MULTIPLY_ADDS))
def test_imagenet_multiply_adds(depth: int) -> None:
    """Table 1 has the plain networks' (or option A's) for 18 and 34, and cuts 3.86 off to 3.8."""
    shortcut = "none" if depth < 50 else "identity"
    spec = ModelSpec(family="imagenet", depth=depth, width=None, shortcut=shortcut)
    counted = model.count(spec, IMAGENET_INPUT, 1000).multiply_adds
    assert abs(counted - paper.IMAGENET_MULTIPLY_ADDS[depth].value) < 0.06e9


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
@pytest.mark.parametrize("stride_in", ["1x1", "3x3"])
def test_imagenet_parameters_are_torchvisions(depth: int, stride_in: str) -> None:
    import torchvision

    with torch.device("meta"):
        theirs = getattr(torchvision.models, f"resnet{depth}")()
    expected = sum(parameter.numel() for parameter in theirs.parameters())
    assert parameters("imagenet", depth=depth, stride_in=stride_in) == expected


@pytest.mark.parametrize("depth", [18, 34])
def test_plain_imagenet_networks_lack_exactly_the_projections(depth: int) -> None:
    projections = sum(c * 2 * c + 2 * 2 * c for c in (64, 128, 256))
    plain = parameters("imagenet", depth=depth, shortcut="none")
    assert plain == parameters("imagenet", depth=depth, adapter="A")
    assert plain == parameters("imagenet", depth=depth) - projections


@pytest.mark.parametrize(("depth", "expected"), [(16, 138_357_544), (19, 143_667_240)])
def test_vgg(depth: int, expected: int) -> None:
    counted = model.count(ModelSpec(family="vgg", depth=depth, width=None, shortcut="none"), IMAGENET_INPUT, 1000)
    assert counted.parameters == expected
    assert counted.multiply_adds == pytest.approx(paper.VGG_MULTIPLY_ADDS[depth].value, rel=0.012)


def test_counting_a_module_leaves_it_as_it_was() -> None:
    spec = ModelSpec(depth=8, width=4, shortcut="identity")
    network = model.build(spec, (1, 8, 8), 10, 0)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert model.count(network, (1, 8, 8), 10) == model.count(spec, (1, 8, 8), 10)
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def run_models(*arguments: str) -> str:
    app = typer.Typer()
    app.command()(command.models)
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_models_counts_one_network() -> None:
    found = json.loads(run_models("--depth", "20", "--adapter", "B", "--json"))
    assert found == [{"name": "ResNet-20 (CIFAR)", "depth": 20, "parameters": 272_474, "multiply_adds": 40_813_184}]
    assert "272,474" in run_models("--depth", "20", "--adapter", "B")


def test_models_checks_the_claim_on_what_it_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    import resx.model.complexity as complexity

    few = [item for item in references() if item.name in ("ResNet-152", "VGG-19")]
    monkeypatch.setattr(complexity, "references", lambda: few)
    last = run_models().splitlines()[-1]
    assert "holds: 152/19 = 8.0× the depth at 11.28/19.63 = 0.57 of the multiply-adds" in last


def test_what_is_written_down_is_what_is_counted() -> None:
    assert command._counts(None) == command.count_references()


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [(["--family", "vgg"], 0, "VGG-19"), (["--family", "zz"], 2, "no 'zz'"), (["--shortcut", "none"], 2, "--depth")],
)
def test_no_option_is_passed_over(words: list[str], code: int, part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", *words]) == code
    shown = capsys.readouterr()
    assert part in shown.out + shown.err
    assert "ResNet" not in shown.out
