"""Shortcut functions of x and the branch's output F(x) (He et al. 2016, eq. 1; 2016b, section 3).

To add one, register a factory `(channels, *, arguments…) -> nn.Module` whose module has `forward(x, fx)`: x
is the block's input after its adapter, fx the branch's output, both [B, channels, …]; the result has the same
shape. Keyword arguments are set in a spec as `name:key=value`. A module with tensors of its own may define
`initialise(generator_for)` (see init.py). A factory with `reads_x = False` gets no adapter.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from resx.registry import Registry

SHORTCUTS: Registry[Callable[..., nn.Module]] = Registry("shortcut")


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

    def __init__(self, channels: int, *, alpha: float = 0.5) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, x: Tensor, fx: Tensor) -> Tensor:
        return torch.add(fx, x, alpha=self.alpha)
