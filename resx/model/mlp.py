"""Multilayer perceptrons: the block of He et al. 2016 with linear layers in place of convolutions."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from math import prod

from torch import nn

from resx.model import chain
from resx.model.chain import NORMS, Chain
from resx.model.network import FAMILIES, Family
from resx.spec import ModelSpec


def check(spec: ModelSpec) -> list[str]:
    """Return what is wrong with depth, shortcut or fields of image networks."""
    return [*chain.even_depth(spec), *chain.absent(spec), *chain.shortcut_mistakes(spec, ())]


def build(spec: ModelSpec, input_shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    """Return stem, blocks of two linear layers, head: inputs of any shape, flattened; depth is 2n+2."""
    width = spec.width
    assert width
    norm = NORMS[spec.norm or "batch"]
    bias = norm is nn.Identity
    stem = nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(),
            linear=nn.Linear(prod(input_shape), width, bias=bias),
            norm=norm(width),
            relu=nn.ReLU(),
        )
    )

    blocks = chain.two_layer_blocks("linear", lambda: nn.Linear(width, width, bias=bias), norm, spec)
    return Chain(stem, blocks, nn.Linear(width, n_outputs))


FAMILIES.register("mlp")(Family(check, partial(chain.complete, norm="batch"), build))
