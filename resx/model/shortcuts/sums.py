"""Sums with constant weights: no shortcut, residual learning, constant scaling (He et al. 2016, eq. 1; 2016b, 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from resx.model.shortcuts.contract import SHORTCUTS
from resx.spec import SpecError


@SHORTCUTS.register("none")
class Nothing(nn.Module):
    """F(x): a plain network. No parameters; x is not read."""

    reads_x = False

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, fx: Tensor) -> Tensor:
        return fx


@SHORTCUTS.register("identity")
class Identity(nn.Module):
    """x + F(x): residual learning (He et al. 2016, eq. 1). No parameters."""

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, fx: Tensor) -> Tensor:
        return x + fx


@SHORTCUTS.register("scaled")
class Scaled(nn.Module):
    """αx + F(x): constant scaling, branch unscaled (He et al. 2016b, section 3.1). No parameters."""

    kind = "constant"
    examples = ("alpha=0.25", "alpha=0.5", "alpha=0.75", "alpha=1.25")

    def __init__(self, channels: int, *, alpha: float = 0.5) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, x: Tensor, fx: Tensor) -> Tensor:
        return torch.add(fx, x, alpha=self.alpha)


@SHORTCUTS.register("convex")
class Convex(nn.Module):
    """αx + (1−α)F(x): constant scaling of both (He et al. 2016b, section 3.1). No parameters."""

    kind = "constant"
    examples = ("alpha=0.25", "alpha=0.5", "alpha=0.75")

    def __init__(self, channels: int, *, alpha: float = 0.5) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, x: Tensor, fx: Tensor) -> Tensor:
        return torch.lerp(fx, x, self.alpha)


@SHORTCUTS.register("annealed")
class Annealed(nn.Module):
    """w·x + F(x), w from 1 to 0 in training: the identity until `start`, plain from `end` on (Monti et al. 2018).

    start, end: fractions of the steps; in between w falls linearly. The loop fills `weight` before each step, as it
    does the learning rate; weights that are saved keep it, so a network is evaluated as it was last trained. No
    parameters; a buffer `weight` [].
    """

    weight: Tensor

    def __init__(self, channels: int, *, start: float = 0.25, end: float = 0.5) -> None:
        super().__init__()
        if not 0 <= start <= end <= 1:
            raise SpecError(f"shortcut 'annealed': 0 <= start <= end <= 1 is needed, not {start:g} and {end:g}")
        self.start, self.end = start, end
        self.register_buffer("weight", torch.tensor(self.schedule(0)))

    def schedule(self, progress: float) -> float:
        """Return w for a step from the fraction of steps that lie before it."""
        if progress < self.start:
            return 1.0
        return 0.0 if progress >= self.end else (self.end - progress) / (self.end - self.start)

    def forward(self, x: Tensor, fx: Tensor) -> Tensor:
        return self.weight * x + fx
