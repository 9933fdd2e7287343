"""The ImageNet family: 18, 34 (basic blocks), 50, 101, 152 (bottlenecks) layers (He et al. 2016, table 1).

With `stride_in` 3x3 and option B these are torchvision's own ResNets; with shortcut none, plain-18 and
plain-34.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from resx.model import network
from resx.model.network import FAMILIES, Conv, Family, Place
from resx.spec import ModelSpec

BLOCKS = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3], 50: [3, 4, 6, 3], 101: [3, 4, 23, 3], 152: [3, 8, 36, 3]}
STEM_CHANNELS = 64


def is_bottleneck(spec: ModelSpec) -> bool:
    """Return whether a network of this depth has bottleneck blocks."""
    return spec.depth >= 50


def check(spec: ModelSpec) -> list[str]:
    """Return what is wrong with depth or widths."""
    errors = []
    if spec.depth not in BLOCKS:
        depths = ", ".join(map(str, BLOCKS))
        errors.append(f"depth: the imagenet family has no {spec.depth}; there are {depths}")
    if spec.width not in (None, ModelSpec.model_fields["width"].default):
        errors.append(f"width: the imagenet family has fixed widths, not {spec.width}; leave it out")
    if spec.widths is not None:
        errors.append(f"widths: the imagenet family has no {spec.widths} widths; leave it out")
    return errors


def places(spec: ModelSpec) -> list[list[Place]]:
    """Return where the blocks stand: 64 to 512 channels, four times as many out of a bottleneck."""
    first = STEM_CHANNELS * (4 if is_bottleneck(spec) else 1)
    widths = [[first * 2**stage] * n for stage, n in enumerate(BLOCKS[spec.depth])]
    return network.stage_places(spec, STEM_CHANNELS, widths)


def complete(spec: ModelSpec) -> ModelSpec:
    """Fill in option B and the paper's stride_in; null the width, and stride_in without bottlenecks."""
    stride_in = (spec.stride_in or "1x1") if is_bottleneck(spec) else None
    spec = spec.model_copy(update={"width": None, "stride_in": stride_in})
    return network.complete_blocks(spec, places(spec), adapter="B")


def build(spec: ModelSpec, input_shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    """Return the network for images [C, H, W]; the last stage's maps have 1/32 of their size."""
    stem = network.stem_layers(network.image_channels("imagenet", input_shape), Conv(STEM_CHANNELS, 7, 2), spec)
    stem["pool"] = nn.MaxPool2d(3, 2, 1)
    convs = partial(network.bottleneck, stride_in=spec.stride_in) if is_bottleneck(spec) else network.basic
    return network.network(spec, nn.Sequential(stem), places(spec), convs, n_outputs)


FAMILIES.register("imagenet")(Family(check, complete, build))
