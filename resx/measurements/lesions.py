"""Lesions: the test error of a trained network without some of its blocks, or with blocks in another order.

Veit et al. 2016, section 4: removing a block from a residual network hardly matters, removing a layer from a plain one
is fatal, and removing or permuting many degrades smoothly. Their controls are here too: ensembles of independent
networks, and networks trained with only a subset of their blocks at each step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from resx.measurements.taps import Blocks, ablate, reestimated
from resx.measurements.traced import Traced, TracedBlock
from resx.model import Network
from resx.model.network import Block
from resx.model.subset import SubsetNetwork
from resx.seeding import generator
from resx.training.evaluate import evaluate

Batch = tuple[Tensor, Tensor]
AnyBlock = Block | TracedBlock
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


def removable(network: Blocks) -> list[AnyBlock]:
    """Return the blocks that can be removed: all that have a shortcut, and those of plain networks that keep shapes."""
    return [block for block in network.blocks if block.reads_x or block.keeps_shape]


def movable(network: Blocks) -> list[AnyBlock]:
    """Return the blocks that keep shapes: the same in a plain network and its residual twin."""
    return [block for block in network.blocks if block.keeps_shape]


def swaps(blocks: Sequence[AnyBlock], count: int, stream: torch.Generator) -> dict[str, str]:
    """Return which block stands where after `count` random exchanges of two blocks of one stage: names by place.

    blocks: those that keep shapes. Exchanges are drawn independently, so a later one may undo an earlier one.
    """
    stages: dict[int, list[str]] = {}
    for block in blocks:
        stages.setdefault(block.stage, []).append(block.name)
    pairs = [pair for names in stages.values() for pair in combinations(names, 2)]
    order = {block.name: block.name for block in blocks}
    for _ in range(count if pairs else 0):
        first, second = pairs[int(torch.randint(len(pairs), (), generator=stream))]
        order[first], order[second] = order[second], order[first]
    return order


@dataclass(frozen=True)
class Lesion:
    """What is done to a network. without: blocks that are removed; order: by place, the block that stands there."""

    row: Mapping[str, object]
    without: Sequence[str] = ()
    order: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def lesioned(network: Blocks, without: Sequence[str] = (), order: Mapping[str, str] | None = None) -> Iterator[None]:
    """Remove blocks, so that S(x) alone remains of them, or exchange blocks; at the end the network is restored."""
    if isinstance(network, Traced):
        modules = {block.name: block.module for block in network.blocks}
        moved = {modules[place]: network.get_submodule(modules[name]) for place, name in (order or {}).items()}
        with network.passed(without=without) if without else nullcontext(), ablate(network, moved):
            yield
        return
    blocks = {block.name: block for block in network.blocks}
    replacements: dict[str, nn.Module] = {name: removed(blocks[name]) for name in without}
    with ablate(network, replacements | {place: blocks[name] for place, name in (order or {}).items()}):
        yield


def plans(network: Blocks, counts: Sequence[int], draws: int, pairs: int) -> Iterator[Lesion]:
    """Yield every lesion; the random ones are the same in all networks of a depth."""
    moving = movable(network)
    yield Lesion({"lesion": "none", "blocks": ""})
    for block in removable(network):
        yield Lesion({"lesion": "remove", "blocks": block.name, "count": 1}, [block.name])
    for count in counts:
        for draw in range(draws):
            if count <= len(moving):
                numbers = torch.randperm(len(moving), generator=generator(0, "lesions", "random", count, draw))[:count]
                names = [moving[k].name for k in sorted(numbers.tolist())]
                yield Lesion({"lesion": "random", "blocks": "+".join(names), "count": count, "draw": draw}, names)
            order = swaps(moving, count, generator(0, "lesions", "permute", count, draw))
            moved = {place: name for place, name in order.items() if name != place}
            yield Lesion({"lesion": "permute", "blocks": "+".join(moved), "count": count, "draw": draw}, order=moved)
    every = list(combinations(moving, 2))
    numbers = torch.randperm(len(every), generator=generator(0, "lesions", "pairs"))[:pairs]
    for k in sorted(numbers.tolist()):
        names = [block.name for block in every[k]]
        yield Lesion({"lesion": "pair", "blocks": "+".join(names), "count": 2, "draw": k}, names)


def lesions(
    network: Blocks,
    evaluation: Sequence[Batch],
    statistics: Sequence[Tensor],
    task: str,
    *,
    counts: Sequence[int] = (1, 2, 4, 8),
    draws: int = 4,
    pairs: int = 40,
) -> pd.DataFrame:
    """Measure loss and error (%) on evaluation batches (x, y) after each lesion, in eval mode.

    Lesions: none; each block removed that can be; for each count in `counts`, `draws` random sets of that many blocks
    removed, and `draws` orders after that many exchanges of blocks within stages; `pairs` pairs of blocks removed.
    Random ones take only blocks that keep shapes, the same in plain and residual networks. Returns rows
    (lesion, blocks, count, draw, statistics, loss, error). statistics: `running`, those of training, or `re-estimated`
    on the given inputs [B, C, H, W] after the lesion. The network is left as it was.
    """
    rows = []
    for lesion in plans(network, counts, draws, pairs):
        with lesioned(network, lesion.without, lesion.order):
            rows += [{**lesion.row, **cells} for cells in _evaluated(network, evaluation, statistics, task)]
    columns = ["lesion", "blocks", "count", "draw", "statistics", "loss", "error"]
    return pd.DataFrame(rows).reindex(columns=columns)


def _evaluated(
    network: Blocks, evaluation: Sequence[Batch], statistics: Sequence[Tensor], task: str
) -> Iterator[dict[str, object]]:
    """Yield statistics, loss and error of a network as it is now, with those of training and re-estimated ones."""
    for kind in STATISTICS:
        with reestimated(network, statistics) if kind == "re-estimated" else nullcontext():
            outcome = evaluate(network, evaluation, task)
        yield {"statistics": kind, "loss": outcome.loss, "error": outcome.error}


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
    cases: list[tuple[str, int, Network, list[str]]] = [("all", 0, network, []), ("weighted", 0, weighted, [])]
    for draw in range(draws):
        numbers = weighted.draw(generator(0, "short paths", draw), 1).tolist()
        out = [block for block, on in zip(network.blocks, numbers, strict=True) if not on]
        cases.append(("subset", draw, network, [block.name for block in out]))
    rows = []
    for blocks, draw, tested, without in cases:
        with lesioned(tested, without):
            outcomes = _evaluated(tested, evaluation, statistics, task)
            rows += [{"blocks": blocks, "draw": draw, **cells} for cells in outcomes]
    return pd.DataFrame(rows, columns=["blocks", "statistics", "draw", "loss", "error"])


def too_small(blocks: Iterable[AnyBlock]) -> str | None:
    """Say why blocks of this network cannot be deleted, or return None."""
    movable_blocks = sum(block.keeps_shape for block in blocks)
    if movable_blocks < 4:
        return f"only {movable_blocks} of its blocks keep the shape of what enters, lesions need at least 4"
    return None
