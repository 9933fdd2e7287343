"""Shortcuts that normalise the sum itself, so that nothing grows with depth (Vaswani et al. 2017; nGPT)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resx.model.shortcuts.contract import SHORTCUTS


def unit_rms(x: Tensor) -> Tensor:
    """Return x scaled to a root mean square of 1 over the channels of each position: [B, C, …] -> the same shape."""
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-5)


@SHORTCUTS.register("post-norm")
class PostNorm(nn.Module):
    """N(x + F): layer normalisation of the sum, as in the original Transformer (Vaswani et al. 2017). 2C parameters.

    N: over the channels of each position, gain 1 and bias 0 at the start (Ba et al. 2016). No identity is left: the
    gradient passes every N.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, fx: Tensor) -> Tensor:
        positions = (x + fx).movedim(1, -1)
        return F.layer_norm(positions, positions.shape[-1:], self.gain, self.bias).movedim(-1, 1)


@SHORTCUTS.register("sphere")
class Sphere(nn.Module):
    """N(N(x) + |α| ⊙ (N(F) − N(x))): a step on the sphere towards F (nGPT: Loshchilov et al. 2024). C parameters.

    N scales the channels of each position to length √C (nGPT: 1, with a scale of the logits instead). α is learned per
    channel, from `start`; nGPT's code has 0.05 and the absolute value. α = 0 is N(x), α = 1 is N(F).
    """

    def __init__(self, channels: int, *, start: float = 0.05) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.full((channels,), start))

    def forward(self, x: Tensor, fx: Tensor) -> Tensor:
        here, there = unit_rms(x), unit_rms(fx)
        step = ((there - here).movedim(1, -1) * self.rate.abs()).movedim(-1, 1)
        return unit_rms(here + step)
