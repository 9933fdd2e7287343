"""The mapping family: L residual layers h(x) = S x + F(x) for regression, with nothing after the addition.

He et al. 2016, section 3.1: if the wanted map is near the shortcut's, the branch has little left to learn. Beside the
common shortcuts this family's data call for two: `known`, a linear map that is known by name (data/maps.py), and
`linear`, one that is learned. A branch has fewer than 2d ReLUs, and no biases: 2d of them without biases, or d with
(shifted out of the kink), would hold any linear map (R − S)x exactly, and shortcuts would differ in speed alone.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from resx.data.maps import linear_map, parse_map
from resx.model import chain
from resx.model.chain import Chain
from resx.model.network import FAMILIES, Block, Family
from resx.model.shortcuts import SHORTCUTS, GeneratorFor, mix
from resx.spec import ModelSpec, SpecError


@SHORTCUTS.register("known")
class Known(nn.Module):
    """Sx + F(x), S a linear map over the channels that is known by name, turned `away` from it by degrees.

    x, F(x): [B, C, …]. S: [C, C], fixed and the same for every seed (resx/data/maps.py). No parameters. Orhan &
    Pitkow 2018 use orthogonal ones.
    """

    def __init__(self, channels: int, *, map: str = "identity", away: float = 0.0) -> None:
        super().__init__()
        parse_map(map)  # an unknown name is an error before anything is built
        self.map, self.away = map, away
        self.matrix: Tensor
        self.register_buffer("matrix", torch.zeros(channels, channels), persistent=False)

    def initialise(self, generator_for: GeneratorFor) -> None:
        self.matrix.copy_(linear_map(self.map, len(self.matrix), self.away))

    def forward(self, x: Tensor, fx: Tensor) -> Tensor:
        return mix(x, self.matrix) + fx


@SHORTCUTS.register("linear")
class Linear(nn.Module):
    """Sx + F(x), S a linear map over the channels that is learned from the identity (start=1) or zero (start=0).

    x, F(x): [B, C, …]. C² parameters, no bias.
    """

    def __init__(self, channels: int, *, start: float = 1.0) -> None:
        super().__init__()
        self.matrix = nn.Parameter(start * torch.eye(channels))

    def forward(self, x: Tensor, fx: Tensor) -> Tensor:
        return mix(x, self.matrix) + fx


class Outward(nn.Linear):
    """A branch's last layer, without bias: weights start from N(0, 1 / (fan in · layers)).

    The L branches of a network then add about as much power as its input has (Zhang et al. 2019, section 3); with
    He's variance every layer would triple it, which nothing here normalises.
    """

    def __init__(self, hidden: int, size: int, layers: int) -> None:
        super().__init__(hidden, size, bias=False)
        self.layers = layers

    def initialise(self, generator_for: GeneratorFor) -> None:
        draw = torch.randn(self.weight.shape, generator=generator_for("weight"))
        self.weight.copy_(draw * (self.in_features * self.layers) ** -0.5)


def check(spec: ModelSpec) -> list[str]:
    """Return what is wrong: fields of image networks, and streams."""
    return [*chain.absent(spec), *chain.one_stream(spec)]


def build(spec: ModelSpec, input_shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    """Return L = depth layers [B, d] -> [B, d]; width: a branch's ReLUs. Raises SpecError for 2d or more."""
    hidden = spec.width
    assert hidden
    if input_shape != (n_outputs,):
        raise SpecError(
            f"family mapping: needs vectors and targets of one size, not inputs {list(input_shape)} "
            f"and {n_outputs} outputs"
        )
    if hidden >= 2 * n_outputs:
        raise SpecError(
            f"width: {hidden} ReLUs can hold any linear map of {n_outputs} dimensions; use fewer than {2 * n_outputs}"
        )
    if errors := chain.shortcut_mistakes(spec.model_copy(update={"width": n_outputs}), ()):  # not its own width
        raise SpecError(errors)
    return Chain(nn.Identity(), [_block(spec, n_outputs, hidden) for _ in range(spec.depth)], nn.Identity())


def _block(spec: ModelSpec, size: int, hidden: int) -> Block:
    layers = OrderedDict(
        linear1=nn.Linear(size, hidden, bias=False),
        relu1=nn.ReLU(),
        linear2=Outward(hidden, size, spec.depth),
    )
    return Block(nn.Sequential(layers), nn.Identity(), SHORTCUTS.create(spec.shortcut, size), nn.Identity())


FAMILIES.register("mapping")(Family(check, chain.complete, build))
