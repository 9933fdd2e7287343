"""Adapters: how a shortcut gets from one shape to another (He et al. 2016, section 3.3, options A, B and C).

An adapter runs a spatial part where maps shrink, then a part that grows or shrinks the number of channels.
Option A is subsample + pad; B is subsample + project, which equals a strided 1×1 convolution; C projects on
every shortcut.

To add a part, register a factory `(in_channels, out_channels, stride) -> nn.Module` for [B, C, H, W]. A
spatial part is given the block's channels and stride and keeps in_channels, unless its module says otherwise
in `out_channels` (space-to-depth, say); a channel part is given stride 1 and maps in_channels to
out_channels. Keyword-only arguments are set in a spec; one called `norm` (a bool) is turned off in networks
without normalisation.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from resx.registry import Registry
from resx.spec import AdapterSpec, SpecError

SPATIAL: Registry[Callable[..., nn.Module]] = Registry("spatial adapter")
GROW: Registry[Callable[..., nn.Module]] = Registry("growing adapter")
SHRINK: Registry[Callable[..., nn.Module]] = Registry("shrinking adapter")
PARTS = {"spatial": SPATIAL, "grow": GROW, "shrink": SHRINK}


def compose(parts: AdapterSpec, in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """Return one block's adapter: empty (the identity) where nothing mismatches, unless `where` is 'all'.

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
    if text is None:
        change = f"a shortcut goes from {in_channels} to {out_channels} channels at stride {stride}"
        raise SpecError(f"adapter: {change}, so it needs a {registry.kind}: {', '.join(registry)}")
    return registry.create(text, in_channels, out_channels, stride)


def complete_parts(parts: AdapterSpec, shapes: Iterable[tuple[int, int, int]], norm: str) -> AdapterSpec:
    """Fill in the arguments of the parts that these (in, out, stride) need; null the rest."""
    used = {name for shape in shapes for name, _ in compose(parts, *shape).named_children()}
    texts = {key: getattr(parts, key) if key in used else None for key in PARTS}
    return parts.model_copy(
        update={key: text and complete_part(PARTS[key], text, norm) for key, text in texts.items()}
    )


def complete_part(registry: Registry[Any], text: str, norm: str) -> str:
    """Fill in a part's arguments; without normalisation in the network, its `norm` is off too."""
    name, values = registry.arguments(text)
    if norm == "none" and "norm" in values:
        values["norm"] = False
        text = f"{name}:" + ",".join(f"{key}={value}" for key, value in values.items())
    return registry.complete(text)


@SPATIAL.register("subsample")
class Subsample(nn.Module):
    """x[:, :, ::stride, ::stride], every stride-th pixel (options A and B). No parameters."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, :: self.stride, :: self.stride]


@GROW.register("pad")
class Pad(nn.Module):
    """[x, 0]: zero channels at the end (option A). No parameters."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.extra = out_channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, 0, 0, 0, 0, self.extra))


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
class Chop(nn.Module):
    """x[:, :out_channels]: the last channels are dropped. No parameters."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        return x[:, : self.out_channels]
