"""The gain of the composed shortcut map: exact for maps whose product is known."""

import pytest
import torch

from resx.measurements.gain import amax_gain


@pytest.mark.parametrize(
    ("shortcut", "gain"),
    [("identity", 1), ("permutation", 1), ("negation", 1), ("scaled:alpha=0.5", 0.5**6), ("none", 0)],
)
def test_constants_and_permutations(network_of, batch, shortcut: str, gain: float) -> None:
    table = amax_gain(network_of(shortcut=shortcut, order="pre"), batch[0])
    assert list(table["image"]) == list(range(len(batch[0])))
    assert table["forward"].tolist() == pytest.approx([gain] * len(table))
    assert table["backward"].tolist() == pytest.approx([gain] * len(table))


@pytest.mark.parametrize("shortcut", ["doubly-stochastic", "hyper-doubly-stochastic", "birkhoff", "mixing", "hyper"])
def test_only_constrained_mixing_holds_the_gain(network_of, batch, shortcut: str) -> None:
    network = network_of(shortcut=shortcut, order="pre")
    stream = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for block in network.blocks:
            for parameter in block.shortcut.mixing.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=stream, dtype=parameter.dtype))
    table = amax_gain(network, batch[0])
    if shortcut in ("mixing", "hyper"):
        assert table["forward"].min() > 2
    else:
        assert table["forward"].max() < 1 + 1e-3 and table["backward"].max() < 1 + 1e-3


def test_rows_forward_columns_backward(network_of, batch) -> None:
    network = network_of(shortcut="conv:init=identity", order="pre", depth=8)
    with torch.no_grad():
        for block in network.blocks:
            torch.nn.init.eye_(block.shortcut.map.weight)
        first = network.blocks[0].shortcut.map.weight
        first.zero_()
        first[0] = 1  # channel 0 becomes the sum of all four
    table = amax_gain(network, batch[0])
    assert table["forward"].tolist() == pytest.approx([4] * len(table))
    assert table["backward"].tolist() == pytest.approx([1] * len(table))
