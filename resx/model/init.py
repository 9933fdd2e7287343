"""Initial weights (He et al. 2015), each drawn from a stream that the parameter's full name gives.

Because no draw depends on what else the network contains, a plain network and its residual twin of one seed
start from the same common weights, bit for bit.

A module with tensors of its own (a learned or fixed random shortcut) may define `initialise(self,
generator_for: Callable[[str], torch.Generator]) -> None`, where generator_for('weight') is the stream of that
tensor. It is called after its children have been initialised, and inside torch.no_grad(). Without it, such
tensors keep the values that the constructor gave them, so these must be constants.
"""

from __future__ import annotations

from math import prod, sqrt

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from resx.seeding import generator


@torch.no_grad()
def initialise(module: nn.Module, seed: int, prefix: str = "") -> None:
    """Set all weights: He normal (fan in) for convolutions and linear layers, biases 0, BN gain 1 and bias 0.

    prefix: the module's full name, ending in a dot, where it is a part of a network.
    """
    for name, child in module.named_children():
        initialise(child, seed, f"{prefix}{name}.")
    own = getattr(module, "initialise", None)
    if own is not None:
        own(lambda name: generator(seed, "init", prefix + name))
    elif isinstance(module, _BatchNorm):
        module.reset_parameters()  # gain 1, bias 0, running mean 0 and variance 1
    elif isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
        he_normal(module.weight, generator(seed, "init", f"{prefix}weight"))
        if module.bias is not None:
            module.bias.zero_()


def he_normal(weight: Tensor, stream: torch.Generator) -> None:
    """Fill a weight [out, in, …] from N(0, 2 / fan in), fan in being the product of all sizes but the first.

    The draw is made in the order of the indices, whatever the memory format, so it depends on the name alone.
    """
    draw = torch.randn(weight.shape, generator=stream, dtype=torch.float32)
    weight.copy_(draw * sqrt(2 / prod(weight.shape[1:])))
