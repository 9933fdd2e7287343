"""Layouts of public networks: their weights give their outputs in this project's own networks."""

import pytest
import torch
import torchvision

from resx import model
from resx.model.layouts import LAYOUTS
from resx.spec import SpecError


def off_defaults(network):
    """Give running statistics and gains values that no default could hide."""
    stream = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.dim() == 1 and tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=stream) + 0.5)
    return network.double().eval()


def same_outputs(theirs, layout):
    network = model.build(layout.model, (3, 64, 64), layout.outputs, 0).double().eval()
    network.load_state_dict(layout.translated(theirs.state_dict()))
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(network(x), theirs(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("depth", [18, 50])
def test_torchvision(depth):
    same_outputs(off_defaults(getattr(torchvision.models, f"resnet{depth}")()), LAYOUTS[f"torchvision/resnet{depth}"])


@pytest.mark.parametrize("depth", [34, 50])
def test_timm(depth):
    timm = pytest.importorskip("timm")
    same_outputs(off_defaults(timm.create_model(f"resnet{depth}")), LAYOUTS[f"timm/resnet{depth}"])


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_takes_its_own_names(name):
    layout = LAYOUTS[name]
    own = layout.skeleton().state_dict()
    theirs = {}
    for key, tensor in own.items():
        for ours, other in (
            ("stem.conv", "conv1"),
            ("stem.norm", "bn1"),
            ("head", "fc"),
            ("branch.", ""),
            ("norm", "bn"),
            ("adapter.grow.conv", "downsample.0"),
            ("adapter.grow.bn", "downsample.1"),
        ):
            key = key.replace(ours, other)
        if key.startswith("stages."):
            _, stage, rest = key.split(".", 2)
            key = f"layer{int(stage) + 1}.{rest}"
        theirs[key] = tensor
    assert layout.translated(theirs).keys() == own.keys()


def test_other_weights_are_refused_with_the_first_tensor_that_does_not_fit():
    state = LAYOUTS["akamaster/resnet20"].skeleton().state_dict()
    with pytest.raises(SpecError, match=r"akamaster/resnet32: stages.0.3.branch.conv1.weight is not there"):
        LAYOUTS["akamaster/resnet32"].translated(state)
