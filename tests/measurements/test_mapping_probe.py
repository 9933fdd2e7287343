"""What the mapping probe says of networks that are known exactly."""

import pytest
import torch

from resx import model
from resx.data.maps import linear_map
from resx.data.teacher import even_map, teach
from resx.measurements.mapping import mapping
from resx.spec import ModelSpec


def built(shortcut, layers=2, width=8):
    spec = ModelSpec(family="mapping", depth=layers, width=width, shortcut=shortcut)
    return model.build(spec, (8,), 8, 0).eval()


def hold_the_teacher(network, eps):
    """Give the branches the teacher's nonlinear part: two ReLUs for each of its absolute values."""
    with torch.no_grad():
        for layer, block in enumerate(network.blocks):
            inner, outer = even_map(8, layer)
            block.branch.linear1.weight.copy_(torch.cat([inner, -inner]))
            block.branch.linear2.weight.copy_(eps * torch.cat([outer, outer], dim=1))


@pytest.mark.parametrize("text", ["rotation-30", "negation", "permutation", "scaling-0.8"])
def test_the_student_that_knows_the_map_can_be_the_teacher(text):
    network = built(f"known:map={text}")
    hold_the_teacher(network, 0.1)
    x = torch.randn(50, 8)
    torch.testing.assert_close(network(x), teach(x.double(), text, 0.1, 2).float(), rtol=1e-4, atol=1e-5)
    [row] = mapping(network, x, linear_map(text, 8)).to_dict("records")
    assert row["distance"] < 1e-6
    assert row["composed"] < 1e-6
    assert row["odd"] < 1e-6
    assert 0 < row["residual"] < 0.3


def test_identities_are_at_no_distance_from_two_negations():
    network = built("identity")
    [row] = mapping(network, torch.randn(20, 8), linear_map("negation", 8)).to_dict("records")
    assert row["distance"] == pytest.approx(2)
    assert row["composed"] == pytest.approx(0)


def test_a_plain_network_is_all_branch_and_as_far_as_nothing():
    network = built("none")
    [row] = mapping(network, torch.randn(20, 8), linear_map("rotation-30", 8)).to_dict("records")
    assert row["residual"] == pytest.approx(1)
    assert row["distance"] == row["composed"] == pytest.approx(1)


def test_the_odd_part_counts_what_the_branch_holds_of_the_map():
    network = built("none", layers=1, width=8)
    matrix = linear_map("lowrank-4", 8)
    values, vectors = torch.linalg.eigh(matrix)
    basis = vectors[:, values > 0.5].T.float()
    with torch.no_grad():  # two ReLUs hold a direction: relu(a) − relu(−a) = a
        network.blocks[0].branch.linear1.weight.copy_(torch.cat([basis, -basis]))
        network.blocks[0].branch.linear2.weight.copy_(torch.cat([basis, -basis]).T)
    [row] = mapping(network, torch.randn(20, 8), matrix).to_dict("records")
    assert row["odd"] < 1e-5
    assert row["composed"] == pytest.approx(1)
