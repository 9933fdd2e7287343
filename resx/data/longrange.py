"""A synthetic task with a long range: the order of two symbols that lie far apart among distractors.

Hochreiter & Schmidhuber 1997 (Long Short-Term Memory, experiment 6, task 6a), at a length that is an argument and
without their symbols for the beginning and the end.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from resx.data.dataset import DATASETS, Dataset, check_sizes
from resx.seeding import generator

if TYPE_CHECKING:
    from torch import Tensor

DISTRACTORS = 4
CLASSES = ("XX", "XY", "YX", "YY")


@DATASETS.register("temporal-order")
def load_temporal_order(root: Path | None = None, *, steps: int = 30, train: int = 1000, test: int = 500) -> Dataset:
    """Which of X and Y came first and which second? Both lie far apart in a sequence of distractors.

    Inputs are float32 one-hot [N, steps, 6] (four distractors, X, Y). The first relevant symbol lies between
    1/10 and 2/10 of the sequence, the second between 5/10 and 6/10; the four classes are balanced. Raises
    SpecError where a number is too small.
    """
    sizes, least = {"steps": steps, "train": train, "test": test}, {"steps": 10, "train": 4, "test": 4}
    check_sizes("temporal-order", sizes, least, (train + test) * steps * (DISTRACTORS + 2))
    train_x, train_y = _examples("train", train, steps)
    test_x, test_y = _examples("test", test, steps)
    return Dataset(train_x, train_y, test_x, test_y, classes=CLASSES, label=f"temporal order, {steps} steps")


def _examples(split: str, count: int, steps: int) -> tuple[Tensor, Tensor]:
    import torch
    import torch.nn.functional as F

    draw = generator(0, "temporal-order", split, steps)
    labels = torch.arange(count) % len(CLASSES)
    symbols = torch.randint(0, DISTRACTORS, (count, steps), generator=draw)
    rows = torch.arange(count)
    for tenths, symbol in ((1, labels // 2), (5, labels % 2)):
        low, high = tenths * steps // 10, (tenths + 1) * steps // 10
        place = torch.randint(low, high + 1, (count,), generator=draw)
        symbols[rows, place] = DISTRACTORS + symbol
    return F.one_hot(symbols, DISTRACTORS + 2).float(), labels
