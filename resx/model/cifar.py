"""The CIFAR family: depth 6n+2, three stages of n basic blocks (He et al. 2016, section 4.2, table 6)."""

from __future__ import annotations

from torch import nn

from resx.model import network
from resx.model.network import FAMILIES, Conv, Family, Place
from resx.spec import ModelSpec

WIDTH = 16  # channels of the first stage


def check(spec: ModelSpec) -> list[str]:
    """Return what is wrong with depth or widths."""
    errors = []
    if spec.depth < 8:
        errors.append(f"depth: {spec.depth} is not 6n+2; the smallest is 8")
    elif spec.depth % 6 != 2:
        lower = spec.depth - (spec.depth - 2) % 6
        errors.append(f"depth: {spec.depth} is not 6n+2; the nearest are {lower} and {lower + 6}")
    if spec.widths == "alternating" and (spec.width or WIDTH) % 2:
        errors.append(f"width: alternating widths are w and 3w/2, so it must be even, not {spec.width}")
    return errors


def places(spec: ModelSpec) -> list[list[Place]]:
    """Return where the blocks stand: w, 2w and 4w channels, n blocks each.

    With alternating widths every other block has half as many channels again (16↔24, 32↔48, 64↔96), so that no
    shortcut fits: growing and shrinking take turns inside a stage, and where a stage begins channels double.
    """
    width, n = spec.width or WIDTH, (spec.depth - 2) // 6
    widths = [[width * 2**stage for _ in range(n)] for stage in range(3)]
    if spec.widths == "alternating":
        # the stem is narrow; a stage begins as the last one ended, narrow or wide, at twice its channels
        wide = [[stage * (n - 1) + block for block in range(n)] for stage in range(3)]
        widths = [
            [channels * 3 // 2 if step % 2 == 0 else channels for channels, step in zip(*stage, strict=True)]
            for stage in zip(widths, wide, strict=True)
        ]
    return network.stage_places(spec, width, widths)


def complete(spec: ModelSpec) -> ModelSpec:
    """Fill in width and option A; the stride is always in the first 3×3 convolution, so stride_in is null."""
    spec = spec.model_copy(update={"width": spec.width or WIDTH, "stride_in": None})
    return network.complete_blocks(spec, places(spec), adapter="A")


def build(spec: ModelSpec, input_shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    """Return the network for images [C, H, W]; the maps are H, H/2 and H/4 wide."""
    stages = places(spec)
    conv = Conv(spec.width or WIDTH, 3)
    stem = network.stem_layers(network.image_channels("cifar", input_shape), conv, spec)
    return network.network(spec, nn.Sequential(stem), stages, network.basic, n_outputs)


FAMILIES.register("cifar")(Family(check, complete, build))
