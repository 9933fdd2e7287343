"""What every registered shortcut function costs and keeps: the rows of `resx shortcuts`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from resx.model.complexity import CIFAR_CLASSES, CIFAR_INPUT
from resx.model.construction import skeleton
from resx.model.init import initialise
from resx.model.network import Network
from resx.model.shortcuts import SHORTCUTS
from resx.spec import ModelSpec, parse_part

DEPTH = 20
TRIAL = (4, 16, 8, 8)  # [B, C, H, W] of the x whose length is compared


@dataclass(frozen=True)
class Facts:
    """One shortcut function, as registered, with arguments that are not given at their defaults.

    summary: the first line of its docstring. parameters, multiply_adds: what the shortcuts of a CIFAR network of 20
    layers add to residual learning, multiply-adds for one image and as a share of the whole network's too. length: what
    becomes of the length of x where F = 0, at the start and in eval mode.
    """

    name: str
    summary: str
    parameters: int
    multiply_adds: int
    share: float
    length: str


def facts(names: Iterable[str] = ()) -> Iterator[Facts]:
    """Yield the facts of these shortcut functions, of all that are registered where none is named."""
    whole = _counted(_network("identity"), everything=True)
    for name in names or SHORTCUTS:
        network = _network(name)
        parameters = sum(item.numel() for block in network.blocks for item in block.shortcut.parameters())
        added = _counted(network)
        yield Facts(name, SHORTCUTS.summary(parse_part(name)[0]), parameters, added, added / whole, length(name))


def _network(shortcut: str) -> Network:
    network = skeleton(ModelSpec(family="cifar", depth=DEPTH, shortcut=shortcut), CIFAR_INPUT, CIFAR_CLASSES)
    assert isinstance(network, Network)
    return network.eval()


@torch.no_grad()
def _counted(network: Network, everything: bool = False) -> int:
    """Return the multiply-adds of the blocks' shortcuts alone, which takes a tenth of the time, or of the network."""
    counter = FlopCounterMode(display=False)
    x = torch.empty(1, *CIFAR_INPUT, device="meta")
    if everything:
        with counter:
            network(x)
        return counter.get_total_flops() // 2
    total, h = 0, network.stem(x)
    for block in network.blocks:
        fx = block.residual(h)
        with counter:
            block.read(h)
            h = block.shortcut(block.adapter(h), fx)
        total += counter.get_total_flops() // 2
    return total


@torch.no_grad()
def length(name: str) -> str:
    """Say what becomes of the length of x where the branch is silent: kept, set to one value, or times a number."""
    module = SHORTCUTS.create(name, TRIAL[1])
    initialise(module, 0, "stages.0.0.shortcut.")
    module.double().eval()
    stream = torch.Generator().manual_seed(0)
    fx = torch.zeros(TRIAL, dtype=torch.float64)
    x = torch.randn(TRIAL, generator=stream, dtype=torch.float64)
    if hasattr(module, "read"):
        streams = getattr(module, "streams", 1)
        x = torch.randn(len(x), streams, *TRIAL[1:], generator=stream, dtype=torch.float64)
    once, twice = (_lengths(module, scale * x, fx) for scale in (1, 2))
    if once.any() and torch.allclose(once, twice, rtol=1e-3):
        return "set"
    ratio = once / x.flatten(1).norm(dim=1)
    return "kept" if torch.allclose(ratio, torch.ones_like(ratio), rtol=1e-6) else f"×{float(ratio.mean()):.3g}"


def _lengths(module: nn.Module, x: torch.Tensor, fx: torch.Tensor) -> torch.Tensor:
    output: torch.Tensor = module(x, fx)
    return output.flatten(1).norm(dim=1)
