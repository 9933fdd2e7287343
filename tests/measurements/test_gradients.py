"""Gradients: against autograd and finite differences; the fitted growth and the half-distance on made-up numbers."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import cross_entropy

from resx.measurements import gradients as probe
from resx.measurements.taps import capture
from resx.training.evaluate import loss_of


@pytest.mark.parametrize("shortcut", ["none", "identity"])
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_norms_are_those_of_autograd(network_of, batch, shortcut, norm):
    network = network_of(shortcut=shortcut, norm=norm)
    x, y = batch
    table = probe.gradients(network, x, y, "classification")
    assert list(table["name"]) == ["stem", *(block.name for block in network.blocks)]
    with capture(network, table["name"]) as outputs:
        loss = loss_of(network(x), y, "classification")
    gradients = torch.autograd.grad(loss, [outputs[name] for name in table["name"]])
    assert table["value"].tolist() == pytest.approx([float(one.norm()) for one in gradients], rel=1e-9)
    assert table["layer"].tolist() == [1 + 2 * place for place in range(len(table))]


def test_the_norm_at_an_activation_is_the_slope_of_the_loss_along_the_gradient(network_of, batch):
    network, (x, y) = network_of(), batch
    value = probe.gradients(network, x, y, "classification").set_index("name")["value"]["stages.1.0"]
    block = network.blocks[2]
    kept = []
    handle = block.register_forward_hook(lambda module, inputs, output: kept.append(output))
    loss = cross_entropy(network(x), y)
    handle.remove()
    (gradient,) = torch.autograd.grad(loss, kept[0])
    unit, eps = gradient / gradient.norm(), 1e-5
    losses = []
    for sign in (1, -1):
        handle = block.register_forward_hook(lambda module, inputs, output, sign=sign: output + sign * eps * unit)
        losses.append(cross_entropy(network(x), y).item())  # in float64
        handle.remove()
    assert (losses[0] - losses[1]) / (2 * eps) == pytest.approx(value, rel=1e-4)


def test_growth_recovers_a_factor_per_layer_and_leaves_jumps_between_stages_out_of_the_inner_one():
    layer = np.arange(1, 20, 2)
    stage = np.repeat([0, 1, 2], [4, 3, 3])
    norms = 1.21 ** -layer.astype(float)
    table = pd.DataFrame({"layer": layer, "stage": stage, "value": norms})
    assert probe.growth(table) == pytest.approx((1.21, 1.21))
    overall, within = probe.growth(table.assign(value=norms * 2.0**stage))
    assert within == pytest.approx(1.21)
    assert overall < 1.21
    assert np.isnan(probe.growth(table.assign(value=0.0))).all()


def test_the_half_distance_is_interpolated_and_kept_within_what_was_measured():
    table = pd.DataFrame({"distance": [0.01, 0.1, 1.0], "correlation": [1.0, 0.75, 0.25]})
    assert probe.half_distance(table) == pytest.approx(10**-0.5)
    assert probe.half_distance(table.assign(correlation=[0.4, 0.1, 0.0])) == 0.01
    assert probe.half_distance(table.assign(correlation=[0.9, 0.8, 0.7])) == 1.0


@pytest.mark.parametrize("shortcut", ["none", "identity"])
def test_gradients_of_one_input_are_alike_and_statistics_those_of_the_images(network_of, batch, shortcut):
    network, (x, _) = network_of(shortcut=shortcut), batch
    table = probe.shattering(network, x, [0.0, 1e-9, 1.0], lines=4)
    assert table["correlation"][0] == pytest.approx(1)
    assert table["correlation"][1] == pytest.approx(1, abs=1e-3)
    assert table["correlation"][2] < 0.99
    torch.testing.assert_close(network.eval()(x), network.train()(x))
