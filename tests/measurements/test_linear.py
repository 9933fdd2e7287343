"""The best linear map of a block: exact where the block is linear, and zero distance for the identity."""

import pytest
import torch

from resx.measurements.linear import linear_maps


def values(table, quantity):
    return table[table["quantity"] == quantity]["value"].to_numpy()


def test_silent_branches_are_the_identity(network_of, batch):
    network = network_of(order="pre")
    for block in network.blocks:
        torch.nn.init.zeros_(block.branch.conv2.weight)
    table = linear_maps(network, [batch[0][:3], batch[0][3:]])
    assert list(table["layer"].unique()) == list(range(1, 7))
    assert values(table, "from identity").max() < 0.01  # the ridge keeps it from 0
    assert values(table, "from zero") == pytest.approx(1, abs=0.01)
    assert values(table, "identity") == pytest.approx(1)
    assert values(table, "linear") == pytest.approx(1, abs=1e-3)


def test_a_plain_block_is_measured_against_its_input(network_of, batch):
    table = linear_maps(network_of(shortcut="none"), [batch[0]])
    assert (values(table, "linear") >= values(table, "identity") - 1e-3).all()
    assert (values(table, "from zero") > 0).all()
