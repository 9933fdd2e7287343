"""How much a branch has to add, and how far a shortcut is from the map that it should be.

He et al. 2016, section 3.1 (the residual is small where the shortcut is near the target map) and 4.2 (fig. 7, small
responses), here against a teacher whose linear map R is known.
"""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor, nn


def mapping(network: nn.Module, x: Tensor, matrix: Tensor) -> pd.DataFrame:
    """Return one row on a network of the mapping family, for inputs [N, d] and the teacher's R [d, d].

    residual: length of F(x) over that of the block's output, root mean squares over inputs, mean over blocks (1 in a
    plain network). distance: ‖S − R‖ / ‖R‖ (Frobenius), mean over blocks. composed: the same for the product of all
    S against Rᴸ. With L > 1 only the product can be known from outside: a change of basis between two layers
    changes the S of both and nothing else. odd: as composed, for the layers' odd parts (h(x) − h(−x))/2, which are
    linear, as a branch of ReLUs without biases has a linear odd part; it may hold what S lacks of R.
    """
    blocks = list(network.get_submodule("blocks").children())
    shares, distances = [], []
    basis = torch.eye(len(matrix))
    composed = odd = target = basis.double()
    with torch.inference_mode():
        for block in blocks:
            out = block(x)
            shares.append(float(block.get_submodule("branch")(x).norm() / out.norm()))
            x = out
            shortcut = block.get_submodule("shortcut")(basis, torch.zeros_like(basis)).double().T
            distances.append(_apart(shortcut, matrix))
            composed, target = shortcut @ composed, matrix @ target
            odd = (block(basis) - block(-basis)).double().T / 2 @ odd
    return pd.DataFrame(
        {
            "residual": [sum(shares) / len(blocks)],
            "distance": [sum(distances) / len(blocks)],
            "composed": [_apart(composed, target)],
            "odd": [_apart(odd, target)],
        }
    )


def _apart(matrix: Tensor, target: Tensor) -> float:
    return float((matrix - target).norm() / target.norm())
