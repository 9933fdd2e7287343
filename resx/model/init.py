"""Initial weights (He et al. 2015), each drawn from a stream that the parameter's full name gives.

Because no draw depends on what else the network contains, a plain network and its residual twin of one seed
start from the same common weights, bit for bit.

A module with tensors of its own (a learned or fixed random shortcut) may define `initialise(self,
generator_for: Callable[[str], torch.Generator]) -> None`, where generator_for('weight') is the stream of that
tensor. It is called after its children have been initialised, and inside torch.no_grad(). Without it, such
tensors keep the values that the constructor gave them, so these must be constants.

Other initial weights are in INITS: functions that change a network of blocks which is initialised already, and so share
He's draws wherever they leave a weight alone. Such a function may have `activation`, the one that it is made for.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod, sqrt

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from resx.registry import Registry
from resx.seeding import generator

INITS: Registry[Callable[[nn.Module], None]] = Registry("init")


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


@INITS.register("he")
def he(network: nn.Module) -> None:
    """Keep He's normal draws (He et al. 2015, section 2.2)."""


@INITS.register("looks-linear")
def looks_linear(network: nn.Module) -> None:
    """Mirror every filter that reads a CReLU: its second half is minus the first (Balduzzi et al. 2017, section 5).

    W·relu(z) − W·relu(−z) = W z, so that a plain network is linear in its input while its filters are as random as
    He's: of the 2C channels that they read, He's variance 2 / (2C·9) is the one that keeps the size of z.
    """
    for layer in [*_branch_layers(network), network.get_submodule("head")]:
        weight = layer.get_parameter("weight")
        half = weight.shape[1] // 2
        weight[:, half:] = -weight[:, :half]


looks_linear.activation = "crelu"  # type: ignore[attr-defined]


@INITS.register("dirac")
def dirac(network: nn.Module) -> None:
    """Make every convolution that keeps its channels and its map pass its input on: 1 at the centre, 0 elsewhere.

    A plain block of such convolutions, without normalisation, is the identity: what enters it comes from a ReLU. He's
    draws stay in the stem, the head and where shapes change (compare Zagoruyko & Komodakis 2017).
    """
    for layer in _branch_layers(network):
        weight = layer.get_parameter("weight")
        if weight.shape[0] == weight.shape[1] and layer.stride == (1, 1):
            nn.init.dirac_(weight)


dirac.activation = "relu"  # type: ignore[attr-defined]


def _branch_layers(network: nn.Module) -> list[nn.Conv2d]:
    branches = (module.get_submodule("branch") for module in network.modules() if hasattr(module, "branch"))
    return [layer for branch in branches for layer in branch.modules() if isinstance(layer, nn.Conv2d)]
