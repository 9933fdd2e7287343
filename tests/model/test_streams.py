"""Streams between blocks: tiled by the stem, kept apart by every block, summed at the end."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

from resx import model
from resx.model.construction import check_names, skeleton
from resx.model.network import PerStream
from resx.spec import ModelSpec, SpecError

DIGITS = (1, 8, 8), 10
SHORTCUTS = ["hyper", "hyper-doubly-stochastic", "depth-attention"]


def built(shortcut: str, order: str = "pre", depth: int = 14, **fields: object) -> model.Network:
    spec = ModelSpec.model_validate({"depth": depth, "shortcut": shortcut, "order": order, **fields})
    network = model.build(spec, *DIGITS, 0)
    assert isinstance(network, model.Network)
    return network


def images() -> torch.Tensor:
    return torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("adapter", ["A", "B"])
@pytest.mark.parametrize("shortcut", SHORTCUTS)
def test_streams_persist_from_the_stem_to_the_last_block(shortcut: str, adapter: str) -> None:
    """A known reproduction collapsed them after each block, and saw no effect of them."""
    network = built(shortcut, adapter=adapter)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "shortcut" in name:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    h, counts = network.stem(images()), []
    for block in network.blocks:
        counts.append(h.shape[1])
        assert block.read(h).shape == (h.shape[0], *h.shape[2:])
        h = block(h)
    counts.append(h.shape[1])
    assert counts == (list(range(1, 8)) if shortcut == "depth-attention" else [4] * 7)
    assert (h - h[:, :1]).abs().amax((0, 2, 3, 4))[1:].min() > 1e-3  # no two streams are the same
    torch.testing.assert_close(network(images()), network.head(network.final[1:](h.sum(1)).mean((2, 3))))


@pytest.mark.parametrize("shortcut", [*SHORTCUTS, "hyper:streams=1"])
def test_at_step_0_they_are_residual_learning(shortcut: str) -> None:
    """In the pre-activation order, whose normalisations do not notice the number of streams."""
    expected, network = built("identity").train(), built(shortcut).train()
    torch.testing.assert_close(network(images()), expected(images()), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("shortcut", ["hyper:streams=1", "hyper-doubly-stochastic:streams=1"])
@pytest.mark.parametrize("order", ["pre", "post"])
def test_one_stream_is_residual_learning_to_the_bit(shortcut: str, order: str) -> None:
    expected, network = built("identity", order).train(), built(shortcut, order).train()
    torch.testing.assert_close(network(images()), expected(images()), rtol=1e-5, atol=1e-5)


def test_common_weights_are_those_of_the_twin() -> None:
    twin, state = built("identity", adapter="B").state_dict(), built("hyper", adapter="B").state_dict()
    assert all(torch.equal(state[name], value) for name, value in twin.items())
    assert all("shortcut" in name for name in set(state) - set(twin))


def test_blocks_read_different_streams_at_first() -> None:
    blocks = built("hyper", depth=56).blocks
    assert {int(block.shortcut.reading.argmax()) for block in blocks} == {0, 1, 2, 3}


def test_an_adapter_treats_every_stream_alike() -> None:
    adapter = PerStream(OrderedDict(grow=nn.Conv2d(2, 3, 1), relu=nn.ReLU()))
    x = torch.randn(2, 4, 2, 5, 5)
    torch.testing.assert_close(adapter(x)[:, 3], adapter(x[:, 3:])[:, 0])
    assert adapter(x).shape == (2, 4, 3, 5, 5)


@pytest.mark.parametrize("family", ["mlp", "conv1d", "rnn", "rnn-time", "transformer", "mapping"])
def test_other_families_refuse_streams_in_one_line(family: str) -> None:
    depth = 1 if family == "rnn-time" else 4
    with pytest.raises(SpecError, match="carries streams, which networks of images have") as error:
        model.complete(ModelSpec(family=family, depth=depth, width=None, shortcut="hyper"))
    assert len(error.value.errors) == 1


def test_a_width_that_groups_do_not_divide_is_refused_before_anything_is_built() -> None:
    errors = check_names({"family": "cifar", "depth": 8, "width": 6, "shortcut": "mixing"})
    assert errors == ["groups: 6 channels do not divide into 4"]


@pytest.mark.parametrize("shortcut", ["identity", "hyper", "depth-attention"])
def test_alternating_widths(shortcut: str) -> None:
    spec = ModelSpec(depth=14, shortcut=shortcut, widths="alternating")
    with torch.device("meta"):
        assert skeleton(spec, *DIGITS)(torch.empty(2, 1, 8, 8)).shape == (2, 10)
