"""Responses: every 3×3 layer once, exactly 1 at initialisation with batch normalisation, and what blocks add."""

import pytest
import torch

from resx.measurements.responses import response_names, responses
from resx.measurements.taps import capture


@pytest.mark.parametrize("order", ["post", "pre"])
@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("shortcut", ["none", "identity"])
def test_every_3x3_layer_has_one_response(network_of, batch, shortcut, norm, order):
    network = network_of(depth=20, shortcut=shortcut, norm=norm, order=order)
    names = response_names(network)
    assert len(names) == len(set(names)) == 19  # depth 20: all layers but the linear one
    table = responses(network, batch[0])
    assert (table["quantity"] == "std").sum() == 19
    assert (table["quantity"] == "ratio").sum() == (0 if shortcut == "none" else 9)


@pytest.mark.parametrize("shortcut", ["none", "identity"])
def test_at_initialisation_batch_normalisation_makes_every_response_one(network_of, batch, shortcut):
    table = responses(network_of(shortcut=shortcut, shift=0.0), batch[0])
    stds = table[table["quantity"] == "std"]["value"]
    assert stds.to_numpy() == pytest.approx(1, abs=2e-3)  # but for BN's epsilon and one degree of freedom


@pytest.mark.parametrize("scale", [2.0, -0.5])
def test_a_branch_that_returns_a_multiple_of_its_input_is_measured_as_such(network_of, batch, scale):
    network = network_of(norm="none")
    block = network.blocks[1]

    class Multiple(torch.nn.Module):
        def forward(self, x):
            return scale * x

    block.branch = Multiple()
    table = responses(network, batch[0])
    row = table[table["name"] == block.name].set_index("quantity")["value"]
    assert row["ratio"] == pytest.approx(abs(scale))
    assert row["cosine"] == pytest.approx(1.0 if scale > 0 else -1.0)


def test_a_tap_leaves_no_trace(network_of, batch):
    network = network_of()
    with capture(network, ["stages.0.1.branch.norm1"]) as outputs:
        network(batch[0])
    assert outputs["stages.0.1.branch.norm1"].shape == (6, 4, 8, 8)
    assert not any(module._forward_hooks for module in network.modules())
    with pytest.raises(KeyError), capture(network, ["stages.9.9"]):
        pass
