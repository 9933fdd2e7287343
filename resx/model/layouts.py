"""Layouts of public networks that are this project's own under other names: where each tensor goes, and what is known.

akamaster/pytorch_resnet_cifar10 (option A, padded on both sides), chenyaofo/pytorch-cifar-models (option B),
torchvision's ResNets, and timm's of the same depths (option B, stride in the 3×3 convolution). What was published of
them stands in paper.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from resx.model.construction import skeleton
from resx.spec import ModelSpec, SpecError


@dataclass(frozen=True)
class Layout:
    """A public network. model: the same network here; outputs: its classes; normalize: of DataSpec.

    recipe: what fields of a RunSpec can say of its training.
    """

    name: str
    model: ModelSpec
    outputs: int
    normalize: str
    recipe: Mapping[str, Any] = field(default_factory=lambda: {"steps": 0})

    @property
    def dataset(self) -> str:
        """Return the name of its own data set, empty where images come from a folder."""
        return f"cifar{self.outputs}" if self.model.family == "cifar" else "folder"

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Return the shape of an image of its own data set."""
        return (3, 32, 32) if self.model.family == "cifar" else (3, 224, 224)

    def skeleton(self, outputs: int | None = None) -> nn.Module:
        """Return this project's own network, without memory or values."""
        return skeleton(self.model, self.input_shape, outputs or self.outputs)

    def translated(self, state: Mapping[str, Tensor], outputs: int | None = None) -> dict[str, Tensor]:
        """Return their weights under this project's names. Raises SpecError with the first tensor that does not fit.

        outputs: where the head has another number of classes than the published one.
        """
        renamed = {translated_name(name): tensor for name, tensor in state.items()}
        own = self.skeleton(outputs).state_dict()
        for name in own:
            if name.endswith("num_batches_tracked"):
                renamed.setdefault(name, torch.tensor(0))  # older versions of torch did not keep it
        shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}
        present = {name: tuple(tensor.shape) for name, tensor in renamed.items()}
        for name in [*shapes, *present]:
            if shapes.get(name) != present.get(name):
                what = f"is {present.get(name, 'not there')}, not {shapes.get(name, 'there')}"
                raise SpecError(f"these are not the weights of {self.name}: {name} {what}")
        return renamed


# a tensor's name in torchvision's layout, which the others share -> here
NAMES = (
    (r"conv1\.", "stem.conv."),
    (r"bn1\.", "stem.norm."),
    (r"layer(\d+)\.(\d+)\.conv(\d)\.", "stages.{0}.{1}.branch.conv{2}."),
    (r"layer(\d+)\.(\d+)\.bn(\d)\.", "stages.{0}.{1}.branch.norm{2}."),
    (r"layer(\d+)\.(\d+)\.downsample\.0\.", "stages.{0}.{1}.adapter.grow.conv."),
    (r"layer(\d+)\.(\d+)\.downsample\.1\.", "stages.{0}.{1}.adapter.grow.norm."),
    (r"(?:fc|linear)\.", "head."),
)


def translated_name(name: str) -> str:
    """Return a tensor's name in this project's networks, or the name itself where the layouts have none."""
    for pattern, ours in NAMES:
        match = re.match(pattern, name)
        if match:
            groups = list(match.groups())
            if groups:
                groups[0] = str(int(groups[0]) - 1)  # their stages are counted from 1
            return ours.format(*groups) + name[match.end() :]
    return name


def _layouts() -> Iterator[Layout]:
    # 200 epochs of 391 batches, the rate divided by 10 after 100 and 150 (trainer.py)
    recipe = {"steps": 78_200, "batch_size": 128, "lr": 0.1, "drops": (0.5, 0.75), "augment": "crop-flip"}
    for depth in (20, 32, 44, 56, 110):
        model = ModelSpec.model_validate({"depth": depth, "adapter": "subsample+pad-both"})
        yield Layout(f"akamaster/resnet{depth}", model, 10, "imagenet", recipe)
    for data, outputs in (("cifar10", 10), ("cifar100", 100)):
        for depth in (20, 32, 44, 56):
            model = ModelSpec.model_validate({"depth": depth, "adapter": "B"})
            yield Layout(f"chenyaofo/{data}_resnet{depth}", model, outputs, data)
    for depth in (18, 34, 50, 101, 152):
        model = ModelSpec(family="imagenet", depth=depth, width=None, stride_in="3x3")
        yield Layout(f"torchvision/resnet{depth}", model, 1000, "imagenet")
        yield Layout(f"timm/resnet{depth}", model, 1000, "imagenet")


LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in _layouts()}
