"""Two networks that should compute the same: how far apart their outputs are (He et al. 2016, section 1).

The paper argues that a deeper network need not be worse, since its added layers could be identities. The construction
itself is the transformation `deepen` (training/initial.py); this measures its result.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import pandas as pd
import torch
from torch import Tensor, nn


@torch.no_grad()
def difference(
    first: nn.Module, second: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], task: str, *, training: bool
) -> dict[str, float]:
    """Compare two networks' outputs on batches (x, y) in the dtype of x, in eval mode or with batch statistics.

    Returns images; max_difference and mean_difference of the outputs, absolute; scale, the mean absolute output of
    the first; and changed, the share (%) of images whose largest output is another one (nan for a regression). The
    networks are left as they were.
    """
    pair = [copy.deepcopy(network).train(training) for network in (first, second)]
    images = outputs = 0
    largest = total = scale = changed = 0.0
    for x, _ in batches:
        one, other = (network.to(x.device, x.dtype)(x) for network in pair)
        apart = (one - other).abs()
        largest = max(largest, float(apart.max()))
        total, scale = total + float(apart.sum()), scale + float(one.abs().sum())
        changed += float((one.argmax(1) != other.argmax(1)).sum()) if task == "classification" else float("nan")
        images, outputs = images + len(x), outputs + apart.numel()
    return {
        "images": images,
        "max_difference": largest,
        "mean_difference": total / outputs,
        "scale": scale / outputs,
        "changed": 100 * changed / images,
    }


def compare(
    parent: nn.Module,
    exact: nn.Module,
    rounded: nn.Module,
    evaluation: Iterable[tuple[Tensor, Tensor]],
    training: Iterable[tuple[Tensor, Tensor]],
    task: str,
) -> pd.DataFrame:
    """Compare a network with a deeper one that was constructed from it.

    exact: the constructed network in float64; rounded: the same in float32, in which it is trained. evaluation: batches
    of float32 inputs for eval mode; training: for training mode, cut to the size of training batches. Returns rows
    (mode, precision, …) with the columns of `difference`.
    """
    evaluation, training = list(evaluation), list(training)
    rows = []
    for mode, batches in (("eval", evaluation), ("training", training)):
        doubles = [(x.double(), y) for x, y in batches]
        is_training = mode == "training"
        double = difference(parent, exact, doubles, task, training=is_training)
        single = difference(parent, rounded, batches, task, training=is_training)
        rows += [{"mode": mode, "precision": "float64", **double}, {"mode": mode, "precision": "float32", **single}]
    return pd.DataFrame(rows)
