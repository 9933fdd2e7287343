"""What every file of this package builds on: the registry, and a learned or fixed map over channels."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resx.registry import Registry

SHORTCUTS: Registry[Callable[..., nn.Module]] = Registry("shortcut")
GeneratorFor = Callable[[str], torch.Generator]


def mix(x: Tensor, weight: Tensor) -> Tensor:
    """Return W x at every position: x [B, C, …], weight [C, C]. It is a 1×1 convolution of any number of axes."""
    return F.linear(x.movedim(1, -1), weight).movedim(-1, 1)
