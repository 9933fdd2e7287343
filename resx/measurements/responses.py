"""Responses of layers, and what blocks add to their input (He et al. 2016, section 4.2 and Fig. 7).

A layer's response is its output after normalisation and before the ReLU or the addition. In a residual network that is
the size of the residual function itself, without the shortcut.
"""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor, nn

from resx.measurements.taps import Blocks, capture, passages
from resx.measurements.traced import Traced


@torch.no_grad()
def responses(network: Blocks, x: Tensor) -> pd.DataFrame:
    """Measure responses on inputs x [B, C, H, W], in the mode that the network is in.

    Returns rows (quantity, layer, name, value). `std`: standard deviation of a 3×3 layer's response over images,
    channels and positions, layers counted from 1. Where the shortcut reads x also, per block, `ratio`:
    ‖F(x)‖ / ‖x‖, and `cosine`: between F(x) and x, both means over images, x being the adapter's output (of streams
    their sum, which is what the network makes of them in the end).
    """
    layers = response_names(network)
    adding = [block for block in network.blocks if block.reads_x]
    # a later layer may work in place, so what is wanted of an output is taken at once
    with capture(network, layers, keep=lambda output: output.double().std()) as deviations, passages(network) as passed:
        network(x)
    rows: list[tuple[str, int, str, float]] = []
    for layer, name in enumerate(layers, 1):
        rows.append(("std", layer, name, float(deviations[name])))
    for position, block in enumerate(adding, 1):
        adapted, fx = passed[block.name].adapted.double(), passed[block.name].branched.double()
        into, added = merged(adapted, fx).flatten(1), fx.flatten(1)
        ratio = (added.norm(dim=1) / into.norm(dim=1)).mean()
        cosine = torch.cosine_similarity(added, into).mean()
        rows.append(("ratio", position, block.name, float(ratio)))
        rows.append(("cosine", position, block.name, float(cosine)))
    return pd.DataFrame(rows, columns=["quantity", "layer", "name", "value"])


def merged(x: Tensor, fx: Tensor) -> Tensor:
    """Return x as one stream, the sum of those it has: [B, C, H, W] or [B, n, C, H, W] -> the shape of fx."""
    return x.sum(1) if x.dim() > fx.dim() else x


def response_names(network: Blocks) -> list[str]:
    """Return, in layer order, the modules whose outputs are the 3×3 layers' responses.

    That is the normalisation right after the convolution, or the convolution where none follows it (the last one of
    a pre-activation branch). In an adopted network without such layers all weighted layers of branches count.
    """
    if isinstance(network, Traced):
        return list(network.response_layers)
    names = []
    for prefix, part in [("stem", network.stem), *((f"{b.name}.branch", b.branch) for b in network.blocks)]:
        children = list(part.named_children())
        for place, (name, child) in enumerate(children):
            if isinstance(child, nn.Conv2d) and child.kernel_size == (3, 3):
                following = [other for other, _ in children[place + 1 : place + 2] if other.startswith("norm")]
                names.append(f"{prefix}.{(following or [name])[0]}")
    return names
