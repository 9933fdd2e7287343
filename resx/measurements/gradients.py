"""Gradients: their norms through depth and training, and how alike they are for nearby inputs.

He et al. 2016, section 4.1 (gradients have healthy norms); Yang et al. 2019 (with batch normalisation, gradients
of plain networks explode at initialisation); Balduzzi et al. 2017 (gradients of plain networks shatter: inputs close to
each other have unrelated ones).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from resx.measurements.taps import Blocks, differentiable, hold_statistics, passages
from resx.training.evaluate import loss_of


def gradients(network: Blocks, x: Tensor, y: Tensor, task: str) -> pd.DataFrame:
    """Measure the gradient of the mean loss on inputs x [B, C, H, W] with targets y, in the network's mode.

    Returns rows (quantity, stage, layer, name, value). `activation`, the only quantity: norm of the gradient with
    respect to the output of the stem and of each block, the whole batch as one vector; `layer` counts the weighted
    layers before it.
    """
    blocks = network.blocks
    places = [("stem", 0, network.stem_layers)]
    for block in blocks:
        places.append((block.name, block.stage, places[-1][2] + block.layers))
    with passages(network) as passed:
        loss = loss_of(network(differentiable(x)), y, task)
    outputs = [passed[blocks[0].name].x, *(passed[block.name].out for block in blocks)]
    gradients = torch.autograd.grad(loss, outputs)
    norms = torch.stack([gradient.double().norm() for gradient in gradients]).tolist()
    rows = [("activation", stage, layer, name, norm) for (name, stage, layer), norm in zip(places, norms, strict=True)]
    return pd.DataFrame(rows, columns=["quantity", "stage", "layer", "name", "value"])


def growth(activations: pd.DataFrame) -> tuple[float, float]:
    """Return by what factor the gradient grows per layer on its way back to the input, and the same within stages.

    activations: rows (stage, layer, value) of one network at one step. A log-linear fit of norm against layer; the
    second has an intercept of its own for each stage, which leaves the jumps where maps shrink out. Above 1 the
    gradient explodes towards the input, below 1 it vanishes. nan where a norm is zero or not finite.
    """
    layer, stage = activations["layer"].to_numpy(float), activations["stage"].to_numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        log = np.log(activations["value"].to_numpy(float))
    if not np.isfinite(log).all():
        return np.nan, np.nan
    within_layer, within_log = layer.copy(), log.copy()
    for one in np.unique(stage):
        within_layer[stage == one] -= layer[stage == one].mean()
        within_log[stage == one] -= log[stage == one].mean()
    overall = np.polyfit(layer, log, 1)[0]
    within = (within_layer @ within_log) / (within_layer @ within_layer)
    return float(np.exp(-overall)), float(np.exp(-within))


def shattering(network: nn.Module, x: Tensor, distances: Sequence[float], lines: int) -> pd.DataFrame:
    """Measure the correlation of input gradients between an input and another at a distance along a line.

    x: [B, C, H, W] with B ≥ 2. Line i runs from image i towards image i+1; a distance is a fraction of the way
    between them. The gradient is that of one output (i modulo their number) with respect to the input. Normalisations
    use the statistics of x, held fixed, so that each input has a gradient of its own; in eval mode the running ones.
    Returns rows (distance, correlation), the mean cosine over lines; a line along which all units are dead, so that a
    gradient is zero, is left out; nan where there is no other. The network is left in eval mode, its running
    statistics replaced where it was in training mode.
    """
    if network.training:
        hold_statistics(network, x)
    network.eval()
    starts = x[:lines]
    directions = x.roll(-1, dims=0)[:lines] - starts
    outputs = torch.arange(len(starts), device=x.device)
    reference = _input_gradients(network, starts, outputs)
    correlations = []
    for distance in distances:
        gradient = _input_gradients(network, starts + distance * directions, outputs)
        cosines = torch.cosine_similarity(reference, gradient)
        nonzero = (reference.norm(dim=1) > 0) & (gradient.norm(dim=1) > 0)
        correlations.append(float(cosines[nonzero].mean()))
    return pd.DataFrame({"distance": list(distances), "correlation": correlations})


def _input_gradients(network: nn.Module, x: Tensor, outputs: Tensor) -> Tensor:
    """Return the gradient of each input's own output: float64 [B, C·H·W]."""
    x = x.detach().requires_grad_()
    logits = network(x)
    total = logits.gather(1, (outputs % logits.shape[1])[:, None]).sum()
    (gradient,) = torch.autograd.grad(total, x)
    return gradient.double().flatten(1)


def half_distance(correlations: pd.DataFrame) -> float:
    """Return the distance at which the correlation first falls below one half, interpolated in log distance.

    correlations: rows (distance, correlation). The smallest distance where it is below from the start, the largest
    where it never is; nan where there is no correlation, all gradients being zero.
    """
    table = correlations.sort_values("distance")
    distance, value = table["distance"].to_numpy(), table["correlation"].to_numpy()
    if np.isnan(value).any():
        return np.nan
    below = np.flatnonzero(value < 0.5)
    if not len(below):
        return float(distance[-1])
    if below[0] == 0:
        return float(distance[0])
    after = below[0]
    share = (value[after - 1] - 0.5) / (value[after - 1] - value[after])
    return float(distance[after - 1] * (distance[after] / distance[after - 1]) ** share)
