"""The gain of the composed shortcut map, forward and backward, by its largest entries' sums (mHC: Xie et al. 2025).

Where shortcuts are matrices, a network of them holds their product: what enters the first block reaches the last one
through it, and the gradient comes back through its transpose. The largest absolute row sum is by what factor a signal
can grow on the way, the largest absolute column sum the same for a gradient. Both are 1 for the identity, for
permutations and for doubly stochastic mixing, however deep the network is; for unconstrained mixing nothing holds them.
"""

from __future__ import annotations

import pandas as pd
import torch

from resx.measurements.spectrum import shortcut_jacobians
from resx.measurements.taps import Blocks


def amax_gain(network: Blocks, x: torch.Tensor) -> pd.DataFrame:
    """Measure the composed shortcut map of each input of x [B, C, H, W], branches held constant.

    Returns rows (image, forward, backward): the largest absolute row sum and column sum of `shortcut_jacobians`, so of
    what reaches the last block's middle position. Streams count as channels.
    """
    sizes = shortcut_jacobians(network, x).abs()
    forward, backward = sizes.sum(2).amax(1).tolist(), sizes.sum(1).amax(1).tolist()
    return pd.DataFrame({"image": range(len(forward)), "forward": forward, "backward": backward})
