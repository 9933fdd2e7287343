"""The gain of the composed shortcut: what all shortcuts together do to a signal when every branch is silent.

Where shapes match, identity shortcuts compose to the identity (He et al. 2016b, eq. 4), whatever the depth. Where they
do not, the product of the adapters takes their place: zero padding then chopping is the identity again, but copying
then folding and summing doubles what was copied every two blocks, and leaving the shortcut out once leaves nothing.
"""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor

from resx.measurements.taps import Blocks, passages


@torch.no_grad()
def composed_gain(network: Blocks, x: Tensor) -> pd.DataFrame:
    """Send the stem's output of inputs x [B, C, H, W] through all shortcuts with F = 0, in the network's mode.

    Returns rows (block, name, gain), blocks counted from 1: the root mean square over images and positions of the
    signal's length across channels after each block, relative to the stem's output. A block's activation applies, which
    only a negative entry notices.
    """
    with passages(network, branch=torch.zeros_like) as passed:
        network(x)
    start = _length(passed[network.blocks[0].name].x)
    rows = [(number, name, _length(passage.out) / start) for number, (name, passage) in enumerate(passed.items(), 1)]
    return pd.DataFrame(rows, columns=["block", "name", "gain"])


def _length(signal: Tensor) -> float:
    return float(signal.double().flatten(1, -3).square().sum(1).mean().sqrt())
