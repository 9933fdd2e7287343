"""What every registered shortcut function costs and keeps: the rows of `resx shortcuts`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from resx.model.complexity import CIFAR_CLASSES, CIFAR_INPUT, count
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
    whole = count(_spec("identity"), CIFAR_INPUT, CIFAR_CLASSES).multiply_adds
    for name in names or SHORTCUTS:
        network = skeleton(_spec(name), CIFAR_INPUT, CIFAR_CLASSES)
        assert isinstance(network, Network)
        parameters = sum(item.numel() for block in network.blocks for item in block.shortcut.parameters())
        added = _added(network.eval())
        yield Facts(name, SHORTCUTS.summary(parse_part(name)[0]), parameters, added, added / whole, length(name))


def _spec(shortcut: str) -> ModelSpec:
    return ModelSpec(family="cifar", depth=DEPTH, shortcut=shortcut)


@torch.no_grad()
def _added(network: Network) -> int:
    """Return the multiply-adds of the blocks' shortcuts alone, which takes a tenth of the time of the network's."""
    counter = FlopCounterMode(display=False)
    total, h = 0, network.stem(torch.empty(1, *CIFAR_INPUT, device="meta"))
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
    streams = [getattr(module, "streams", 1)] if hasattr(module, "read") else []
    x = torch.randn(TRIAL[0], *streams, *TRIAL[1:], generator=stream, dtype=torch.float64)
    once, twice = (module(scale * x, fx).flatten(1).norm(dim=1) for scale in (1, 2))
    if once.any() and torch.allclose(once, twice, rtol=1e-3):
        return "set"
    ratio = once / x.flatten(1).norm(dim=1)
    return "kept" if torch.allclose(ratio, torch.ones_like(ratio), rtol=1e-6) else f"×{float(ratio.mean()):.3g}"
