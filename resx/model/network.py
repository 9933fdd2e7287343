"""Blocks and the network they make up: one block for every shortcut (He et al. 2016, section 3; 2016b).

The original order is `relu(shortcut(adapter(x), branch(x)))`; the pre-activation order of Identity Mappings
has no activation after the addition and a branch that starts with one. A block knows no shortcut or adapter
by name, so a plain network is the same code with a shortcut that leaves x out.

Plain and residual twins share the names of all common parameters: `stem.*`, `stages.S.B.branch.*`, `final.*`,
`head.*`. What is a shortcut's or an adapter's own is under `stages.S.B.shortcut.*` and
`stages.S.B.adapter.*`.

A module that needs random numbers in training (dropout on a shortcut, say) defines `draw(self, generator,
batch_size) -> Tensor` and a non-persistent buffer `noise`. The training loop sees to it that the buffer has
the shape of a draw and fills it before each step; the module itself draws nothing, so a step has static
shapes and can be replayed as a CUDA graph. In the same way a module whose `weight` follows a plan defines
`schedule(progress) -> float`, progress being the fraction of the steps that are done.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resx.model.adapters import complete_parts, compose
from resx.model.shortcuts import SHORTCUTS
from resx.registry import Registry
from resx.spec import AdapterSpec, ModelSpec, SpecError

# norm1, norm2, … exist in every branch, so a probe finds 'after the normalisation' under one name
NORMS: dict[str, type[nn.Module]] = {"batch": nn.BatchNorm2d, "none": nn.Identity}


class CReLU(nn.Module):
    """[relu(x), relu(−x)], [B, …, C, H, W] -> [B, …, 2C, H, W] (Shang et al. 2016, section 2.2)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([F.relu(x), F.relu(-x)], dim=-3)


# the module, and how many channels it makes of each
ACTIVATIONS: dict[str, tuple[type[nn.Module], int]] = {"relu": (nn.ReLU, 1), "crelu": (CReLU, 2)}


@dataclass(frozen=True)
class Family:
    """A kind of network.

    check(spec) returns what is wrong, a line each (depths that do not exist, say). complete(spec) fills in
    the family's defaults and nulls what does not apply. build(spec, input_shape, n_outputs) takes a completed
    spec.
    """

    check: Callable[[ModelSpec], list[str]]
    complete: Callable[[ModelSpec], ModelSpec]
    build: Callable[[ModelSpec, tuple[int, ...], int], nn.Module]

    def __call__(self, spec: ModelSpec, input_shape: tuple[int, ...], n_outputs: int) -> nn.Module:
        return self.build(spec, input_shape, n_outputs)


FAMILIES: Registry[Family] = Registry("family")


@dataclass(frozen=True)
class Place:
    """Where a block stands: its channels in and out, and the stride with which its maps shrink."""

    in_channels: int
    out_channels: int
    stride: int


@dataclass(frozen=True)
class Conv:
    """A convolution: channels out, kernel size, stride; padded to keep the map's size at stride 1."""

    channels: int
    kernel: int
    stride: int = 1


class Block(nn.Module):
    """`activation(shortcut(adapter(x), branch(x)))`: [B, C_in, H, W] -> [B, C_out, H/stride, W/stride].

    `activation` is the ReLU after the addition in the original order and the identity in the pre-activation
    order. `name` is the block's path in its network (`stages.0.1`). A shortcut that carries streams lies between
    blocks as [B, streams, C, H, W] and says what the branch is given of them (shortcuts/__init__.py).
    """

    name: str = ""
    channel_axis = 1

    def __init__(self, branch: nn.Module, adapter: nn.Module, shortcut: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.branch = branch
        self.adapter = adapter
        self.shortcut = shortcut
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.shortcut(self.adapter(x), self.residual(x)))

    def residual(self, x: Tensor) -> Tensor:
        """Return F: what the branch makes of what the shortcut has it read, x itself unless there are streams."""
        return self.branch(self.read(x))

    @property
    def read(self) -> Callable[[Tensor], Tensor]:
        """Return the shortcut's `read`, or what returns x as it is."""
        return getattr(self.shortcut, "read", _whole)

    @property
    def stage(self) -> int:
        """Return the number of the stage it stands in, from its name."""
        return int(self.name.split(".")[1])

    @property
    def layers(self) -> int:
        """Return the number of convolutions in its branch."""
        return _convolutions(self.branch)

    @property
    def reads_x(self) -> bool:
        """Return whether it has a shortcut; without, it is a block of a plain network."""
        return getattr(self.shortcut, "reads_x", True)

    @property
    def keeps_shape(self) -> bool:
        """Return whether its output has the shape of its input, so that it can be left out or moved."""
        convs = [part for part in self.branch.modules() if isinstance(part, nn.Conv2d)]
        return convs[0].in_channels == convs[-1].out_channels and all(conv.stride == (1, 1) for conv in convs)


def _whole(x: Tensor) -> Tensor:
    return x


class Tile(nn.Module):
    """n streams that all hold x, where streams start: [B, C, H, W] -> [B, n, C, H, W]."""

    def __init__(self, streams: int) -> None:
        super().__init__()
        self.streams = streams

    def forward(self, x: Tensor) -> Tensor:
        return x.unsqueeze(1).repeat(1, self.streams, 1, 1, 1)


class Sum(nn.Module):
    """The sum of all streams, where they end: [B, n, C, H, W] -> [B, C, H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sum(1)


class PerStream(nn.Sequential):
    """An adapter's parts, applied to every stream alike: [B, n, C_in, H, W] -> [B, n, C_out, H/stride, W/stride]."""

    def forward(self, x: Tensor) -> Tensor:
        adapted: Tensor = super().forward(x.flatten(0, 1))
        return adapted.unflatten(0, x.shape[:2])


class Network(nn.Module):
    """Stem, stages of blocks, global average pooling, linear head: images [B, C, H, W] -> [B, n_outputs].

    `final` is what the pre-activation order has after its last addition; the identity otherwise.
    """

    def __init__(self, stem: nn.Module, stages: Iterable[Iterable[Block]], final: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(nn.ModuleList(blocks) for blocks in stages)
        self.final = final
        self.head = head
        for s, stage in enumerate(self.stages):
            for b, block in enumerate(_blocks(stage)):
                block.name = f"stages.{s}.{b}"

    @property
    def blocks(self) -> list[Block]:
        """Return all blocks in order, first to last; each knows its `name`."""
        return [block for stage in self.stages for block in _blocks(stage)]

    @property
    def stem_layers(self) -> int:
        """Return the number of convolutions before the first block."""
        return _convolutions(self.stem)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.final(x).mean((2, 3)))


def stochastic_modules(network: nn.Module) -> list[tuple[str, Any]]:
    """Return (name, module) of every module that wants random numbers before a step: it has `draw` and `noise`."""
    return [(name, module) for name, module in network.named_modules() if hasattr(module, "draw")]


def scheduled_modules(network: nn.Module) -> list[tuple[str, Any]]:
    """Return (name, module) of every module whose `weight` follows a plan: it has `schedule`."""
    return [(name, module) for name, module in network.named_modules() if hasattr(module, "schedule")]


def _convolutions(part: nn.Module) -> int:
    return sum(isinstance(module, nn.Conv2d) for module in part.modules())


def _blocks(stage: nn.Module) -> Iterator[Block]:
    for block in stage.children():
        assert isinstance(block, Block)
        yield block


def basic(place: Place) -> list[Conv]:
    """Two 3×3 convolutions (figure 5, left)."""
    return [Conv(place.out_channels, 3, place.stride), Conv(place.out_channels, 3)]


def bottleneck(place: Place, stride_in: str | None) -> list[Conv]:
    """1×1 down to a quarter of the channels, 3×3, 1×1 up again (figure 5, right).

    stride_in: '1x1' has the stride in the first convolution, as the paper; '3x3' in the second, as
    torchvision.
    """
    narrow = place.out_channels // 4
    first, second = (place.stride, 1) if stride_in == "1x1" else (1, place.stride)
    return [Conv(narrow, 1, first), Conv(narrow, 3, second), Conv(place.out_channels, 1)]


def convolution(in_channels: int, conv: Conv, spec: ModelSpec) -> nn.Conv2d:
    """Return the convolution; it has a bias only where no normalisation brings its own."""
    return nn.Conv2d(
        in_channels,
        conv.channels,
        conv.kernel,
        conv.stride,
        conv.kernel // 2,
        bias=spec.norm == "none",
        padding_mode=spec.padding or "zeros",
    )


def activation(spec: ModelSpec) -> tuple[nn.Module, int]:
    """Return a new activation, and by what factor it raises the number of channels."""
    kind, copies = ACTIVATIONS[spec.activation or "relu"]
    return kind(), copies


def branch(in_channels: int, convs: Iterable[Conv], spec: ModelSpec, activated: bool) -> nn.Sequential:
    """Return conv-norm-ReLU-…-conv-norm (order 'post') or norm-ReLU-conv-…-conv ('pre').

    activated: the input comes straight from a norm and ReLU, so a 'pre' branch leaves out its own first ones
    (He et al. 2016b, appendix: the first block, which follows the stem). ReLUs are not in place, so that a
    tap on a normalisation sees its output.
    """
    assert spec.norm
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i, conv in enumerate(convs, start=1):
        if spec.order == "pre" and not (i == 1 and activated):
            layers[f"norm{i}"] = NORMS[spec.norm](in_channels)
            layers[f"relu{i}"], copies = activation(spec)
            in_channels *= copies
        if spec.order == "post" and i > 1:
            layers[f"relu{i - 1}"], copies = activation(spec)
            in_channels *= copies
        layers[f"conv{i}"] = convolution(in_channels, conv, spec)
        if spec.order == "post":
            layers[f"norm{i}"] = NORMS[spec.norm](conv.channels)
        in_channels = conv.channels
    return nn.Sequential(layers)


def stage_places(spec: ModelSpec, stem_channels: int, widths: Iterable[Iterable[int]]) -> list[list[Place]]:
    """Return the places of all blocks from their widths, stage by stage; maps halve at each new stage.

    A block reads what the stem's or the last block's activation made of its channels; in the pre-activation order
    blocks end without one.
    """
    _, copies = activation(spec)
    stages, channels = [], stem_channels * copies
    for s, stage in enumerate(widths):
        places = []
        for b, width in enumerate(stage):
            places.append(Place(channels, width, 2 if s > 0 and b == 0 else 1))
            channels = width if spec.order == "pre" else width * copies
        stages.append(places)
    return stages


def complete_blocks(spec: ModelSpec, stages: Iterable[Iterable[Place]], adapter: str) -> ModelSpec:
    """Fill in order, norm and adapter of a network of blocks; null adapter parts that no place needs.

    adapter: the family's own, as a flag would write it. A shortcut that leaves x out has none. Raises
    SpecError.
    """
    order, norm = spec.order or "post", spec.norm or "batch"
    parts = spec.adapter or ModelSpec.model_validate({"adapter": adapter}).adapter
    places = dict.fromkeys(place for stage in stages for place in stage)  # each shape once, first to last
    for channels in dict.fromkeys(place.out_channels for place in places):
        SHORTCUTS.create(spec.shortcut, channels)  # one that groups channels may not fit them all
    name, _ = SHORTCUTS.arguments(spec.shortcut)
    completed: AdapterSpec | None = None
    if parts is not None and getattr(SHORTCUTS[name], "reads_x", True):
        shapes = [(place.in_channels, place.out_channels, place.stride) for place in places]
        completed = complete_parts(parts, shapes, norm)
    return spec.model_copy(update={"order": order, "norm": norm, "adapter": completed})


def network(
    spec: ModelSpec,
    stem: nn.Sequential,
    stages: Iterable[Iterable[Place]],
    convs: Callable[[Place], list[Conv]],
    n_outputs: int,
) -> Network:
    """Put a network together from a completed spec; `convs` gives each block's branch.

    Where the shortcut carries streams, the stem ends with a `tile` and `final` begins with a `sum`.
    """
    assert spec.order
    assert spec.norm
    built: list[list[Block]] = []
    channels = 0
    shortcut: nn.Module = nn.Identity()
    for s, places in enumerate(stages):
        built.append([])
        for b, place in enumerate(places):
            shortcut = SHORTCUTS.create(spec.shortcut, place.out_channels)
            adapter = compose(spec.adapter, *astuple(place)) if spec.adapter else nn.Identity()
            if hasattr(shortcut, "read"):
                adapter = PerStream(OrderedDict(adapter.named_children()))
            after = activation(spec)[0] if spec.order == "post" else nn.Identity()
            built[s].append(Block(branch(place.in_channels, convs(place), spec, s == b == 0), adapter, shortcut, after))
            channels = place.out_channels
    last, copies = activation(spec)
    end: OrderedDict[str, nn.Module] = OrderedDict()
    if hasattr(shortcut, "read"):
        end["sum"] = Sum()
        stem.add_module("tile", Tile(getattr(shortcut, "streams", 1)))
    if spec.order == "pre":
        end |= {"norm": NORMS[spec.norm](channels), "relu": last}
    final = nn.Sequential(end) if end else nn.Identity()
    return Network(stem, built, final, nn.Linear(channels * copies, n_outputs))


def stem_layers(in_channels: int, conv: Conv, spec: ModelSpec) -> OrderedDict[str, nn.Module]:
    """Return the named layers every stem starts with: convolution, normalisation, ReLU."""
    assert spec.norm
    norm = NORMS[spec.norm](conv.channels)
    return OrderedDict(conv=convolution(in_channels, conv, spec), norm=norm, relu=activation(spec)[0])


def image_channels(family: str, input_shape: tuple[int, ...]) -> int:
    """Return C of an image shape (C, H, W). Raises SpecError where the data are not images."""
    if len(input_shape) != 3:
        shape = "×".join(map(str, input_shape))
        raise SpecError(f"family {family}: needs images [C, H, W], but the data set's inputs are {shape}")
    return input_shape[0]
