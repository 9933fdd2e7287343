"""VGG-16 and VGG-19 (Simonyan & Zisserman 2015, table 1), the measure of complexity in He et al. 2016.

They are here to be counted: there is no dropout, and none of their blocks has a shortcut.
"""

from __future__ import annotations

from torch import nn

from resx.model import chain, network
from resx.model.network import FAMILIES, Family
from resx.spec import ModelSpec, SpecError

CONVS = {16: [2, 2, 3, 3, 3], 19: [2, 2, 4, 4, 4]}  # 3×3 convolutions before each of the five poolings
CHANNELS = [64, 128, 256, 512, 512]
HIDDEN = 4096


def check(spec: ModelSpec) -> list[str]:
    """Return what is wrong with depth or shortcut, and the fields that VGG does not have."""
    errors = []
    if spec.depth not in CONVS:
        errors.append(f"depth: the vgg family has no {spec.depth}; there are {', '.join(map(str, CONVS))}")
    if spec.shortcut != "none":
        errors.append(f"shortcut: the vgg family is plain; use none, not '{spec.shortcut}'")
    return [*errors, *chain.absent(spec, ("padding", "activation", "init"))]


def complete(spec: ModelSpec) -> ModelSpec:
    """Null everything but the depth: VGG has one shape, no normalisation and no adapters."""
    unused = ("width", "adapter", "order", "norm", "widths", "stride_in")
    return spec.model_copy(update=dict.fromkeys(unused))


def build(spec: ModelSpec, input_shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    """Return convolutions with ReLUs, five poolings and three linear layers, for images from 32×32 on."""
    channels, height, width = network.image_channels("vgg", input_shape), *input_shape[1:]
    if min(height, width) < 32:
        raise SpecError(f"family vgg: halves images five times, so {height}×{width} is too small; use 32×32")
    layers: list[nn.Module] = []
    for out, n in zip(CHANNELS, CONVS[spec.depth], strict=True):
        for _ in range(n):
            layers += [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU()]
            channels = out
        layers.append(nn.MaxPool2d(2))
    layers += [nn.Flatten(), nn.Linear(channels * (height // 32) * (width // 32), HIDDEN), nn.ReLU()]
    layers += [nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, n_outputs)]
    return nn.Sequential(*layers)


FAMILIES.register("vgg")(Family(check, complete, build))
