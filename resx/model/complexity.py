"""Parameters and multiply-adds, by torch's own flop counter on the meta device (He et al. 2016, table 1).

As in the paper, a multiply-add is one of a convolution or a linear layer; additions, normalisation,
activations and pooling do not count. The flop counter counts two per multiply-add.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from resx.model.construction import skeleton
from resx.registry import state as registry_state
from resx.spec import ModelSpec

IMAGENET_INPUT, IMAGENET_CLASSES = (3, 224, 224), 1000
CIFAR_INPUT, CIFAR_CLASSES = (3, 32, 32), 10


@dataclass(frozen=True)
class Complexity:
    """Learned parameters, and multiply-adds for one input."""

    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class Reference:
    """A network at the input size of the paper's data set."""

    name: str
    spec: ModelSpec
    input_shape: tuple[int, ...]
    n_outputs: int


def named(spec: ModelSpec) -> Reference:
    """Return a network under the paper's name, for CIFAR-10 images or, in other families, ImageNet's."""
    kind = {"none": "plain", "identity": "ResNet"}.get(spec.shortcut, spec.shortcut)
    if spec.family == "vgg":
        kind = "VGG"
    if spec.family == "cifar":
        return Reference(f"{kind}-{spec.depth} (CIFAR)", spec, CIFAR_INPUT, CIFAR_CLASSES)
    return Reference(f"{kind}-{spec.depth}", spec, IMAGENET_INPUT, IMAGENET_CLASSES)


def references() -> list[Reference]:
    """Return the paper's networks: the CIFAR family, the ImageNet ResNets and plain networks, and VGG."""
    groups = [
        ("cifar", "identity", (20, 32, 44, 56, 110, 1202)),
        ("cifar", "none", (20, 32, 44, 56, 110)),
        ("imagenet", "identity", (18, 34, 50, 101, 152)),
        ("imagenet", "none", (18, 34)),
        ("vgg", "none", (16, 19)),
    ]
    return [
        named(ModelSpec(family=family, depth=depth, width=None, shortcut=shortcut))
        for family, shortcut, depths in groups
        for depth in depths
    ]


def count(model: nn.Module | ModelSpec, input_shape: tuple[int, ...], n_outputs: int) -> Complexity:
    """Count a network, or the one that a spec describes, for one input of this shape in eval mode.

    n_outputs is needed for a spec; a module has its own. The module is left as it was. Raises SpecError.
    """
    if isinstance(model, ModelSpec):
        return _count_spec(model, tuple(input_shape), n_outputs, registry_state())
    return _count(copy.deepcopy(model).to("meta"), input_shape)


@cache  # every seed of a network asks; a name may be registered anew
def _count_spec(spec: ModelSpec, input_shape: tuple[int, ...], n_outputs: int, state: int) -> Complexity:
    return _count(skeleton(spec, input_shape, n_outputs), input_shape)


def _count(meta: nn.Module, input_shape: tuple[int, ...]) -> Complexity:
    parameters = sum(parameter.numel() for parameter in meta.parameters())
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        meta.eval()(torch.empty(1, *input_shape, device="meta"))
    return Complexity(parameters, counter.get_total_flops() // 2)
