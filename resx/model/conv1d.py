"""One-dimensional convolutional networks on sequences: the block of He et al. 2016 along time, at one resolution."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

from torch import nn

from resx.model import chain
from resx.model.chain import NORMS, Chain, ChannelsFirst, MeanOverTime, sequence_features
from resx.model.network import FAMILIES, Family
from resx.spec import ModelSpec

KERNEL = 3


def check(spec: ModelSpec) -> list[str]:
    """Return what is wrong with depth, shortcut or fields of image networks."""
    return [*chain.even_depth(spec), *chain.absent(spec), *chain.shortcut_mistakes(spec, (4,))]


def build(spec: ModelSpec, input_shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    """Return stem, blocks of two convolutions over 3 steps, mean over time, head; depth is 2n+2.

    Inputs are sequences [B, T, features]; a network of this depth sees 2·depth − 1 steps at a time.
    """
    width = spec.width
    assert width
    norm = NORMS[spec.norm or "batch"]

    def convolution(channels: int) -> nn.Conv1d:
        return nn.Conv1d(channels, width, KERNEL, padding=KERNEL // 2, bias=norm is nn.Identity)

    features = sequence_features("conv1d", input_shape)
    stem = nn.Sequential(
        OrderedDict(layout=ChannelsFirst(), conv=convolution(features), norm=norm(width), relu=nn.ReLU())
    )
    head = nn.Sequential(OrderedDict(pool=MeanOverTime(), linear=nn.Linear(width, n_outputs)))
    return Chain(stem, chain.two_layer_blocks("conv", lambda: convolution(width), norm, spec), head)


FAMILIES.register("conv1d")(Family(check, partial(chain.complete, norm="batch"), build))
