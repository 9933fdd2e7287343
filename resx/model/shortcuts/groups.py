"""Shortcuts that mix groups of channels by a small learned matrix: free, or doubly stochastic in one of two ways.

Hyper-connections (Zhu et al. 2024) mix streams so; here the groups of one stream's channels take their place, which
costs next to nothing and tells the mixing apart from the streams (streams.py has both). A doubly stochastic matrix
keeps the mean over groups and lengthens nothing, and so does any product of such (mHC: Xie et al. 2025).
"""

from __future__ import annotations

from itertools import permutations

import torch
from torch import Tensor, nn

from resx.model.shortcuts.contract import SHORTCUTS
from resx.spec import SpecError

SINKHORN_STEPS = 20  # as mHC has
MOST_PERMUTED = 5  # 120 permutations


def mix_streams(x: Tensor, matrix: Tensor) -> Tensor:
    """Return Σⱼ Mᵢⱼ xⱼ for the n streams or groups xⱼ of x: x [B, n, …], matrix [n, n] -> the shape of x."""
    return torch.einsum("ij,bj...->bi...", matrix, x)


class Free(nn.Module):
    """Any n×n matrix, learned from the identity: n² parameters."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(n))

    def forward(self) -> Tensor:
        return self.weight


class DoublyStochastic(nn.Module):
    """Sinkhorn(exp A): rows and columns of exp A are scaled in turn, 20 times, until all sum to 1. n² parameters.

    A starts with 0 on the diagonal and `start` elsewhere; rows are scaled last, so their sums are exact.
    """

    def __init__(self, n: int, start: float) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.full((n, n), start) * (1 - torch.eye(n)))

    def forward(self) -> Tensor:
        logits: Tensor = self.logits
        for _ in range(SINKHORN_STEPS):
            logits = logits - logits.logsumexp(0, keepdim=True)
            logits = logits - logits.logsumexp(1, keepdim=True)
        return logits.exp()


class Birkhoff(nn.Module):
    """Σ softmax(a)ₖ Pₖ over all permutation matrices Pₖ, exactly doubly stochastic: n! parameters.

    a starts with 0 for the identity and `start` for the others.
    """

    permuted: Tensor

    def __init__(self, n: int, start: float) -> None:
        super().__init__()
        if n > MOST_PERMUTED:
            raise SpecError(f"groups: {n} have too many permutations; use {MOST_PERMUTED} or fewer")
        orders = torch.tensor(list(permutations(range(n))))
        self.register_buffer("permuted", torch.eye(n)[orders], persistent=False)
        logits = torch.full((len(orders),), start)
        logits[0] = 0
        self.logits = nn.Parameter(logits)

    def forward(self) -> Tensor:
        return torch.tensordot(self.logits.softmax(0), self.permuted, 1)


class Grouped(nn.Module):
    """M x + F, where M mixes `groups` groups of the channels; `mixing` is a module that returns M."""

    def __init__(self, channels: int, groups: int, mixing: nn.Module) -> None:
        super().__init__()
        if groups < 1 or channels % groups:
            raise SpecError(f"groups: {channels} channels do not divide into {groups}")
        self.groups = groups
        self.mixing = mixing

    def forward(self, x: Tensor, fx: Tensor) -> Tensor:
        return mix_streams(x.unflatten(1, (self.groups, -1)), self.mixing()).flatten(1, 2) + fx


@SHORTCUTS.register("mixing")
class Mixing(Grouped):
    """M x + F: n groups of channels mixed by any learned n×n matrix (after Zhu et al. 2024). n² parameters.

    x's channels lie in n groups, and Mᵢⱼ is how much of group j group i gets. M starts at the identity. The control for
    doubly-stochastic and birkhoff, which constrain M (arXiv 2409.19606 mixes streams).
    """

    def __init__(self, channels: int, *, groups: int = 4) -> None:
        super().__init__(channels, groups, Free(groups))


@SHORTCUTS.register("doubly-stochastic")
class DoublyStochasticMixing(Grouped):
    """M x + F, M = Sinkhorn₂₀(exp A): groups mixed by a doubly stochastic matrix (mHC: Xie et al. 2025). n² parameters.

    Rows and columns of M sum to 1 and no entry is negative, so no group grows. A starts at 0 on the diagonal and at
    `start` elsewhere; −8, as public code has, is the identity to three digits. The gradient of A is as small as M's
    entries, so the nearer the start is to the identity the slower it is left (arXiv 2512.24880 mixes streams).
    """

    examples = ("groups=4,start=-8", "groups=4,start=-4")

    def __init__(self, channels: int, *, groups: int = 4, start: float = -8.0) -> None:
        super().__init__(channels, groups, DoublyStochastic(groups, start))


@SHORTCUTS.register("birkhoff")
class BirkhoffMixing(Grouped):
    """M x + F, M = Σ softmax(a)ₖ Pₖ over the n! permutations (mHC-lite: Yang & Gao 2026). n! parameters.

    Exactly doubly stochastic, and every such matrix can be had (Birkhoff). a starts at 0 for the identity and at
    `start` for the others; −8, as the authors' code has (arXiv 2601.05732, which mixes streams).
    """

    def __init__(self, channels: int, *, groups: int = 4, start: float = -8.0) -> None:
        super().__init__(channels, groups, Birkhoff(groups, start))
