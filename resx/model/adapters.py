"""Adapters: how a shortcut gets from one shape to another (He et al. 2016, section 3.3, options A, B and C).

An adapter runs a spatial part where maps shrink, then a part that grows or shrinks the number of channels.
Option A is subsample + pad; B is subsample + project, which equals a strided 1×1 convolution; C projects on
every shortcut. In the pre-activation order these options are the same: a projection reads the block's raw input and
is followed by its batch normalisation, whereas He et al. 2016b and timm project the input after norm and ReLU and do
not normalise the result.

To add a part, register a factory `(in_channels, out_channels, stride) -> nn.Module` for [B, C, H, W]. A
spatial part is given the block's channels and stride and keeps in_channels, unless its module says otherwise
in `out_channels` (space-to-depth, say); a channel part is given stride 1 and maps in_channels to
out_channels. Keyword-only arguments are set in a spec; one called `norm` (a bool) is turned off in networks
without normalisation.

Where channel counts do not divide, a part treats the first channels: growing 16 to 24 repeats channels 0 to
7, shrinking 24 to 16 folds channels 16 to 23 onto 0 to 7.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from math import sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resx.model.shortcuts import GeneratorFor, orthonormal
from resx.registry import Registry
from resx.spec import AdapterSpec, SpecError, first_line

SPATIAL: Registry[Callable[..., nn.Module]] = Registry("spatial adapter", positional=3)
GROW: Registry[Callable[..., nn.Module]] = Registry("growing adapter", positional=3)
SHRINK: Registry[Callable[..., nn.Module]] = Registry("shrinking adapter", positional=3)
PARTS = {"spatial": SPATIAL, "grow": GROW, "shrink": SHRINK}


def compose(parts: AdapterSpec, in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """Return one block's adapter: empty (the identity) where shapes match, unless `where` is 'all'.

    Its children are named `spatial`, `grow` and `shrink`. Raises SpecError where a part is needed and none is
    named.
    """
    adapter: OrderedDict[str, nn.Module] = OrderedDict()
    channels = in_channels
    if stride != 1:
        adapter["spatial"] = _create(parts, "spatial", in_channels, out_channels, stride)
        channels = getattr(adapter["spatial"], "out_channels", in_channels)
    if channels > out_channels:
        adapter["shrink"] = _create(parts, "shrink", channels, out_channels, 1)
    elif channels < out_channels or parts.where == "all":
        adapter["grow"] = _create(parts, "grow", channels, out_channels, 1)
    return nn.Sequential(adapter)


def _create(parts: AdapterSpec, key: str, in_channels: int, out_channels: int, stride: int) -> nn.Module:
    text, registry = getattr(parts, key), PARTS[key]
    change = f"a shortcut goes from {in_channels} to {out_channels} channels at stride {stride}"
    if text is None:
        raise SpecError(f"adapter: {change}, so it needs a {registry.kind}: {', '.join(registry)}")
    if other := misplaced(key, text):
        raise SpecError(f"{other}; {change}, so it needs one of {', '.join(registry)}")
    return registry.create(text, in_channels, out_channels, stride)


def misplaced(key: str, text: str) -> str | None:
    """Say what is wrong where a part is named in a place that another kind of part belongs to."""
    name, registry = text.partition(":")[0].strip(), PARTS[key]
    kinds = [other.kind for other in PARTS.values() if name in other]
    return None if name in registry or not kinds else f"{registry.kind}: no '{name}', which is a {kinds[0]}"


def complete_parts(parts: AdapterSpec, shapes: Iterable[tuple[int, int, int]], norm: str) -> AdapterSpec:
    """Fill in the arguments of the parts that these (in, out, stride) need; null the rest.

    Each part is tried on each shape, without memory. Raises SpecError where one is missing, fails, or returns
    another shape than it has to.
    """
    used: set[str] = set()
    for shape in shapes:
        with torch.device("meta"):
            adapter = compose(parts, *shape)
            _check_shapes(parts, adapter, *shape)
        used |= {name for name, _ in adapter.named_children()}
    texts = {key: getattr(parts, key) if key in used else None for key in PARTS}
    return parts.model_copy(update={key: text and complete_part(PARTS[key], text, norm) for key, text in texts.items()})


def _check_shapes(parts: AdapterSpec, adapter: nn.Sequential, in_channels: int, out_channels: int, stride: int) -> None:
    x = torch.empty(1, in_channels, 8, 8)
    for key, module in adapter.eval().named_children():
        spatial = key == "spatial"
        channels = getattr(module, "out_channels", in_channels) if spatial else out_channels
        expected = (1, channels, *(side // (stride if spatial else 1) for side in x.shape[2:]))
        which = f"{PARTS[key].kind} '{getattr(parts, key)}': from {in_channels} to {out_channels} channels"
        which += f" at stride {stride}"
        try:
            returned = module(x)
        except Exception as error:  # a user's module may fail in any way; the user needs its name and the reason
            raise SpecError(f"{which}, it fails on {_shown(x.shape)} ({first_line(error)})") from error
        if tuple(returned.shape) != expected:
            shapes = f"{_shown(x.shape)} became {_shown(returned.shape)}, not {_shown(expected)}"
            raise SpecError(f"{which}, {shapes}")
        x = returned


def _shown(shape: Iterable[int]) -> str:
    return "×".join(map(str, shape))


def complete_part(registry: Registry[Any], text: str, norm: str) -> str:
    """Fill in a part's arguments; without normalisation in the network, its `norm` is off too."""
    name, values = registry.arguments(text)
    if norm == "none" and "norm" in values:
        values["norm"] = False
        text = f"{name}:" + ",".join(f"{key}={value}" for key, value in values.items())
    return registry.complete(text)


class Fixed(nn.Module):
    """A part without parameters, which knows its channels, in and out, and its stride."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.channels = (in_channels, out_channels)
        self.stride = stride


@SPATIAL.register("subsample")
class Subsample(Fixed):
    """x[:, :, ::stride, ::stride], every stride-th pixel (options A and B). No parameters."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, :: self.stride, :: self.stride]


@SPATIAL.register("average")
def average(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Mean over stride×stride windows (ResNet-D's shortcut, He et al. 2019, section 4.3). No parameters.

    [B, C, H, W] -> [B, C, ⌈H/stride⌉, ⌈W/stride⌉]; at an odd edge the mean is over the pixels that are there.
    """
    return nn.AvgPool2d(stride, ceil_mode=True)


@SPATIAL.register("max")
def largest(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Largest value of stride×stride windows, the one part that is not linear. No parameters.

    [B, C, H, W] -> [B, C, ⌈H/stride⌉, ⌈W/stride⌉] (Duta et al. 2020, iResNet, section 3.2, for shortcuts).
    """
    return nn.MaxPool2d(stride, ceil_mode=True)


@SPATIAL.register("space-to-depth")
class SpaceToDepth(nn.Module):
    """The stride² pixels of each window as channels, then a shrinking part `then`. Its parameters, or none.

    [B, C, H, W] -> [B, stride²·C, ⌈H/stride⌉, ⌈W/stride⌉] -> [B, C_out, …]; channels in the order pixel (0, 0) of
    all channels, (0, 1) of all, … (Shi et al. 2016, section 2.2, the inverse of their shuffle). Odd maps are
    padded with zeros. From C to 2C at stride 2, `then=chop` keeps the upper two pixels, a fold joins them with
    the lower two. Where C_out is more than stride²·C, the growing part follows.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, *, then: str = "chop") -> None:
        super().__init__()
        self.stride = stride
        deep = stride**2 * in_channels
        self.out_channels = min(deep, out_channels)
        self.then = SHRINK.create(then, deep, out_channels, 1) if deep > out_channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        stride = self.stride
        x = F.pad(x, (0, -x.shape[3] % stride, 0, -x.shape[2] % stride))
        pixels = [x[:, :, i::stride, j::stride] for i in range(stride) for j in range(stride)]
        return self.then(torch.cat(pixels, dim=1))


@GROW.register("pad")
class Pad(Fixed):
    """[x, 0]: zero channels at the end (option A). No parameters."""

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, 0, 0, 0, 0, self.channels[1] - self.channels[0]))


@GROW.register("pad-both")
class PadBoth(Fixed):
    """[0, x, 0]: zero channels on both sides, the odd one at the end. No parameters.

    [B, C_in, H, W] -> [B, C_out, H, W], x in the middle (Han et al. 2017, PyramidNet, section 3.2, pads the end).
    """

    def forward(self, x: Tensor) -> Tensor:
        extra = self.channels[1] - self.channels[0]
        return F.pad(x, (0, 0, 0, 0, extra // 2, extra - extra // 2))


class Repeat(nn.Module):
    """[g·x, g·x, …] cut at out_channels, with a constant gain g per channel of the result."""

    gain: Tensor | None

    def __init__(self, in_channels: int, out_channels: int, gain: Tensor | None = None) -> None:
        super().__init__()
        self.widths = [min(in_channels, out_channels - k) for k in range(0, out_channels, in_channels)]
        self.register_buffer("gain", None if gain is None else gain.view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        repeated = torch.cat([x[:, :width] for width in self.widths], dim=1)
        return repeated if self.gain is None else repeated * self.gain


def _copies(few: int, many: int) -> list[int]:
    """Return how many of `many` channels belong to each of `few`, when channel k belongs to k mod few."""
    return [len(range(k, many, few)) for k in range(few)]


@GROW.register("copy")
def copy(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """[x, x]: the first channels again, as many as are missing. No parameters.

    [B, C_in, H, W] -> [B, C_out, H, W]; channel k of the result is channel k mod C_in of x. It makes x longer:
    a copied channel counts twice in its norm. This project's own, after 'copy' in the question.
    """
    return Repeat(in_channels, out_channels)


@GROW.register("copy-scaled")
def copy_scaled(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """[x, x]/√2: a channel and its copy each scaled by 1/√2, so that the norm is kept. No parameters.

    [B, C_in, H, W] -> [B, C_out, H, W]; channels without a copy stay as they are, m copies have 1/√m. Followed
    by the shrinking part fold-scaled, its transpose, it is the identity. This project's own.
    """
    copies = _copies(in_channels, out_channels)
    gain = torch.tensor([1 / sqrt(copies[k % in_channels]) for k in range(out_channels)])
    return Repeat(in_channels, out_channels, gain)


@GROW.register("copy-negated")
def copy_negated(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """[x, −x]: the first channels again, negated, as many as are missing. No parameters.

    [B, C_in, H, W] -> [B, C_out, H, W]; further copies alternate in sign (Shang et al. 2016, CReLU, section 2.2).
    In the original order the ReLU after the addition cuts −x off wherever the branch does not outweigh it.
    """
    gain = torch.tensor([(-1.0) ** (k // in_channels) for k in range(out_channels)])
    return Repeat(in_channels, out_channels, gain)


@GROW.register("orthogonal")
class Orthogonal(nn.Module):
    """Q x with fixed random Q, QᵀQ = 1: a rotation into the larger space that keeps every norm. No parameters.

    [B, C_in, H, W] -> [B, C_out, H, W]; Q is drawn from the seed and never trained (Orhan & Pitkow 2018, section 2,
    use square ones). It costs the multiply-adds of a 1×1 convolution.
    """

    weight: Tensor

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(out_channels, in_channels, 1, 1))

    def initialise(self, generator_for: GeneratorFor) -> None:
        self.weight.copy_(orthonormal(self.weight.shape[:2], generator_for("weight")).view_as(self.weight))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight)


@GROW.register("project")
@SHRINK.register("project")
def project(in_channels: int, out_channels: int, stride: int, *, norm: bool = True) -> nn.Module:
    """BN(W x), a learned 1×1 convolution (options B and C).

    in·out + 2·out parameters with normalisation; in·out + out without, where the convolution has a bias.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv"] = nn.Conv2d(in_channels, out_channels, 1, stride, bias=not norm)
    if norm:
        layers["norm"] = nn.BatchNorm2d(out_channels)
    return nn.Sequential(layers)


@SHRINK.register("chop")
class Chop(Fixed):
    """x[:, :out_channels]: the last channels are dropped. No parameters."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, : self.channels[1]]


class Fold(nn.Module):
    """g·(x[:, :out] + x[:, out:2·out] + …), the last piece short, with a constant gain g per channel."""

    gain: Tensor | None

    def __init__(self, in_channels: int, out_channels: int, gain: list[float] | None = None) -> None:
        super().__init__()
        self.channels = (in_channels, out_channels)
        self.register_buffer("gain", None if gain is None else torch.tensor(gain).view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        wide, narrow = self.channels
        folded = x[:, :narrow]
        for start in range(narrow, wide, narrow):
            piece = x[:, start : start + narrow]
            folded = folded + F.pad(piece, (0, 0, 0, 0, 0, narrow - piece.shape[1]))
        return folded if self.gain is None else folded * self.gain


@SHRINK.register("fold-sum")
def fold_sum(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """x[:, :out] + x[:, out:]: the last channels are added onto the first. No parameters.

    [B, C_in, H, W] -> [B, C_out, H, W]; keeps the sum over channels, and the expected norm of channels that are
    uncorrelated. After a copy it doubles what was copied. This project's own, after 'sum' in the question.
    """
    return Fold(in_channels, out_channels)


@SHRINK.register("fold-average")
def fold_average(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """(x[:, :out] + x[:, out:])/2: channels that meet are averaged, the others stay. No parameters.

    [B, C_in, H, W] -> [B, C_out, H, W]; 1/m where m channels meet. After a copy it is the identity; it quarters
    the variance that uncorrelated channels bring in, which fold-sum keeps. This project's own.
    """
    return Fold(in_channels, out_channels, [1 / m for m in _copies(out_channels, in_channels)])


@SHRINK.register("fold-scaled")
def fold_scaled(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """(x[:, :out] + x[:, out:])/√2: as fold-sum, scaled to keep the norm of channels that are copies. No parameters.

    [B, C_in, H, W] -> [B, C_out, H, W]; 1/√m where m channels meet, so its rows are orthonormal: it lengthens
    nothing, and keeps the norm of everything that copy-scaled, its transpose, puts out. No linear map to fewer
    channels keeps every norm. This project's own.
    """
    return Fold(in_channels, out_channels, [1 / sqrt(m) for m in _copies(out_channels, in_channels)])


@SPATIAL.register("zero")
@GROW.register("zero")
@SHRINK.register("zero")
class Zero(Fixed):
    """0: no shortcut at the mismatch, the control for every other part. No parameters; x is not read.

    [B, C_in, H, W] -> zeros: as a spatial part [B, C_in, ⌈H/stride⌉, ⌈W/stride⌉], as a channel part [B, C_out, H, W].
    """

    def forward(self, x: Tensor) -> Tensor:
        channels = self.channels[0 if self.stride != 1 else 1]
        sides = [-(-side // self.stride) for side in x.shape[2:]]
        return x.new_zeros(len(x), *sides, channels).permute(0, 3, 1, 2)  # channels_last
