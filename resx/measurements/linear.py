"""The linear map that fits a block best, and how near it is to the identity (He et al. 2016, section 3.1).

The paper expects the wanted map of a block to be nearer to the identity than to zero, which would make residual
learning a good preconditioning. In a trained network this says how far each block is from either.
"""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
import torch
from torch import Tensor

from resx.measurements.taps import Blocks, passages
from resx.training.initial import best_map


@torch.no_grad()
def linear_maps(network: Blocks, inputs: Iterable[Tensor]) -> pd.DataFrame:
    """Fit y = M x to each block over batches of inputs [B, …] and positions, in the network's mode.

    x is what stands on the shortcut (after the adapter, where shapes change), y the sum before the activation, M
    [C, C] as the transformation `fitted` finds it. Returns rows (quantity, layer, name, value), blocks counted from 1:
    `from identity`, √(Σ|M x − x|² / Σ|x|²), and `from zero`, √(Σ|M x|² / Σ|x|²): on the inputs that the block has,
    since M is arbitrary in directions that none of them has; `linear` and `identity`: the share of Σ|y|² that M x and
    that x explain, 1 at best (negative where x is further from y than zero is).
    """
    sums: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
    axes = {block.name: block.channel_axis for block in network.blocks}
    with passages(network) as passed:
        for batch in inputs:
            network(batch)
            for name, passage in passed.items():
                if passage.adapted.shape != passage.branched.shape:
                    continue  # a plain block that changes shapes, or streams: there is no map from x to y
                x, y = (
                    values.movedim(axes[name], -1).flatten(0, -2).double()
                    for values in (passage.adapted, passage.total)
                )
                new = x.T @ x, y.T @ x, y.square().sum()
                old = sums.get(name)
                sums[name] = (old[0] + new[0], old[1] + new[1], old[2] + new[2]) if old else new
    rows: list[tuple[str, int, str, float]] = []
    for number, name in enumerate(passed, 1):
        if name not in sums:
            continue
        xx, yx, yy = sums[name]
        best, one = best_map(xx, yx), torch.eye(len(xx), dtype=xx.dtype, device=xx.device)
        for quantity, change in (("from identity", best - one), ("from zero", best)):
            rows.append((quantity, number, name, float((((change @ xx) * change).sum() / xx.trace()).sqrt())))
        for quantity, fit in (("linear", best), ("identity", one)):
            error = yy - 2 * (fit * yx).sum() + ((fit @ xx) * fit).sum()
            rows.append((quantity, number, name, float(1 - error / yy)))
    return pd.DataFrame(rows, columns=["quantity", "layer", "name", "value"])
