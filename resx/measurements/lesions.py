"""Lesions: the test error of a trained network without some of its blocks, or with blocks in another order.

Veit et al. 2016, section 4: removing a block from a residual network hardly matters, removing a layer from a plain one
is fatal, and removing or permuting many degrades smoothly. Their controls are here too: ensembles of independent
networks, and networks trained with only a subset of their blocks at each step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from resx.measurements.taps import ablate, reestimated
from resx.model import Network
from resx.model.network import Block
from resx.model.subset import SubsetNetwork
from resx.seeding import generator
from resx.training.evaluate import evaluate

Batch = tuple[Tensor, Tensor]
STATISTICS = ("running", "re-estimated")


class Beside(nn.Module):
    """x, without F(x): the shortcut function of a block that is removed."""

    def forward(self, x: Tensor, fx: Tensor) -> Tensor:
        return x


def removed(block: Block) -> Block:
    """Return what stands in a removed block's place: `activation(adapter(x))`; its branch is empty."""
    rest = Block(nn.Identity(), block.adapter, Beside(), block.activation)
    rest.name = block.name
    return rest


def keeps_shape(block: Block) -> bool:
    """Say whether what a block puts out has the shape of what comes in, so that it can be left out or moved."""
    convs = [part for part in block.branch.modules() if isinstance(part, nn.Conv2d)]
    return convs[0].in_channels == convs[-1].out_channels and all(conv.stride == (1, 1) for conv in convs)


def removable(network: Network) -> list[Block]:
    """Return the blocks that can be removed: all that have a shortcut, and those of plain networks that keep shapes."""
    return [block for block in network.blocks if getattr(block.shortcut, "reads_x", True) or keeps_shape(block)]


def movable(network: Network) -> list[Block]:
    """Return the blocks that keep shapes: the same in a plain network and its residual twin."""
    return [block for block in network.blocks if keeps_shape(block)]


def swaps(blocks: Sequence[Block], count: int, stream: torch.Generator) -> dict[str, Block]:
    """Return which block stands where after `count` random exchanges of two blocks of one stage, by place.

    blocks: those that keep shapes. Exchanges are drawn independently, so a later one may undo an earlier one.
    """
    stages: dict[str, list[Block]] = {}
    for block in blocks:
        stages.setdefault(block.name.split(".")[1], []).append(block)
    pairs = [pair for stage in stages.values() for pair in combinations([block.name for block in stage], 2)]
    order = {block.name: block for block in blocks}
    for _ in range(count):
        first, second = pairs[int(torch.randint(len(pairs), (), generator=stream))]
        order[first], order[second] = order[second], order[first]
    return order


def plans(
    network: Network, counts: Sequence[int], draws: int, pairs: int
) -> Iterator[tuple[dict[str, object], dict[str, nn.Module]]]:
    """Yield (what is done, replacements) of every lesion; the random ones are the same in all networks of a depth."""
    moving = movable(network)
    yield {"lesion": "none", "blocks": ""}, {}
    for block in removable(network):
        yield {"lesion": "remove", "blocks": block.name, "count": 1}, {block.name: removed(block)}
    for count in counts:
        for draw in range(draws):
            if count <= len(moving):
                chosen = torch.randperm(len(moving), generator=generator(0, "lesions", "random", count, draw))[:count]
                lesion = {moving[k].name: removed(moving[k]) for k in sorted(chosen.tolist())}
                yield {"lesion": "random", "blocks": "+".join(lesion), "count": count, "draw": draw}, dict(lesion)
            order = swaps(moving, count, generator(0, "lesions", "permute", count, draw))
            moved = {name: block for name, block in order.items() if block.name != name}
            told = {"lesion": "permute", "blocks": "+".join(moved), "count": count, "draw": draw}
            yield told, dict(moved)
    every = list(combinations(moving, 2))
    chosen = torch.randperm(len(every), generator=generator(0, "lesions", "pairs"))[:pairs]
    for k in sorted(chosen.tolist()):
        lesion = {block.name: removed(block) for block in every[k]}
        yield {"lesion": "pair", "blocks": "+".join(lesion), "count": 2, "draw": k}, dict(lesion)


def lesions(
    network: Network,
    evaluation: Sequence[Batch],
    statistics: Sequence[Tensor],
    task: str,
    *,
    counts: Sequence[int] = (1, 2, 4, 8),
    draws: int = 4,
    pairs: int = 40,
) -> pd.DataFrame:
    """Measure loss and error (%) on evaluation batches (x, y) after each lesion, in eval mode.

    Lesions: none; each block removed that can be; for each of `counts`, `draws` random sets of so many blocks
    removed, and as many orders after so many exchanges of blocks within stages; `pairs` pairs of blocks removed.
    Random ones take only blocks that keep shapes, which are the same ones in plain and residual networks. Returns rows
    (lesion, blocks, count, draw, statistics, loss, error). statistics: `running`, those of training, or `re-estimated`
    on the given inputs [B, C, H, W] after the lesion. The network is left as it was.
    """
    rows = []
    for told, replacements in plans(network, counts, draws, pairs):
        with ablate(network, replacements):
            for kind in STATISTICS:
                context = reestimated(network, statistics) if kind == "re-estimated" else nullcontext()
                with context:
                    found = evaluate(network, evaluation, task)
                rows.append({**told, "statistics": kind, "loss": found.loss, "error": found.error})
    columns = ["lesion", "blocks", "count", "draw", "statistics", "loss", "error"]
    return pd.DataFrame(rows).reindex(columns=columns)


def interactions(measured: pd.DataFrame) -> pd.DataFrame:
    """Return, per pair of removed blocks, how far the damage of both is from the sum of the two single ones.

    measured: rows of `lesions` of one network. Returns rows (statistics, blocks, sum, both) in units of the loss: the
    sum of the two increases, and the increase with both removed. Blocks that interact have `both` ≠ `sum`.
    """
    rows = []
    for statistics, group in measured.groupby("statistics", sort=False):
        whole = group.loc[group["lesion"] == "none", "loss"].iloc[0]
        single = group[group["lesion"] == "remove"].set_index("blocks")["loss"] - whole
        for _, pair in group[group["lesion"] == "pair"].iterrows():
            first, second = pair["blocks"].split("+")
            added = single[first] + single[second]
            rows.append((statistics, pair["blocks"], added, pair["loss"] - whole))
    return pd.DataFrame(rows, columns=["statistics", "blocks", "sum", "both"])


def ensemble(logits: Sequence[NDArray[np.float32]], labels: NDArray[np.int64]) -> tuple[float, float]:
    """Return loss and error (%) of the mean of several networks' class probabilities.

    logits: one array [N, classes] per network; labels: [N].
    """
    shares = torch.stack([torch.from_numpy(one).double().softmax(dim=1) for one in logits]).mean(dim=0)
    truth = torch.from_numpy(labels)
    own = shares.gather(1, truth[:, None]).clamp(min=torch.finfo(torch.float64).tiny)
    return float(-own.log().mean()), float((shares.argmax(dim=1) != truth).double().mean() * 100)


def short_paths(
    network: Network, active: int, evaluation: Sequence[Batch], statistics: Sequence[Tensor], task: str, draws: int = 4
) -> pd.DataFrame:
    """Measure a network that was trained with random subsets of `active` blocks, in eval mode, on batches (x, y).

    Returns rows (blocks, statistics, draw, loss, error). `all`: with all its blocks, as Veit et al. test it;
    `weighted`: the same with each block's sum replaced by its mean over subsets (resx.model.subset); `subset`: with
    random subsets as in training, `draws` of them. statistics as in `lesions`: those of training belong to subsets, so
    `all` needs re-estimated ones.
    """
    weighted = SubsetNetwork(network, active).eval()
    cases: list[tuple[str, int, Network, dict[str, nn.Module]]] = [
        ("all", 0, network, {}),
        ("weighted", 0, weighted, {}),
    ]
    for draw in range(draws):
        chosen = weighted.draw(generator(0, "short paths", draw), 1).tolist()
        out = [block for block, on in zip(network.blocks, chosen, strict=True) if not on]
        cases.append(("subset", draw, network, {block.name: removed(block) for block in out}))
    rows = []
    for blocks, draw, tested, replacements in cases:
        with ablate(tested, replacements):
            for kind in STATISTICS:
                with reestimated(tested, statistics) if kind == "re-estimated" else nullcontext():
                    found = evaluate(tested, evaluation, task)
                rows.append((blocks, kind, draw, found.loss, found.error))
    return pd.DataFrame(rows, columns=["blocks", "statistics", "draw", "loss", "error"])


def too_small(blocks: Iterable[Block]) -> str | None:
    """Say why a network of these blocks cannot bear lesions, or return None."""
    movable_blocks = sum(keeps_shape(block) for block in blocks)
    if movable_blocks < 4:
        return f"only {movable_blocks} of its blocks keep the shape of what enters, lesions need at least 4"
    return None
