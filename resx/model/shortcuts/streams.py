"""Shortcuts that carry several streams between blocks, or the outputs of all earlier blocks.

Hyper-connections (Zhu et al. 2024) keep n copies of x; a block reads a learned sum of them, adds its output to each
with a learned weight, and mixes them. Here all three are learned numbers of the block (their static form), the same at
every position. Depth attention (Kimi Team 2026) keeps every block's output as a stream of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from resx.model.shortcuts.contract import SHORTCUTS, GeneratorFor
from resx.model.shortcuts.groups import DoublyStochastic, Free, mix_streams
from resx.model.shortcuts.normalised import unit_rms
from resx.spec import SpecError


class Hyper(nn.Module):
    """M h + w F(r·h) for n streams h [B, n, C, H, W]: r reads, w writes, M mixes; `mixing` is a module that returns M.

    w starts at 1 in every stream, and r at one stream, drawn per block (Zhu et al. take them in turn), so that at step
    0 every stream holds what residual learning has. They part because blocks read different ones.
    """

    def __init__(self, streams: int, mixing: nn.Module) -> None:
        super().__init__()
        if streams < 1:
            raise SpecError(f"streams: must be 1 or more, not {streams}")
        self.streams = streams
        self.reading = nn.Parameter(torch.zeros(streams))
        self.writing = nn.Parameter(torch.ones(streams))
        self.mixing = mixing

    def initialise(self, generator_for: GeneratorFor) -> None:
        stream = torch.randint(self.streams, (), generator=generator_for("reading"))
        self.reading.copy_(torch.arange(self.streams) == stream)

    def read(self, x: Tensor) -> Tensor:
        """Return r·h, what the branch is given: [B, n, C, H, W] -> [B, C, H, W]."""
        return torch.einsum("i,bi...->b...", self.reading, x)

    def forward(self, x: Tensor, fx: Tensor) -> Tensor:
        return mix_streams(x, self.mixing()) + torch.einsum("i,b...->bi...", self.writing, fx)


@SHORTCUTS.register("hyper")
class HyperConnections(Hyper):
    """M h + w F(r·h): hyper-connections of n streams, static (Zhu et al. 2024). n² + 2n parameters.

    M is any matrix, learned from the identity. n = 1 is residual learning with three learned numbers, all 1 at the
    start. Between blocks n times the memory; arXiv 2409.19606, eq. 1 to 4 without their dynamic part.
    """

    def __init__(self, channels: int, *, streams: int = 4) -> None:
        super().__init__(streams, Free(streams))


@SHORTCUTS.register("hyper-doubly-stochastic")
class HyperDoublyStochastic(Hyper):
    """M h + w F(r·h), M = Sinkhorn₂₀(exp A): hyper-connections with M constrained (mHC: Xie et al. 2025). n² + 2n.

    A starts at 0 on the diagonal and at `start` elsewhere. r and w are free, as in `hyper`, so that the two differ in
    M alone; mHC has them positive too, and adds a part that depends on the input (arXiv 2512.24880). With n = 1, M = 1.
    """

    def __init__(self, channels: int, *, streams: int = 4, start: float = -8.0) -> None:
        super().__init__(streams, DoublyStochastic(streams, start))


@SHORTCUTS.register("depth-attention")
class DepthAttention(nn.Module):
    """h = (v₀, v₁, …, F(Σ αᵢvᵢ)), α = softmax(q·norm(vᵢ)): attention over all earlier outputs (Kimi Team 2026). C.

    v₀ is the stem's output and vᵢ block i's branch output. A block adds its own as one more stream and reads the
    others with one learned query q [C] and a softmax at each position; norm: to a root mean square of 1. q starts at 0,
    so the branch is given the mean of the earlier outputs: residual learning, up to a scale that a branch which
    normalises its input does not notice. Where a block changes the width, q scores the channels that both sides have.
    The end sums all streams, where the paper attends once more. Memory grows with the square of the depth (arXiv
    2603.15031, their full form).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(channels))

    def read(self, x: Tensor) -> Tensor:
        """Return Σ αᵢvᵢ, what the branch is given: [B, n, C, H, W] -> [B, C, H, W]."""
        common = min(x.shape[2], len(self.query))
        keys = unit_rms(x.transpose(1, 2))[:, :common]
        weights = torch.einsum("c,bcn...->bn...", self.query[:common], keys).softmax(1)
        return torch.einsum("bn...,bnc...->bc...", weights, x)

    def forward(self, x: Tensor, fx: Tensor) -> Tensor:
        return torch.cat([x, fx.unsqueeze(1)], 1)
