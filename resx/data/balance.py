"""The choice of a class-balanced subset, contained in every larger one of the same stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def balanced(labels: Tensor | None, total: int, count: int, draw: torch.Generator) -> Tensor:
    """Return `count` ascending indices of 0..total-1, drawn so that classes differ by at most one image.

    labels: int64 [total], or None for targets that are not classes. A class with too few images gives all of them.
    """
    import torch

    shuffled = torch.randperm(total, generator=draw)
    if labels is None:
        return shuffled[:count].sort().values
    # rank: how many of the same class come earlier in the shuffled order
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    sizes = labels.bincount()
    rank = torch.arange(total) - (sizes.cumsum(0) - sizes)[labels[by_class]]
    return by_class[rank.argsort(stable=True)[:count]].sort().values
