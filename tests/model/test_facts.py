"""What `resx shortcuts` says of each function, against the counts of whole networks."""

import pytest
import torch

from resx.model import SHORTCUTS
from resx.model.complexity import CIFAR_INPUT, count
from resx.model.facts import DEPTH, facts, length
from resx.spec import ModelSpec


@pytest.mark.parametrize("name", ["none", "conv", "mixing", "hyper", "depth-attention", "highway"])
def test_costs_are_what_whole_networks_differ_by(name: str) -> None:
    base, other = (count(ModelSpec(depth=DEPTH, shortcut=shortcut), CIFAR_INPUT, 10) for shortcut in ("identity", name))
    [row] = facts([name])
    assert row.parameters == other.parameters - base.parameters
    assert row.multiply_adds == other.multiply_adds - base.multiply_adds
    assert row.share == pytest.approx(other.multiply_adds / base.multiply_adds - 1)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("identity", "kept"),
        ("orthogonal", "kept"),
        ("scaled", "×0.5"),
        ("none", "×0"),
        ("sphere", "set"),
        ("hyper", "kept"),
    ],
)
def test_what_becomes_of_the_length_of_x(name: str, expected: str) -> None:
    assert length(name) == expected


@pytest.mark.parametrize("name", list(SHORTCUTS))
def test_every_function_can_be_listed(name: str) -> None:
    with torch.random.fork_rng():
        assert length(name)
    assert SHORTCUTS.summary(name)
