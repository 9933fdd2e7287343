"""The landscape: filter-normalised directions, weights that come back, curvature of known surfaces."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch

from resx import model
from resx.measurements.landscape import curvature, direction, landscape, moved
from resx.spec import ModelSpec


def network_of(**fields):
    spec = ModelSpec.model_validate({"depth": 8, "width": 4, **fields})
    return model.build(spec, (1, 8, 8), 4, 0).eval()


def batches():
    stream = torch.Generator().manual_seed(1)
    return [(torch.randn(16, 1, 8, 8, generator=stream), torch.arange(16) % 4)]


def test_a_direction_has_the_norm_of_every_filter_and_moves_nothing_else():
    network = network_of()
    way = direction(network, 0)
    weights = {name: value for name, value in network.named_parameters() if value.dim() > 1}
    assert list(way) == list(weights)
    for name, value in way.items():
        torch.testing.assert_close(value.flatten(1).norm(dim=1), weights[name].flatten(1).norm(dim=1))
    assert not torch.allclose(way["head.weight"], direction(network, 1)["head.weight"])


def test_plain_and_residual_networks_share_directions():
    plain, residual = direction(network_of(shortcut="none"), 0), direction(network_of(), 0)
    assert plain.keys() == residual.keys()
    assert all(torch.equal(plain[name], residual[name]) for name in plain)  # their initial weights are the same


def test_weights_come_back_bit_for_bit():
    network = network_of()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    steps = [(0.3, direction(network, 0)), (-0.7, direction(network, 1))]
    with moved(network, steps):
        assert not torch.equal(before["head.weight"], network.head.weight)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    with pytest.raises(RuntimeError), moved(network, steps):
        raise RuntimeError
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_with_batch_statistics_a_step_away_and_a_scaled_network_have_the_same_loss():
    """Scaling a filter changes nothing before a normalisation, so neither may the landscape (section 3)."""
    network, scaled = network_of(shortcut="none"), network_of(shortcut="none")
    with torch.no_grad():
        for name, value in scaled.named_parameters():
            if "conv" in name:
                value.mul_(8)
    settings = {"points": 3, "grid": 3, "radius": 0.5, "lines": 1}
    first, second = (landscape(one, batches(), "classification", **settings) for one in (network, scaled))
    chosen = first["statistics"] == "batch"
    np.testing.assert_allclose(first[chosen]["loss"], second[chosen]["loss"], rtol=1e-3)


def test_the_middle_is_the_networks_own_loss_and_progress_is_told():
    network, told = network_of(), []
    found = landscape(
        network, batches(), "classification", points=3, grid=3, progress=lambda done, total: told.append((done, total))
    )
    [(x, y)] = batches()
    with torch.no_grad():
        loss = float(torch.nn.functional.cross_entropy(network(x), y))
    middle = found[(found["a"] == 0) & (found["b"] == 0) & (found["statistics"] == "running")]
    assert len(middle) == 3  # two lines and the plane
    np.testing.assert_allclose(middle["loss"], loss, rtol=1e-6)
    assert told == [(k, 15) for k in range(1, 16)]
    assert len(found) == 30


@pytest.mark.parametrize(
    ("surface", "expected"),
    [
        (lambda a, b: a**2 + b**2, 1.0),
        (lambda a, b: a**2 - b**2, -1.0),
        (lambda a, b: a * b, -1.0),
        (lambda a, b: 4 * a**2 + b**2, 0.25),
        (lambda a, b: -(a**2) - 2 * b**2, -1.0),
        (lambda a, b: 3 * a + b, 0.0),
    ],
)
def test_curvature_of_surfaces_that_are_known(surface, expected):
    axis = np.linspace(-1, 1, 5)
    plane = pd.DataFrame([(a, b, surface(a, b)) for a, b in product(axis, axis)], columns=["a", "b", "loss"])
    ratio = curvature(plane)
    assert ratio.shape == (3, 3)
    if expected:
        np.testing.assert_allclose(ratio, expected)


def test_curvature_is_unknown_beside_a_loss_that_is_not_finite():
    plane = pd.DataFrame(list(product([-1, 0, 1], [-1, 0, 1])), columns=["a", "b"]).assign(loss=1.0)
    plane.loc[0, "loss"] = np.inf
    assert np.isnan(curvature(plane)).all()
