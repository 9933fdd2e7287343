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

from resx.measurements.taps import capture
from resx.model import Network
from resx.spec import SpecError
from resx.training.evaluate import loss_of


@dataclass(frozen=True)
class Passage:
    """One block's recorded forward pass, in three pieces that can be run backwards one by one.

    into_adapter, into_branch -> adapted, branched; into_sum (both of them again, cut off) -> out.
    """

    x: Tensor
    adapted: Tensor
    branched: Tensor
    into_sum: tuple[Tensor, Tensor]
    out: Tensor

    def split(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients with respect to the adapter's and the branch's output, mask of the ReLU applied."""
        to_adapter, to_branch = torch.autograd.grad(self.out, self.into_sum, gradient, retain_graph=True)
        return to_adapter, to_branch

    def through_shortcut(self, gradient: Tensor) -> Tensor:
        return torch.autograd.grad(self.adapted, self.x, gradient, retain_graph=True)[0]

    def through_branch(self, gradient: Tensor) -> Tensor:
        return torch.autograd.grad(self.branched, self.x, gradient, retain_graph=True)[0]


@dataclass(frozen=True)
class Trace:
    """A forward pass: passages of all blocks, first to last, and the loss gradient behind the last and before the
    first block (the stem's output), the latter as autograd gives it."""

    passages: list[Passage]
    behind: Tensor
    before: Tensor


def trace(network: Network, x: Tensor, y: Tensor, task: str) -> Trace:
    """Run the network on inputs x with targets y in its mode and keep what is needed to follow paths back.

    Raises SpecError where a shortcut does not read x, or is not linear in it.
    """
    blocks = network.blocks
    with capture(network, ["stem", *(block.name for block in blocks)]) as outputs:
        loss = loss_of(network(x), y, task)
    first, last = outputs["stem"], outputs[blocks[-1].name]
    before, behind = torch.autograd.grad(loss, [first, last])
    passages = []
    for block, into in zip(blocks, [first, *(outputs[block.name] for block in blocks[:-1])], strict=True):
        into = into.detach().requires_grad_()
        adapted, branched = block.adapter(into), block.residual(into)
        reason = unfit(block.shortcut, branched.shape[1])
        if reason:
            raise SpecError(f"paths: {reason}")
        cut = (adapted.detach().requires_grad_(), branched.detach().requires_grad_())
        passages.append(Passage(into, adapted, branched, cut, block.activation(block.shortcut(*cut))))
    return Trace(passages, behind, before)


@torch.no_grad()
def unfit(shortcut: nn.Module, channels: int) -> str | None:
    """Say why paths are not defined beside this shortcut function, or return None.

    They are where it is a linear function of x plus one of F(x), whatever its parameters are: it is tried out on
    random numbers, with random parameters.
    """
    if not getattr(shortcut, "reads_x", True):
        return "a plain network has one path only, through all its layers"
    stream = torch.Generator().manual_seed(0)
    trial = copy.deepcopy(shortcut).cpu().double().eval()
    for parameter in trial.parameters():  # initial ones may be zeros, beside which a gate looks linear
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
    for passage in reversed(passed.passages):
        carried = [torch.zeros_like(passage.x) for _ in range(len(gradients) + 1)]
        for k, gradient in enumerate(gradients):
            to_adapter, to_branch = passage.split(gradient)
            carried[k] += passage.through_shortcut(to_adapter)
            carried[k + 1] += passage.through_branch(to_branch)
        gradients = carried
    return gradients


def sampled_norm(passed: Trace, length: int, samples: int, stream: torch.Generator) -> float:
    """Return the mean norm of the gradient through one path of `length` branches, drawn at random `samples` times."""
    n, norms = len(passed.passages), []
    for _ in range(samples if 0 < length < n else 1):  # there is one path of length 0, and one of n
        taken = set(torch.randperm(n, generator=stream)[:length].tolist())
        gradient = passed.behind
        for place in reversed(range(n)):
            to_adapter, to_branch = passed.passages[place].split(gradient)
            if place in taken:
                gradient = passed.passages[place].through_branch(to_branch)
            else:
                gradient = passed.passages[place].through_shortcut(to_adapter)
        norms.append(float(gradient.norm()))
    return float(np.mean(norms))


def paths(network: Network, x: Tensor, y: Tensor, task: str, samples: int, seed: int = 0) -> pd.DataFrame:
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
    n = len(passed.passages)
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
