"""Paths: how much of the gradient comes through paths of each length (Veit et al. 2016, section 4), exactly.

A network of n residual blocks is a sum over 2^n paths, each of which takes the branch of k blocks and the shortcut of
the others. With the activation pattern of a forward pass fixed, the gradient is a sum over these paths too. Carrying
one gradient per path length back through the blocks gives the sum over all paths of a length without listing
them: for y = ReLU(A x + F(x)), first m_k = 1[y>0] ⊙ g_k, then g_k ← Aᵀ m_k + J_Fᵀ m_{k−1}. J_F is that of the whole
batch, since batch normalisation couples images.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from math import comb

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from resx.measurements.taps import Blocks, Passage, differentiable, passages
from resx.model import Block
from resx.spec import SpecError
from resx.training.evaluate import loss_of


@dataclass(frozen=True)
class Backwards:
    """One block's part of the forward pass, which can be run backwards piece by piece.

    into: the output of the block before, or what enters the first one; mostly x itself.
    """

    passage: Passage
    into: Tensor

    def split(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients with respect to the adapter's and the branch's output, mask of the ReLU applied."""
        parts = (self.passage.adapted, self.passage.branched)
        to_adapter, to_branch = torch.autograd.grad(self.passage.out, parts, gradient, retain_graph=True)
        return to_adapter, to_branch

    def through(self, part: Tensor, gradient: Tensor) -> Tensor:
        """Return the gradient with respect to what enters, from that of the adapter's or the branch's output."""
        if not part.requires_grad:  # a shortcut may be zero
            return torch.zeros_like(self.into)
        [through] = torch.autograd.grad(
            part, self.into, gradient, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return through


@dataclass(frozen=True)
class Trace:
    """A forward pass: its blocks, first to last, and autograd's loss gradients behind the last and before the first."""

    blocks: list[Backwards]
    behind: Tensor
    before: Tensor


def trace(network: Blocks, x: Tensor, y: Tensor, task: str) -> Trace:
    """Run the network on inputs x with targets y in its mode and keep what is needed to follow paths back.

    Raises SpecError where a shortcut does not read x, or is not linear in it.
    """
    with passages(network) as passed:
        loss = loss_of(network(differentiable(x)), y, task)
    for block in network.blocks:  # a traced one that has a shortcut is an addition
        reason = unfit(block.shortcut, passed[block.name].branched.shape[1]) if isinstance(block, Block) else None
        if reason or not block.reads_x:
            raise SpecError(f"paths: {reason or f'{block.name} has no shortcut'}")
    parts = [passed[block.name] for block in network.blocks]
    first, last = parts[0].x, parts[-1].out
    before, behind = torch.autograd.grad(loss, [first, last], retain_graph=True)
    into = [first, *(part.out for part in parts[:-1])]
    return Trace([Backwards(*pair) for pair in zip(parts, into, strict=True)], behind, before)


@torch.no_grad()
def unfit(shortcut: nn.Module, channels: int) -> str | None:
    """Say why paths are not defined with this shortcut function, or return None.

    They are where it is a linear function of x plus one of F(x), whatever its parameters are: it is tried out on
    random numbers, with random parameters.
    """
    if not getattr(shortcut, "reads_x", True):
        return "a plain network has one path only, through all its layers"
    stream = torch.Generator().manual_seed(0)
    trial = copy.deepcopy(shortcut).cpu().double().eval()
    for parameter in trial.parameters():  # initial ones may be zeros, and a gate of zeros looks linear
        parameter.copy_(torch.randn(parameter.shape, generator=stream))
    streams = [getattr(shortcut, "streams", 1)] if hasattr(shortcut, "read") else []
    x, fx = (2, *streams, channels, 4, 4), (2, channels, 4, 4)
    a, b, f, g = (torch.randn(*shape, generator=stream, dtype=torch.float64) for shape in (x, x, fx, fx))
    together = trial(a, f) + trial(b, g)
    separable = torch.allclose(together, trial(a, g) + trial(b, f))
    linear = torch.allclose(together, trial(a + b, f + g) + trial(0 * a, 0 * f))
    return None if separable and linear else "the shortcut is not linear in x alone, so paths have no lengths"


def path_gradients(passed: Trace) -> list[Tensor]:
    """Return, for k = 0 … n, the gradient at the stem's output through all paths of k branches.

    Their sum is the whole gradient, `passed.before`.
    """
    gradients = [passed.behind]
    for block in reversed(passed.blocks):
        carried = [torch.zeros_like(block.into) for _ in range(len(gradients) + 1)]
        for k, gradient in enumerate(gradients):
            to_adapter, to_branch = block.split(gradient)
            carried[k] += block.through(block.passage.adapted, to_adapter)
            carried[k + 1] += block.through(block.passage.branched, to_branch)
        gradients = carried
    return gradients


def sampled_norm(passed: Trace, length: int, samples: int, stream: torch.Generator) -> float:
    """Return the mean norm of the gradient through one path of `length` branches, drawn at random `samples` times."""
    n, norms = len(passed.blocks), []
    for _ in range(samples if 0 < length < n else 1):  # there is one path of length 0, and one of n
        path = set(torch.randperm(n, generator=stream)[:length].tolist())
        gradient = passed.behind
        for place in reversed(range(n)):
            block = passed.blocks[place]
            to_adapter, to_branch = block.split(gradient)
            if place in path:
                gradient = block.through(block.passage.branched, to_branch)
            else:
                gradient = block.through(block.passage.adapted, to_adapter)
        norms.append(float(gradient.norm()))
    return float(np.mean(norms))


def paths(network: Blocks, x: Tensor, y: Tensor, task: str, samples: int, seed: int = 0) -> pd.DataFrame:
    """Measure how much of the loss gradient at the stem's output comes through paths of each length.

    x: [B, C, H, W], float64 for an exact sum. Returns rows
    (length, share, gradient, whole, sampled, binomial, residue):
    share ⟨g_k, Σg⟩ / ‖Σg‖², signed, sums to 1; gradient ‖g_k‖; whole ‖Σg‖; sampled: the estimate of Veit et al., mean
    norm of a path of this length times the number of such paths, as a share of its sum over lengths; binomial: the
    share of all paths that have this length; residue: ‖Σg − autograd's gradient‖ / ‖autograd's gradient‖. Raises
    SpecError for a shortcut that is not linear in x alone.
    """
    passed = trace(network, x, y, task)
    gradients = torch.stack(path_gradients(passed)).flatten(1)
    whole = gradients.sum(dim=0)
    n = len(passed.blocks)
    counts = np.array([comb(n, length) for length in range(n + 1)], dtype=float)
    stream = torch.Generator().manual_seed(seed)
    estimate = counts * [sampled_norm(passed, length, samples, stream) for length in range(n + 1)]
    return pd.DataFrame(
        {
            "length": np.arange(n + 1),
            "share": (gradients @ whole / whole.square().sum()).cpu().numpy(),
            "gradient": gradients.norm(dim=1).cpu().numpy(),
            "whole": float(whole.norm()),
            "sampled": estimate / estimate.sum(),
            "binomial": counts / counts.sum(),
            "residue": float((whole - passed.before.flatten()).norm() / passed.before.norm()),
        }
    )


@dataclass(frozen=True)
class Lengths:
    """What the path lengths of one network amount to; `n` blocks.

    half: the length from which the cumulative share stays above one half; middle: the same of the sampled estimate.
    Both are interpolated (see `median_length`), so that of all paths, whose lengths are binomial, half are below n/2
    exactly, whatever n is. low, high: lengths that hold the middle 95 % of the sampled estimate; paths: the share (%)
    of all paths that have these lengths or shorter ones. cancellation: Σ‖g_k‖ / ‖Σg‖.
    """

    n: int
    half: float
    middle: float
    low: int
    high: int
    paths: float
    cancellation: float


def summarise(table: pd.DataFrame) -> Lengths:
    """Summarise the rows that `paths` gives for one network at one step."""
    table = table.sort_values("length")
    sampled = np.cumsum(table["sampled"].to_numpy())
    low, high = (int(np.argmax(sampled >= level)) for level in (0.025, 0.975))
    return Lengths(
        n=len(table) - 1,
        half=median_length(table["share"].to_numpy()),
        middle=median_length(table["sampled"].to_numpy()),
        low=low,
        high=high,
        paths=100 * float(table["binomial"].to_numpy()[: high + 1].sum()),
        cancellation=float(table["gradient"].sum() / table["whole"].iloc[0]),
    )


def median_length(shares: NDArray[np.float64]) -> float:
    """Return the length at which the cumulative share crosses one half for the last time.

    shares: of lengths 0, 1, …, n, signed, with sum 1. The share of a length k is spread evenly from k − ½ to k + ½, so
    symmetric shares have n/2. nan where a share is.
    """
    cumulative = np.concatenate([[0.0], np.cumsum(shares)])
    if np.isnan(cumulative).any():
        return float("nan")
    last = int(np.flatnonzero(cumulative[:-1] <= 0.5)[-1])
    return float(last - 0.5 + (0.5 - cumulative[last]) / (cumulative[last + 1] - cumulative[last]))
