"""Shortcuts that tell directions apart: only what is new of F(x) is added, or x is rewritten along F(x) alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from resx.model.shortcuts.contract import SHORTCUTS
from resx.model.shortcuts.normalised import unit_rms
from resx.spec import SpecError


@SHORTCUTS.register("perpendicular")
class Perpendicular(nn.Module):
    """x + F − ((x·F)/(x·x + ε)) x: only what is perpendicular to x is added (Oh et al. 2025). No parameters.

    over: the dot products run over the channels of each position, or over the whole image. ε = 1e-6, as in the authors'
    code (arXiv 2505.11881, their Orthogonal-F and Orthogonal-G). Where F is perpendicular already it is the identity;
    the length of x never shrinks.
    """

    examples = ("over=position", "over=image")
    EPS = 1e-6

    def __init__(self, channels: int, *, over: str = "position") -> None:
        super().__init__()
        if over not in ("position", "image"):
            raise SpecError(f"shortcut 'perpendicular': over must be position or image, not '{over}'")
        self.over = over

    def forward(self, x: Tensor, fx: Tensor) -> Tensor:
        axes = (1,) if self.over == "position" else tuple(range(1, x.dim()))
        share = (x * fx).sum(axes, keepdim=True) / (x.square().sum(axes, keepdim=True) + self.EPS)
        return x + fx - share * x


@SHORTCUTS.register("delta")
class Delta(nn.Module):
    """x + β(x) (v(x) − k·x) k, k = F/‖F‖: the delta rule along F's direction (Zhang et al. 2026). 2C + 2 parameters.

    At each position; β = 2σ(w·norm(x) + b) and v = 4σ(w′·x + b′), norm to a root mean square of 1, as in the authors'
    code for vectors (arXiv 2601.00417). A part β of what x has along k is removed and βv written in its place: β near
    0, 1 and 2 is the identity, a projection and a reflection of x. F's length does not count. beta: β at the start,
    where w, w′ and b′ are 0.
    """

    EPS = 1e-5

    def __init__(self, channels: int, *, beta: float = 1.0) -> None:
        super().__init__()
        if not 0 < beta < 2:
            raise SpecError(f"shortcut 'delta': beta must be above 0 and below 2, not {beta:g}")
        self.gate = nn.Parameter(torch.zeros(channels))
        self.gate_bias = nn.Parameter(torch.logit(torch.tensor(beta / 2)))
        self.value = nn.Parameter(torch.zeros(channels))
        self.value_bias = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, fx: Tensor) -> Tensor:
        direction = fx * torch.rsqrt(fx.square().sum(1, keepdim=True) + self.EPS**2)
        along = (direction * x).sum(1, keepdim=True)
        beta = 2 * torch.sigmoid(_dot(unit_rms(x), self.gate) + self.gate_bias)
        value = 4 * torch.sigmoid(_dot(x, self.value) + self.value_bias)
        return x + beta * (value - along) * direction


def _dot(x: Tensor, weight: Tensor) -> Tensor:
    """Return w·x at every position: x [B, C, …], weight [C] -> [B, 1, …]."""
    return (x.movedim(1, -1) @ weight).unsqueeze(1)
