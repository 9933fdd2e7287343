"""How much of what a block adds is parallel to what it adds to (Oh et al. 2025, Orthogonal Residual Update).

The part of F(x) along x only lengthens or shortens x; the rest is new. Of a direction drawn at random 1/C is parallel
to x, which is what a share has to be compared with.
"""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor

from resx.measurements.responses import merged
from resx.measurements.taps import Blocks, passages


@torch.no_grad()
def parallel_share(network: Blocks, x: Tensor) -> pd.DataFrame:
    """Measure the branches' outputs on inputs x [B, C, H, W], in the mode that the network is in.

    Returns rows (block, name, position, image, sign), blocks counted from 1. position: ‖F∥‖² / ‖F‖², F∥ being the part
    of F(x) along x at each position, squares summed over images and positions; image: the same with each image's whole
    map as one vector. sign: the mean cosine over images, negative where the branch shortens x. x is the adapter's
    output, or the sum of its streams. Blocks whose shortcut does not read x are left out.
    """
    with passages(network) as passed:
        network(x)
    rows = []
    for number, block in enumerate([block for block in network.blocks if block.reads_x], 1):
        fx = passed[block.name].branched.double()
        into = merged(passed[block.name].adapted.double(), fx)
        cosine = torch.cosine_similarity(into.flatten(1), fx.flatten(1)).mean()
        rows.append((number, block.name, _share(into, fx), _share(into.flatten(1), fx.flatten(1)), float(cosine)))
    return pd.DataFrame(rows, columns=["block", "name", "position", "image", "sign"])


def _share(x: Tensor, fx: Tensor) -> float:
    """Return Σ (x·F)² / (x·x) over Σ F·F, dot products over dimension 1; where x is 0 nothing is parallel to it."""
    along, length = (x * fx).sum(1).square(), x.square().sum(1)
    return float((along / length.where(length > 0, torch.inf)).sum() / fx.square().sum())
