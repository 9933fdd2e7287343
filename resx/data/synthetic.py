"""A synthetic classification task for tests: every class has its own pattern, under noise and small shifts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from resx.data.dataset import DATASETS, Dataset, check_sizes
from resx.seeding import generator

if TYPE_CHECKING:
    from torch import Tensor


@DATASETS.register("synthetic")
def load_synthetic(
    root: Path | None = None,
    *,
    classes: int = 4,
    size: int = 8,
    channels: int = 3,
    train: int = 256,
    test: int = 128,
) -> Dataset:
    """A synthetic task: noisy, shifted patterns, one a class, that a small network learns.

    Images are uint8 [N, channels, size, size]; the classes follow one another, so every split is balanced.
    Raises SpecError where a number is too small.
    """
    import torch
    import torch.nn.functional as F

    sizes = {"classes": classes, "size": size, "channels": channels, "train": train, "test": test}
    least = {"classes": 2, "size": 4, "channels": 1, "train": classes, "test": classes}
    check_sizes("synthetic", sizes, least, (train + test) * channels * size * size)
    draw = generator(0, "synthetic", "patterns", classes, channels)
    coarse = torch.rand(classes, channels, 4, 4, generator=draw)
    patterns = F.interpolate(coarse, size=(size, size), mode="nearest")

    def images(purpose: str, count: int) -> tuple[Tensor, Tensor]:
        draw = generator(0, "synthetic", purpose)
        labels = torch.arange(count) % classes
        shift = torch.randint(-1, 2, (count, 2), generator=draw)
        rows = (torch.arange(size) + shift[:, :1]) % size
        columns = (torch.arange(size) + shift[:, 1:]) % size
        shifted = patterns[labels[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        noise = torch.randn(count, channels, size, size, generator=draw)
        return (shifted * 160 + 48 + noise * 24).round().clamp(0, 255).to(torch.uint8).contiguous(), labels

    train_x, train_y = images("train", train)
    test_x, test_y = images("test", test)
    names = tuple(f"pattern {number}" for number in range(classes))
    return Dataset(train_x, train_y, test_x, test_y, classes=names, label="synthetic")
