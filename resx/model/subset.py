"""Training with only short paths: at each step a random subset of the blocks is active (Veit et al. 2016, section 4.3).

An inactive block passes on what reaches its addition without the branch, `activation(adapter(x))`. Veit et al. take
23 of 54 blocks at every step, so that no path is longer than 23, and test the network with all its blocks. These add
up to more than the active ones do in training, which the running statistics of normalisations describe; so in
evaluation a block's sum is its mean over subsets, as in stochastic depth (Huang et al. 2016, section 3), except that
the number of active blocks is exact.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from resx.model.complexity import CIFAR_CLASSES, CIFAR_INPUT
from resx.model.construction import skeleton
from resx.model.network import Network
from resx.spec import ModelSpec, SpecError


class SubsetNetwork(Network):
    """The same network (modules, names and weights are shared), of whose blocks `active` count in a training step.

    In eval mode all blocks do, each sum being w·shortcut(a, F(x)) + (1−w)·a with a = adapter(x) and w = active /
    blocks, which is its mean over subsets. In training all branches are computed, so that a step has static shapes: no
    time is saved, and the normalisations of inactive branches see their inputs too. Raises SpecError where there are
    fewer blocks, or no shortcuts that pass x on.
    """

    noise: Tensor  # bool [blocks]: which are active

    def __init__(self, network: nn.Module, active: int) -> None:
        errors = subset_errors(network, active)
        if errors:
            raise SpecError(errors)
        assert isinstance(network, Network)
        super().__init__(network.stem, network.stages, network.final, network.head)  # type: ignore[arg-type]
        self.active = active
        self.register_buffer("noise", torch.ones(len(self.blocks), dtype=torch.bool), persistent=False)

    def draw(self, generator: torch.Generator, batch_size: int) -> Tensor:
        """Return which blocks are active: bool [blocks], every subset of `active` blocks being equally likely."""
        active_numbers = torch.randperm(len(self.blocks), generator=generator)[: self.active]
        return torch.zeros(len(self.blocks), dtype=torch.bool).index_fill_(0, active_numbers, True)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.active / len(self.blocks)
        x = self.stem(x)
        for block, active in zip(self.blocks, self.noise, strict=True):
            carried = block.adapter(x)
            whole = block.shortcut(carried, block.residual(x))
            mixed = torch.where(active, whole, carried) if self.training else weight * whole + (1 - weight) * carried
            x = block.activation(mixed)
        return self.head(self.final(x).mean((2, 3)))


def subset_errors(network: nn.Module, active: int) -> list[str]:
    """Return why `active` blocks of a network cannot be drawn at each step, a line each."""
    if not isinstance(network, Network):
        return ["active_blocks: this family has no blocks to choose from; leave it out"]
    if not all(getattr(block.shortcut, "reads_x", True) for block in network.blocks):
        return ["active_blocks: a plain network has no shortcut around an inactive block; leave it out"]
    if not 1 <= active <= len(network.blocks):
        return [f"active_blocks: must be between 1 and {len(network.blocks)}, the number of blocks, not {active}"]
    return []


def check_active_blocks(spec: ModelSpec, active: int) -> None:
    """Raise SpecError where a network of this (completed) spec cannot have `active` blocks drawn at each step.

    A family that takes no images is judged only when it is built for its data.
    """
    try:
        network = skeleton(spec, CIFAR_INPUT, CIFAR_CLASSES)
    except SpecError:
        return
    errors = subset_errors(network, active)
    if errors:
        raise SpecError(errors)
