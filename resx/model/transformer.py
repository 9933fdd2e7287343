"""Transformer encoders (Vaswani et al. 2017) whose two shortcuts a layer can be any function, or none.

Each sublayer (attention, then a position-wise perceptron) is a block of its own: `norm(shortcut(x, branch(x)))` in the
original order, `shortcut(x, branch(norm(x)))` in the pre-activation order of He et al. 2016b.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resx.model import chain
from resx.model.chain import Chain, ChannelsFirst, MeanOverTime, sequence_features
from resx.model.network import FAMILIES, Block, Family
from resx.model.shortcuts import SHORTCUTS, GeneratorFor
from resx.spec import ModelSpec

HEADS = 2
HIDDEN = 2  # times the width, in the perceptron


class Attention(nn.Module):
    """Self-attention with 2 heads: [B, T, C] -> [B, T, C]. `qkv` and `out` start as He's linear layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, steps, width = x.shape
        parts = self.qkv(x).view(batch, steps, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(parts[0], parts[1], parts[2])
        return self.out(mixed.transpose(1, 2).reshape(batch, steps, width))


class Positions(nn.Module):
    """Adds a learned vector to every step: [B, T, C] -> [B, T, C]; T·C parameters, started from N(0, 1)."""

    def __init__(self, steps: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(steps, width))

    def initialise(self, generator_for: GeneratorFor) -> None:
        self.weight.copy_(torch.randn(self.weight.shape, generator=generator_for("weight")))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight


class StepNorm(nn.LayerNorm):
    """Layer normalisation of each step's channels where channels come first: [B, C, T] -> [B, C, T]."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.transpose(1, 2)).transpose(1, 2)


def check(spec: ModelSpec) -> list[str]:
    """Return what is wrong with depth, width, shortcut or fields of image networks."""
    errors = []
    if spec.depth % 2:
        errors.append(f"depth: {spec.depth} is odd; an encoder layer is two sublayers, so use {spec.depth + 1}")
    if spec.width and spec.width % HEADS:
        errors.append(f"width: {spec.width} does not divide into {HEADS} attention heads")
    return [*errors, *chain.absent(spec), *chain.shortcut_mistakes(spec, (4,))]


def build(spec: ModelSpec, input_shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    """Return embedding and positions, depth/2 encoder layers, mean over time, head; depth counts sublayers."""
    width = spec.width
    assert width
    stem = nn.Sequential(
        OrderedDict(
            embedding=nn.Linear(sequence_features("transformer", input_shape), width),
            positions=Positions(input_shape[0], width),
            layout=ChannelsFirst(),
        )
    )
    blocks = [_block(spec, width, attends) for _ in range(spec.depth // 2) for attends in (True, False)]
    head = OrderedDict(norm=StepNorm(width) if spec.order == "pre" else nn.Identity(), pool=MeanOverTime())
    return Chain(stem, blocks, nn.Sequential(OrderedDict(**head, linear=nn.Linear(width, n_outputs))))


def _block(spec: ModelSpec, width: int, attends: bool) -> Block:
    """Return one sublayer: attention, or a perceptron of one hidden layer that sees each step alone."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if spec.order == "pre":
        layers["norm"] = StepNorm(width)
    layers["steps"] = ChannelsFirst()
    if attends:
        layers["attention"] = Attention(width)
    else:
        layers["linear1"] = nn.Linear(width, HIDDEN * width)
        layers["relu1"] = nn.ReLU()
        layers["linear2"] = nn.Linear(HIDDEN * width, width)
    layers["layout"] = ChannelsFirst()
    after = StepNorm(width) if spec.order == "post" else nn.Identity()
    return Block(nn.Sequential(layers), nn.Identity(), SHORTCUTS.create(spec.shortcut, width), after)


FAMILIES.register("transformer")(Family(check, partial(chain.complete, order="post"), build))
