"""Batches that live on the device: order, crop and flip are tables drawn beforehand, and a step only reads a row.

He et al. 2016, section 4.2: the per-pixel mean is subtracted, then 4 zeros are padded on each side (of 32
pixels), a random crop of the original size is taken and flipped at random, each image with its own numbers;
test images are seen once, as they are. The tables of an epoch are drawn on the CPU from the seed and the epoch's
number, so every network of one seed sees the same batches on every device, and a resumed run needs no
generator's state.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from resx.data.balance import balanced
from resx.data.dataset import CHANNELS, Dataset, Split
from resx.seeding import generator
from resx.spec import DataSpec

CHUNK = {"cpu": 32, "cuda": 250}  # steps between two looks at the losses; a replayed one takes less than a millisecond
CHUNK_BYTES = {"cpu": 2**26, "cuda": 2**28}  # that the batches of one seed may take in a chunk
ASSEMBLED = 8  # batches at a time: what lies in between takes several times their memory
PAPER_PAD, PAPER_SIZE = 4, 32  # zeros on each side of an image; other sizes are padded in proportion


@dataclass(frozen=True)
class Tables:
    """What each of n_steps batches is made of: tensors [n_steps, batch] on the device.

    index: int64, rows of the training images. dy, dx: int64 0..2·pad, where the crop begins in the padded
    image. flip: bool, whether the crop is mirrored left to right. The last three are None without
    augmentation.
    """

    index: Tensor
    dy: Tensor | None = None
    dx: Tensor | None = None
    flip: Tensor | None = None


def _epoch(images: int, seed: int, epoch: int, pad: int) -> tuple[Tensor, ...]:
    """Draw one epoch: order [images] and, with a pad, the crops' dy and dx and the flips in that order."""
    order = torch.randperm(images, generator=generator(seed, "order", epoch))
    if not pad:
        return (order,)
    crop = torch.randint(0, 2 * pad + 1, (2, images), generator=generator(seed, "crop", epoch))
    flip = torch.randint(0, 2, (images,), generator=generator(seed, "flip", epoch)).bool()
    return order, crop[0], crop[1], flip


class Batches:
    """Training batches and evaluation passes of one data set on one device, for one seed."""

    def __init__(
        self, dataset: Dataset, data_spec: DataSpec, batch_size: int, seed: int, device: torch.device | str
    ) -> None:
        self.batch_size = batch_size
        self.seed = seed
        self.device = torch.device(device)
        self.is_images = dataset.is_images
        self.augment = self.is_images and data_spec.augment == "crop-flip"
        names: list[Split] = ["train", "test"] if dataset.val_x is None else ["train", "val", "test"]
        splits = {name: dataset.split(name) for name in names}
        # images are held as [N, H, W, C]: a pixel's channels are neighbours, as channels_last wants them
        self._x: dict[str, Tensor] = {
            name: (x.permute(0, 2, 3, 1) if self.is_images else x).contiguous().to(self.device)
            for name, (x, _) in splits.items()
        }
        self._y: dict[str, Tensor] = {name: y.to(self.device) for name, (_, y) in splits.items()}
        classes = dataset.task == "classification"
        self._labels: dict[str, Tensor | None] = {
            name: (y.cpu() if classes else None) for name, (_, y) in splits.items()
        }
        if self.is_images:
            shift, scale = _normalisation(dataset.train_x, data_spec.normalize)
            self._shift, self._scale = shift.to(self.device), scale.to(self.device)
        self.pad = 0
        if self.augment:
            _, height, width = dataset.input_shape
            self.pad = max(1, PAPER_PAD * height // PAPER_SIZE)
            self._rows = torch.arange(height, device=self.device)
            self._columns = torch.arange(width, device=self.device)
        self._epochs: dict[int, tuple[Tensor, ...]] = {}  # of the last tables: the next ones mostly need them again

    def with_seed(self, seed: int) -> Batches:
        """Return the batches of another seed; the images on the device are the same memory."""
        other = copy.copy(self)
        other.seed, other._epochs = seed, {}
        return other

    def tables(self, first_step: int, n_steps: int) -> Tables:
        """Return the tables of n_steps steps from first_step on, cut from the endless stream of epochs."""
        images = len(self._x["train"])
        start, stop = first_step * self.batch_size, (first_step + n_steps) * self.batch_size
        epochs = range(start // images, -(-stop // images))
        self._epochs = {
            epoch: self._epochs.get(epoch) or _epoch(images, self.seed, epoch, self.pad) for epoch in epochs
        }
        offset = epochs.start * images
        return Tables(
            *(
                torch.cat(parts)[start - offset : stop - offset]
                .view(n_steps, self.batch_size)
                .to(self.device, copy=True)
                for parts in zip(*self._epochs.values(), strict=True)
            )
        )

    def assemble(self, tables: Tables, k: Tensor) -> tuple[Tensor, Tensor]:
        """Return batch k: x float32, images [B, C, H, W] in channels_last, and its targets y [B, ...].

        k: int64, on the device; of several elements the batches follow one another. Nothing is drawn or read back.
        """
        index = _row(tables.index, k)
        x, y = self._x["train"].index_select(0, index), self._y["train"].index_select(0, index)
        if not self.is_images:
            return x, y
        x = self._scaled(x)
        if tables.dy is not None and tables.dx is not None and tables.flip is not None:
            x = self._cropped(x, _row(tables.dy, k), _row(tables.dx, k), _row(tables.flip, k))
        return x.permute(0, 3, 1, 2), y

    def evaluation(self, split: str, limit: int | None, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (x, y) of a split in its own order, normalised, un-augmented; the last batch may be smaller.

        limit: the number of inputs, class-balanced and the same for every seed; None for all. Raises ValueError for a
        split that does not exist, such as 'val' where nothing was held out.
        """
        if split not in self._x:
            raise ValueError(f"no split '{split}': there are {', '.join(self._x)}")
        x, y = self._x[split], self._y[split]
        if limit is not None and limit < len(x):
            index = balanced(self._labels[split], len(x), limit, generator(0, "evaluation", split))
            x, y = (values.index_select(0, index.to(self.device)) for values in (x, y))
        for part, targets in zip(x.split(batch_size), y.split(batch_size), strict=True):
            yield (self._scaled(part).permute(0, 3, 1, 2) if self.is_images else part), targets

    def _scaled(self, x: Tensor) -> Tensor:
        """Normalise uint8 [B, H, W, C]."""
        return x.to(torch.float32, memory_format=torch.contiguous_format).sub_(self._shift).mul_(self._scale)

    def _cropped(self, x: Tensor, dy: Tensor, dx: Tensor, flip: Tensor) -> Tensor:
        """Pad [B, H, W, C] with zeros, crop each image at its own (dy, dx), mirror it if its flip is set."""
        batch, height, width, channels = x.shape
        padded = F.pad(x, (0, 0, self.pad, self.pad, self.pad, self.pad)).view(-1, channels)
        columns = torch.where(flip[:, None], self._columns.flip(0), self._columns) + dx[:, None]
        first = torch.arange(batch, device=self.device)[:, None, None] * (height + 2 * self.pad)
        rows = first + (self._rows + dy[:, None])[:, :, None]
        pixels = rows * (width + 2 * self.pad) + columns[:, None, :]
        return padded.index_select(0, pixels.view(-1)).view(batch, height, width, channels)


def chunk_rows(batch_bytes: int, kind: str) -> int:
    """Return for how many steps batches are held at a time on a kind of device, for a batch of this size."""
    return max(1, min(CHUNK[kind], CHUNK_BYTES[kind] // batch_bytes))


class Feed:
    """The batches of a chunk of steps of one seed, on the device; row k is step k's.

    All networks of a seed read the same ones. The memory stays where it is, since a CUDA graph reads it there.
    """

    def __init__(self, batches: Batches) -> None:
        self.batches = batches
        inputs, targets = batches.assemble(batches.tables(0, 1), torch.zeros(1, dtype=torch.int64, device=self.device))
        self.rows = chunk_rows(inputs.nbytes, self.device.type)
        if batches.is_images:
            inputs = inputs.permute(0, 2, 3, 1)  # in the order of the memory
        self._inputs = inputs.new_zeros(self.rows, *inputs.shape)
        self._targets = targets.new_zeros(self.rows, *targets.shape)

    @property
    def device(self) -> torch.device:
        """Where the batches lie."""
        return self.batches.device

    def load(self, first_step: int, n_steps: int) -> None:
        """Put the batches of n_steps steps from first_step on, at most `rows`, into the first rows."""
        tables = self.batches.tables(first_step, n_steps)
        steps = torch.arange(n_steps, device=self.device)
        for first in range(0, n_steps, ASSEMBLED):
            rows = slice(first, min(first + ASSEMBLED, n_steps))
            inputs, targets = self.batches.assemble(tables, steps[rows])
            inputs = inputs.permute(0, 2, 3, 1) if self.batches.is_images else inputs
            for memory, values in ((self._inputs, inputs), (self._targets, targets)):
                memory[rows].view(values.shape).copy_(values)

    def batch(self, k: Tensor) -> tuple[Tensor, Tensor]:
        """Return batch k (int64 [1], on the device) as `Batches.assemble` does, in two operations."""
        inputs, targets = self._inputs.index_select(0, k)[0], self._targets.index_select(0, k)[0]
        return (inputs.permute(0, 3, 1, 2) if self.batches.is_images else inputs), targets


def _row(table: Tensor, k: Tensor) -> Tensor:
    """Return row k of [n_steps, batch], or several rows one after another, without reading k back."""
    return table.index_select(0, k.view(-1)).view(-1)


def _normalisation(images: Tensor, kind: str | None) -> tuple[Tensor, Tensor]:
    """Return what is subtracted from uint8 [N, C, H, W], and what the difference is multiplied with.

    pixel-mean: the mean [H, W, C] of every pixel over the images, and 1 / the standard deviation of all
    pixels about those means, so that inputs have variance 1 (the paper only subtracts). channel-mean: mean and 1 /
    standard deviation [C] of every channel. symmetric: to -1..1. None: to 0..1. A name in CHANNELS: its constants.
    Sums are exact integers, hence the same on every machine.
    """
    if kind in CHANNELS:
        mean, deviation = (torch.tensor(values) for values in CHANNELS[kind])
        return 255 * mean, 1 / (255 * deviation)
    if kind is None:
        return torch.tensor(0.0), torch.tensor(1 / 255)
    if kind == "symmetric":
        return torch.tensor(127.5), torch.tensor(1 / 127.5)
    total = torch.zeros(images.shape[1:], dtype=torch.int64)
    squares = torch.zeros(images.shape[1], dtype=torch.int64)
    for part in images.split(1024):
        total += part.sum(0, dtype=torch.int64)
        squares += part.to(torch.int32).square_().sum((0, 2, 3), dtype=torch.int64)
    if kind == "channel-mean":
        pixels = images.numel() // len(squares)
        mean = total.sum((1, 2)).double() / pixels
        variances = squares.double() / pixels - mean.square()
    else:
        mean = total.double() / len(images)
        variances = int(squares.sum()) / images.numel() - mean.square().mean()
        mean = mean.permute(1, 2, 0)
    scale = torch.where(variances > 0, variances**-0.5, 1.0)  # images that are all the same leave only zeros to scale
    return mean.float().contiguous(), scale.float()
