"""Vanilla recurrent networks (Elman 1990), with the shortcut in depth or in time.

In depth (family `rnn`) layers are stacked and the shortcut runs from a layer's input sequence to its output sequence,
as in He et al. 2016; depth counts the layers. In time (family `rnn-time`) there is one layer, unrolled, and the
shortcut runs from one state to the next, h' = S(h) + tanh(W x + U h): there the sequence's length is what grows. The
last state is normalised before the head, since sums over depth or time grow.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from resx.model import chain
from resx.model.chain import Chain, ChannelsFirst, LastStep, sequence_features
from resx.model.network import FAMILIES, Block, Family
from resx.model.shortcuts import SHORTCUTS, GeneratorFor
from resx.spec import ModelSpec, SpecError


class Recurrence(nn.Module):
    """h_t = shortcut(h_{t−1}, tanh(W x_t + U h_{t−1} + b)) from h_0 = 0: [B, C_in, T] -> [B, C, T].

    W, U and b are `inward` (with the bias) and `recurrent`, started from N(0, 1 / fan in), for tanh.
    """

    def __init__(self, in_channels: int, channels: int, shortcut: nn.Module) -> None:
        super().__init__()
        self.inward = nn.Parameter(torch.zeros(channels, in_channels))
        self.recurrent = nn.Parameter(torch.zeros(channels, channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.shortcut = shortcut

    def initialise(self, generator_for: GeneratorFor) -> None:
        for name, weight in (("inward", self.inward), ("recurrent", self.recurrent)):
            weight.copy_(torch.randn(weight.shape, generator=generator_for(name)) * weight.shape[1] ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        driven = x.transpose(1, 2) @ self.inward.T + self.bias  # all steps at once: [B, T, C]
        back = self.recurrent.T
        state = torch.zeros_like(driven[:, 0])
        states = []
        for step in driven.unbind(1):
            state = self.shortcut(state, torch.tanh(torch.addmm(step, state, back)))
            states.append(state)
        return torch.stack(states, dim=2)


def check_depth(spec: ModelSpec) -> list[str]:
    """Return what is wrong with the stacked network: depth, shortcut or fields of image networks."""
    errors = [] if spec.depth >= 2 else [f"depth: {spec.depth} recurrent layers leave no block; use 2 or more"]
    return [*errors, *chain.absent(spec), *chain.shortcut_mistakes(spec, (4,))]


def check_time(spec: ModelSpec) -> list[str]:
    """Return what is wrong with the network of one layer: depth, shortcut or fields of image networks."""
    errors = [] if spec.depth == 1 else [f"depth: the rnn-time family has one layer, not {spec.depth}; use 1"]
    return [*errors, *chain.absent(spec), *chain.shortcut_mistakes(spec, ())]


def build_depth(spec: ModelSpec, input_shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    """Return `depth` stacked layers, the first of them the stem, and a head on the last step."""
    width = spec.width
    assert width
    stem = _stem(sequence_features("rnn", input_shape), width, SHORTCUTS.create("none", width))

    def block() -> Block:
        layer = Recurrence(width, width, SHORTCUTS.create("none", width))
        return Block(layer, nn.Identity(), SHORTCUTS.create(spec.shortcut, width), nn.Identity())

    return Chain(stem, [block() for _ in range(spec.depth - 1)], _head(width, n_outputs))


def build_time(spec: ModelSpec, input_shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    """Return one layer whose states the shortcut joins, and a head on the last step."""
    width = spec.width
    assert width
    shortcut = SHORTCUTS.create(spec.shortcut, width)
    if hasattr(shortcut, "draw"):
        raise SpecError(f"shortcut '{spec.shortcut}': draws once a step of training, so it cannot run along time")
    return Chain(_stem(sequence_features("rnn-time", input_shape), width, shortcut), [], _head(width, n_outputs))


def _stem(features: int, width: int, shortcut: nn.Module) -> nn.Module:
    return nn.Sequential(OrderedDict(layout=ChannelsFirst(), layer=Recurrence(features, width, shortcut)))


def _head(width: int, n_outputs: int) -> nn.Module:
    return nn.Sequential(OrderedDict(last=LastStep(), norm=nn.LayerNorm(width), linear=nn.Linear(width, n_outputs)))


FAMILIES.register("rnn")(Family(check_depth, chain.complete, build_depth))
FAMILIES.register("rnn-time")(Family(check_time, chain.complete, build_time))
