"""A chain of blocks of one width: what every family but those on images, which have stages, is built as.

The block is the one of He et al. 2016, section 3.2: `activation(shortcut(x, branch(x)))`. Between blocks a tensor
is [B, C] or, for sequences, [B, C, T], so every shortcut function finds the channels in dimension 1.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from resx.model.network import Block
from resx.model.shortcuts import SHORTCUTS
from resx.spec import ModelSpec, SpecError, first_line

OF_IMAGES = ("adapter", "widths", "stride_in", "padding", "activation", "init")  # fields of networks on images
NORMS: dict[str, type[nn.Module]] = {"batch": nn.BatchNorm1d, "none": nn.Identity}


class Chain(nn.Module):
    """Stem, blocks, head. Parameters are named `stem.*`, `blocks.B.branch.*`, `blocks.B.shortcut.*`, `head.*`.

    `blocks` holds the blocks in order; each knows its `name`, `blocks.B`.
    """

    def __init__(self, stem: nn.Module, blocks: Iterable[Block], head: nn.Module) -> None:
        super().__init__()
        self.stem = stem
        self.blocks: Iterable[Block] = nn.ModuleList(blocks)  # type: ignore[assignment]
        self.head = head
        for b, block in enumerate(self.blocks):
            block.name = f"blocks.{b}"

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class MeanOverTime(nn.Module):
    """[B, C, T] -> [B, C], the mean over time (global average pooling of a sequence)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(2)


class LastStep(nn.Module):
    """[B, C, T] -> [B, C], the last step of a sequence."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, -1]


class ChannelsFirst(nn.Module):
    """[B, T, C], the layout of data sets, -> [B, C, T], the layout between blocks; and back."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


def two_layer_blocks(
    name: str, layer: Callable[[], nn.Module], norm: Callable[[int], nn.Module], spec: ModelSpec
) -> list[Block]:
    """Return the blocks of a chain of depth 2n+2: layer, norm, ReLU, layer, norm; a ReLU after the addition."""
    width = spec.width
    assert width

    def block() -> Block:
        first, second = {f"{name}1": layer(), "norm1": norm(width)}, {f"{name}2": layer(), "norm2": norm(width)}
        branch = nn.Sequential(OrderedDict(first | {"relu1": nn.ReLU()} | second))
        return Block(branch, nn.Identity(), SHORTCUTS.create(spec.shortcut, width), nn.ReLU())

    return [block() for _ in range(spec.depth // 2 - 1)]


def sequence_features(family: str, input_shape: tuple[int, ...]) -> int:
    """Return the features of a sequence's step from (steps, features). Raises SpecError for other inputs."""
    if len(input_shape) != 2:
        shape = "×".join(map(str, input_shape))
        raise SpecError(f"family {family}: needs sequences [steps, features], but the data set's inputs are {shape}")
    return input_shape[1]


def shortcut_mistakes(spec: ModelSpec, rest: tuple[int, ...]) -> list[str]:
    """Return why the shortcut cannot stand in a chain, a line; tried on [2, width, *rest] without memory.

    A name or argument that is unknown is left to the registry's own check.
    """
    channels = spec.width or 4
    if SHORTCUTS.check(spec.shortcut) or one_stream(spec):
        return one_stream(spec)
    shape = (2, channels, *rest)
    try:
        with torch.device("meta"):
            out = SHORTCUTS.create(spec.shortcut, channels)(torch.empty(shape), torch.empty(shape))
    except SpecError as error:
        return error.errors
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        why = first_line(error)
        return [f"shortcut '{spec.shortcut}': does not take {list(shape)} ({why}), as family {spec.family} needs"]
    if out.shape != shape:
        return [f"shortcut '{spec.shortcut}': returns {list(out.shape)} for {list(shape)} in family {spec.family}"]
    return []


def one_stream(spec: ModelSpec) -> list[str]:
    """Return why a shortcut that carries streams cannot stand in a chain, a line."""
    name = spec.shortcut.partition(":")[0].strip()
    if name in SHORTCUTS and hasattr(SHORTCUTS[name], "read"):
        return [f"shortcut '{name}': carries streams, which networks of images have but family {spec.family} does not"]
    return []


def absent(spec: ModelSpec, fields: Iterable[str] = OF_IMAGES) -> list[str]:
    """Return a line for each field that is set although the family does not have it."""
    return [f"{field}: the {spec.family} family has none; leave it out" for field in fields if getattr(spec, field)]


def even_depth(spec: ModelSpec) -> list[str]:
    """Return what is wrong with a depth that must be 2n+2: a stem, n blocks of two layers, a head."""
    if spec.depth >= 4 and spec.depth % 2 == 0:
        return []
    nearest = max(4, spec.depth + spec.depth % 2)
    return [f"depth: {spec.depth} is not 2n+2 with n of at least 1; the nearest is {nearest}"]


def complete(spec: ModelSpec, **kept: str) -> ModelSpec:
    """Fill in the width and null the fields that a chain does not have; kept: those that apply, with defaults."""
    fields: dict[str, str | None] = dict.fromkeys(("adapter", "order", "norm", "widths", "stride_in"))
    fields |= {key: getattr(spec, key) or default for key, default in kept.items()}
    return spec.model_copy(update={"width": spec.width or 16, **fields})
