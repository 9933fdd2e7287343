"""Layouts of public networks that are this project's own under other names: where each tensor goes, and what is known.

akamaster/pytorch_resnet_cifar10 (option A, padded on both sides), chenyaofo/pytorch-cifar-models (option B),
torchvision's ResNets, and timm's of the same depths (option B, stride in the 3×3 convolution). Published errors are
those of their README files, and of torchvision's weights IMAGENET1K_V1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from resx.model.construction import skeleton
from resx.spec import ModelSpec, SpecError, did_you_mean

TEST_CHOSEN = "the epoch that was kept is the best one on the test images, so its error is a little flattered"


@dataclass(frozen=True)
class Layout:
    """A public network. model: the same network here; outputs: its classes; normalize: of DataSpec.

    published: test error (%), null where none is. recipe: what fields of a RunSpec can say of its training; note: what
    else is known, in words.
    """

    name: str
    model: ModelSpec
    outputs: int
    normalize: str
    published: float | None = None
    recipe: Mapping[str, Any] = field(default_factory=lambda: {"steps": 0})
    note: str = ""

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
        given = {name: tuple(tensor.shape) for name, tensor in renamed.items()}
        for name in [*shapes, *given]:
            if shapes.get(name) != given.get(name):
                what = f"is {given.get(name, 'not there')}, not {shapes.get(name, 'there')}"
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


def _akamaster() -> Iterator[Layout]:
    errors = {20: 8.27, 32: 7.37, 44: 6.90, 56: 6.61, 110: 6.32}
    # 200 epochs of 391 batches, the rate divided by 10 after 100 and 150 (trainer.py)
    recipe = {"steps": 78_200, "batch_size": 128, "lr": 0.1, "drops": (0.5, 0.75), "augment": "crop-flip"}
    for depth, error in errors.items():
        model = ModelSpec.model_validate({"depth": depth, "adapter": "subsample+pad-both"})
        yield Layout(f"akamaster/resnet{depth}", model, 10, "imagenet", error, recipe, TEST_CHOSEN)


def _chenyaofo() -> Iterator[Layout]:
    published = {
        "cifar10": {20: 7.40, 32: 6.47, 44: 5.99, 56: 5.63},
        "cifar100": {20: 31.17, 32: 29.84, 44: 28.37, 56: 27.37},
    }
    note = f"200 epochs, batch 256, Nesterov momentum, the rate 0.1 lowered as a cosine, decay 5e-4; {TEST_CHOSEN}"
    for data, errors in published.items():
        for depth, error in errors.items():
            model, outputs = ModelSpec.model_validate({"depth": depth, "adapter": "B"}), int(data.removeprefix("cifar"))
            yield Layout(f"chenyaofo/{data}_resnet{depth}", model, outputs, data, error, note=note)


def _imagenet() -> Iterator[Layout]:
    errors = {18: 30.242, 34: 26.686, 50: 23.870, 101: 22.626, 152: 21.688}
    for depth, error in errors.items():
        model = ModelSpec(family="imagenet", depth=depth, width=None, stride_in="3x3")
        note = "published: centre crops of 224 pixels of images resized to 256, weights IMAGENET1K_V1"
        yield Layout(f"torchvision/resnet{depth}", model, 1000, "imagenet", error, note=note)
        yield Layout(f"timm/resnet{depth}", model, 1000, "imagenet")


LAYOUTS: dict[str, Layout] = {layout.name: layout for make in (_akamaster, _chenyaofo, _imagenet) for layout in make()}


def find_layout(name: str) -> Layout:
    """Return a known layout. Raises SpecError with the nearest name."""
    if name not in LAYOUTS:
        known = ", ".join(dict.fromkeys(key.partition("/")[0] for key in LAYOUTS))
        raise SpecError(f"--network: no layout '{name}'{did_you_mean(name, LAYOUTS)}; there are networks of {known}")
    return LAYOUTS[name]
