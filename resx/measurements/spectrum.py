"""The spectrum of the shortcut path: what reaches the last block from the first through shortcuts alone.

Identity Mappings (He et al. 2016b, section 2) explains which shortcuts train by the product of what stands on them. The
product is the derivative of the last block's output with respect to the first one's input with every branch held
constant. In the original order it therefore contains the ReLU masks of the batch, as it does gates and dropout.
Normalisations in adapters use the statistics of all inputs, held fixed: with those of the batch an input's output would
depend on the other inputs too, and the sum over outputs that one backward pass takes would mix their derivatives.
"""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor

from resx.measurements.taps import Blocks, differentiable, hold_statistics, passages

FLOOR = 1e-6  # singular values below this count as zero: such a direction is lost


def shortcut_jacobians(network: Blocks, x: Tensor) -> Tensor:
    """Return the Jacobian of each input's shortcut path: float [B, C_last, C_first·positions].

    Rows are the channels of the last block's output at its middle position, of every stream where there are several;
    columns all of the first block's input. It is taken by one vector-Jacobian product per channel, with the network in
    the mode that it has. In training mode its running statistics are replaced by those of x, and its normalisations are
    left in eval mode.
    """
    if network.training:
        hold_statistics(network, x)
    with passages(network, branch=Tensor.detach) as passed:
        network(differentiable(x))
    first, last = network.blocks[0], network.blocks[-1]
    start, h = passed[first.name].x, passed[last.name].out
    maps = _maps(h, last.channel_axis)
    outputs = maps[:, :, maps.shape[2] // 2]
    if not outputs.requires_grad:  # no shortcut reads x
        return start.new_zeros(*outputs.shape, start[0].numel())
    rows = [
        torch.autograd.grad(column.sum(), start, retain_graph=True, allow_unused=True, materialize_grads=True)[0]
        for column in outputs.unbind(1)
    ]
    return torch.stack(rows, 1).flatten(2)


def spectrum(network: Blocks, x: Tensor) -> pd.DataFrame:
    """Measure the singular values of the shortcut path of each input of x [B, C, H, W].

    Returns rows (image, rank, value): rank 1 is the largest; as many as the first block has channels, since the path
    carries no more directions from a position than enter it.
    """
    jacobians = shortcut_jacobians(network, x)
    with torch.no_grad(), passages(network) as passed:
        network(x)
    first = network.blocks[0]
    channels = _maps(passed[first.name].x, first.channel_axis).shape[1]
    values = torch.linalg.svdvals(jacobians)[:, :channels].cpu()
    rows = [(image, rank, float(value)) for image, row in enumerate(values) for rank, value in enumerate(row, 1)]
    return pd.DataFrame(rows, columns=["image", "rank", "value"])


def _maps(h: Tensor, channel_axis: int) -> Tensor:
    """Return values of a block as [B, channels, positions]; streams [B, n, C, H, W] have n·C channels."""
    h = h.movedim(channel_axis, 1)
    if h.dim() > 3:
        return h.flatten(-2).flatten(1, -2)
    return h if h.dim() == 3 else h[:, :, None]


def summary(measured: pd.DataFrame) -> pd.Series:
    """Return of one network's rows (image, rank, value): gain, distance and directions.

    gain: root mean square of the singular values, 1 for the identity: how much of a random signal arrives. distance:
    root mean square of log10 of the singular values, floored at 1e-6, so 0 exactly for an isometry and 6 where nothing
    arrives; it grows with loss, with growth, and with inequality of directions. directions: share of singular values
    above a tenth of the largest.
    """
    values = measured["value"]
    largest = measured.groupby("image")["value"].transform("max")
    logs = torch.tensor(values.to_numpy()).clamp(min=FLOOR).log10()
    return pd.Series(
        {
            "gain": float((values**2).mean() ** 0.5),
            "distance": float(logs.square().mean().sqrt()),
            "directions": float(((values > largest / 10) & (values > FLOOR)).mean()),
        }
    )
