"""The ImageNet family with stride_in 3x3 gives torchvision's outputs from torchvision's weights."""

import pytest
import torch
import torchvision

from resx import model
from resx.spec import ModelSpec


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_same_weights_same_outputs(depth: int) -> None:
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, f"resnet{depth}")(num_classes=10).eval()
    for module in theirs.modules():  # running statistics and gains that no default could hide
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.0)
    spec = ModelSpec(family="imagenet", depth=depth, width=None, stride_in="3x3")
    ours = model.build(spec, (3, 64, 64), 10, 0).eval()
    given, own = theirs.state_dict(), ours.state_dict()
    assert [tensor.shape for tensor in given.values()] == [tensor.shape for tensor in own.values()]
    ours.load_state_dict(dict(zip(own, given.values(), strict=True)))
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours.double()(images), theirs.double()(images), rtol=1e-10, atol=1e-10)


def test_the_papers_bottleneck_strides_first() -> None:
    network = model.build(ModelSpec(family="imagenet", depth=50, width=None), (3, 64, 64), 10, 0)
    branch = network.blocks[3].branch
    assert [branch.conv1.stride, branch.conv2.stride] == [(2, 2), (1, 1)]
