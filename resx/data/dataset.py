"""What a loaded data set is, the registry of data sets, and what is known of some before they are loaded.

A data set is one file in this folder: a function `load(root) -> Dataset` in `DATASETS`. One that is read from
files adds a `look` to `LOOKUPS`, which finds out cheaply whether they are there. One whose name alone fixes
its content may add its size to `FACTS`, so that a specification can be checked and named on a machine that
lacks the files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from resx.registry import Registry
from resx.spec import SpecError

if TYPE_CHECKING:
    from torch import Tensor

Split = Literal["train", "val", "test"]
# mean and deviation of the red, green and blue channel, from 0 to 1, that published weights expect: torchvision's and
# akamaster's (ImageNet), chenyaofo's for CIFAR
CHANNELS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5070, 0.4865, 0.4409), (0.2673, 0.2564, 0.2761)),
}
MAX_VALUES = 2**30  # of the inputs of a synthetic data set: 4 GiB while it is made


@dataclass(frozen=True)
class Facts:
    """The size of a data set: shape of one input, training and test inputs, outputs of a network for it."""

    shape: tuple[int, ...]
    train: int
    test: int
    outputs: int
    images: bool = True
    regression: bool = False


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in memory, in its own order.

    *_x: images uint8 [N, C, H, W], other inputs float32 [N, ...]. *_y: classes int64 [N], regression targets
    float32 [N, ...]. val_*: None without a validation split. label: the name on tables and figures.
    reference: the data set whose published numbers may be compared with results on this one. content: hash of
    what was read from files that the name does not fix. image_size: the side to which images of different
    sizes were brought when they were read. Raises ValueError where these do not fit together.
    """

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    val_x: Tensor | None = None
    val_y: Tensor | None = None
    classes: tuple[str, ...] = ()
    label: str = ""
    reference: str | None = None
    task: Literal["classification", "regression"] = "classification"
    content: str | None = None
    image_size: int | None = None

    def __post_init__(self) -> None:
        import torch

        kind = torch.int64 if self.task == "classification" else torch.float32
        for x, y in ((self.train_x, self.train_y), (self.test_x, self.test_y), (self.val_x, self.val_y)):
            if x is None and y is None:
                continue
            if x is None or y is None or len(x) != len(y):
                raise ValueError("as many inputs as targets are needed in every split")
            if x.dtype != (torch.uint8 if x.ndim == 4 and self.is_images else torch.float32):
                raise ValueError(f"inputs must be uint8 [N, C, H, W] or float32, not {x.dtype} {tuple(x.shape)}")
            if y.dtype != kind:
                raise ValueError(f"targets of a {self.task} must be {kind}, not {y.dtype}")

    @property
    def is_images(self) -> bool:
        """Whether the inputs are uint8 images, which are normalised and augmented."""
        import torch

        return self.train_x.dtype == torch.uint8

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, without N."""
        return tuple(self.train_x.shape[1:])

    @property
    def n_outputs(self) -> int:
        """Outputs of a network for this task: classes, or the size of a regression target."""
        if self.task == "classification":
            return len(self.classes)
        return int(self.train_y[0].numel())

    @property
    def facts(self) -> Facts:
        """The size of this data set."""
        regression = self.task == "regression"
        return Facts(self.input_shape, len(self.train_x), len(self.test_x), self.n_outputs, self.is_images, regression)

    def split(self, name: Split) -> tuple[Tensor, Tensor]:
        """Return the inputs and targets of a split. Raises ValueError for 'val' where none was held out."""
        if name == "val":
            if self.val_x is None or self.val_y is None:
                raise ValueError("no images were held out for validation")
            return self.val_x, self.val_y
        return (self.train_x, self.train_y) if name == "train" else (self.test_x, self.test_y)


State = Literal["built in", "absent", "present", "verified", "damaged"]


@dataclass(frozen=True)
class Found:
    """Where a data set was looked for and what was found; `where` is None for one that needs no files."""

    state: State
    where: Path | None = None
    note: str = ""


DATASETS: Registry[Callable[..., Dataset]] = Registry("dataset")
# name -> look(root, verify) -> Found
LOOKUPS: Registry[Callable[[Path, bool], Found]] = Registry("dataset")
FACTS: dict[str, Facts] = {}


def check_sizes(name: str, sizes: Mapping[str, int], least: Mapping[str, int], values: int, *more: str) -> None:
    """Raise SpecError for a synthetic data set with too small sizes, too many input values, or mistakes `more`."""
    errors = [f"{key} must be at least {least[key]}" for key in sizes if sizes[key] < least[key]] + list(more)
    errors += [f"{values:,} input values are too many; at most {MAX_VALUES:,}"] * (values > MAX_VALUES)
    if errors:
        raise SpecError([f"dataset '{name}': {line}" for line in errors])


def look(name: str, root: Path, verify: bool = False) -> Found:
    """Find out whether a data set's files are there; with `verify`, whether they are what they should be."""
    return LOOKUPS[name](root, verify) if name in LOOKUPS else Found("built in", note="needs no files")


def data_root(data_dir: Path | None) -> Path:
    """Return where files are looked for: the given folder, RESX_DATA, or `data` in the current folder."""
    return Path(os.environ.get("RESX_DATA") or "data") if data_dir is None else data_dir


def averaged_down(images: Tensor, size: int) -> Tensor:
    """Return uint8 images [N, C, H, W] as [N, C, size, size], each pixel the rounded mean of its area."""
    import torch
    import torch.nn.functional as F

    parts = [F.adaptive_avg_pool2d(part.float(), size).round().to(torch.uint8) for part in images.split(1024)]
    return torch.cat(parts)
