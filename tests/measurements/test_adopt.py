"""Any network as blocks: each kind behaves as said, and what is measured is what the native path measures."""

import copy

import pandas as pd
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from resx import model
from resx.measurements.adopt import MEASUREMENTS, adopt, measure
from resx.measurements.lesions import lesioned, lesions
from resx.measurements.taps import passages
from resx.measurements.traced import Traced
from resx.model import Network
from resx.spec import ModelSpec, SpecError

torch.manual_seed(0)
IMAGES = torch.randn(4, 3, 32, 32)
LABELS = torch.arange(4)


def off_defaults(network):
    """Give running statistics, gains and scales values that no default could hide; eval mode."""
    stream = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.dim() == 1 and tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=stream) + 0.5)
    return network.eval()


def torchvision_resnet(depth):
    return off_defaults(getattr(torchvision.models, f"resnet{depth}")(num_classes=4))


class Scaled(nn.Module):
    """A user's block: in place, a branch that is scaled, and an activation of its own."""

    def __init__(self, channels):
        super().__init__()
        self.first, self.second = nn.Conv2d(channels, channels, 3, padding=1), nn.Conv2d(channels, channels, 1)
        self.gain = nn.Parameter(torch.full((channels, 1, 1), 0.3))

    def forward(self, x):
        fx = self.second(F.gelu(self.first(x))) * self.gain
        fx += x
        return F.silu(fx)


class Mine(nn.Module):
    """A user's network of two classes with three ways to add: in its own forward, torch.add, FloatFunctional."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.block = Scaled(6)
        self.side = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(inplace=True), nn.Dropout(0.5))
        self.narrow, self.wide = nn.Conv2d(6, 8, 1, stride=2), nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.last, self.plus = nn.Conv2d(8, 8, 3, padding=1), torch.ao.nn.quantized.FloatFunctional()
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        x = self.block(self.stem(x))
        x = torch.add(x, self.side(x))
        x = F.relu(self.narrow(x) + self.wide(x).tanh(), inplace=True)
        x = self.plus.add(x, self.last(x))
        return self.head(x.mean((2, 3)))


class PreActivation(nn.Module):
    """Pre-activation blocks, with and without a projection that starts from the activated input."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.blocks = nn.Sequential(PreBlock(4, 4), PreBlock(4, 8), PreBlock(8, 8))
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).relu().mean((2, 3)))


class PreBlock(nn.Module):
    def __init__(self, into, out):
        super().__init__()
        self.norm, self.first, self.second = (
            nn.BatchNorm2d(into),
            nn.Conv2d(into, out, 3, padding=1),
            nn.Conv2d(out, out, 1),
        )
        self.project = nn.Conv2d(into, out, 1) if into != out else None

    def forward(self, x):
        ready = F.relu(self.norm(x))
        shortcut = x if self.project is None else self.project(ready)
        x = self.second(F.relu(self.first(ready)))
        x += shortcut
        return x


def sequence_model():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.1)
    return off_defaults(nn.Sequential(nn.TransformerEncoder(layer, 3), nn.Flatten(), nn.Linear(40, 4)))


# --- what is found -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("depth", "blocks"), [(18, 8), (34, 16), (50, 16), (101, 33), (152, 50)])
def test_torchvision_is_a_known_layout_and_is_found_by_tracing_too(depth, blocks):
    theirs = torchvision_resnet(depth)
    known = adopt(theirs, IMAGES)
    assert isinstance(known.network, Network) and len(known.blocks) == blocks
    assert known.blocks[0].how == f"layout torchvision/resnet{depth}"
    traced = adopt(theirs, IMAGES, layouts=False)
    assert isinstance(traced.network, Traced) and len(traced.blocks) == blocks
    assert [block.shortcut for block in traced.blocks[:2]] == (
        ["identity", "identity"] if depth < 50 else ["conv2d+batch_norm", "identity"]
    )
    assert max(block.difference for block in traced.blocks) < 1e-6
    assert not traced.refused


def test_a_known_layout_with_another_forward_is_traced():
    theirs = torchvision_resnet(18)
    theirs.layer2[1].relu = nn.Tanh()
    assert isinstance(adopt(theirs, IMAGES).network, Traced)


def test_timm():
    timm = pytest.importorskip("timm")
    resnet = off_defaults(timm.create_model("resnet18", num_classes=4))
    assert adopt(resnet, IMAGES).blocks[0].how.startswith("layout t")  # timm's and torchvision's are the same network
    deep_stem = off_defaults(timm.create_model("resnet18d", num_classes=4, drop_path_rate=0.2))
    assert [block.name for block in adopt(deep_stem, IMAGES).blocks][:2] == ["layer1.0", "layer1.1"]
    vit = off_defaults(
        timm.create_model(
            "vit_tiny_patch16_224", img_size=32, depth=3, num_classes=4, init_values=0.1, drop_path_rate=0.2
        )
    )
    blocks = adopt(vit, IMAGES).blocks
    assert [block.name for block in blocks][:3] == ["blocks.0:1", "blocks.0:2", "blocks.1:1"]
    assert {(block.into, block.out, block.shortcut) for block in blocks} == {((4, 5, 192), (4, 5, 192), "identity")}
    assert {block.channel_axis for block in blocks} == {2}


def test_a_user_s_own_network():
    adopted = adopt(Mine().eval(), IMAGES)
    assert [(block.name, block.shortcut) for block in adopted.blocks] == [
        ("block", "identity"), ("model:1", "identity"), ("model:2", "conv2d"), ("model:3", "identity")
    ]  # fmt: skip
    assert [block.out[1:] for block in adopted.blocks] == [(6, 32, 32), (6, 32, 32), (8, 16, 16), (8, 16, 16)]
    assert max(block.difference for block in adopted.blocks) < 1e-6


def test_pre_activation():
    blocks = adopt(off_defaults(PreActivation()), IMAGES).blocks
    assert [(b.name, b.shortcut) for b in blocks] == [
        ("blocks.0", "identity"), ("blocks.1", "conv2d"), ("blocks.2", "identity")
    ]  # fmt: skip


def test_densenet_is_refused_since_it_concatenates():
    with pytest.raises(SpecError, match="joined by concatenation"):
        adopt(torchvision.models.densenet121().eval(), IMAGES)


def test_vgg_has_no_blocks_but_layers_that_can_be_left_out_by_name():
    layers = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["A"])
    vgg = nn.Sequential(layers, nn.Flatten(), nn.Linear(512, 4)).eval()
    with pytest.raises(SpecError, match=r"no residual blocks: nothing is added.* such as 0\.1"):
        adopt(vgg, IMAGES)
    adopted = adopt(vgg, IMAGES, blocks=["0.8", "0.13"])
    table = measure("lesions", adopted, [(IMAGES, LABELS)], counts=(), pairs=0)
    assert list(table["blocks"].unique()) == ["", "0.8", "0.13"]
    removed = nn.Sequential(*layers[:8], *layers[9:13], *layers[14:], *vgg[1:])
    with torch.no_grad(), lesioned(adopted.network, ["0.8", "0.13"]):
        assert torch.equal(adopted.network(IMAGES), removed(IMAGES))
    with pytest.raises(SpecError, match="does not have the shape of its input"):
        adopt(vgg, IMAGES, blocks=["0.0"])


def test_names_and_patterns():
    net = torchvision_resnet(18)
    assert [b.name for b in adopt(net, IMAGES, blocks=["layer[12].*"]).blocks] == [
        "layer1.0", "layer1.1", "layer2.0", "layer2.1"
    ]  # fmt: skip
    assert {b.how for b in adopt(net, IMAGES, blocks=["layer4.1"]).blocks} == {"named"}
    with pytest.raises(SpecError, match=r"did you mean 'layer4\.1'"):
        adopt(net, IMAGES, blocks=["layer4.l"])
    sequences, x = sequence_model(), torch.randn(2, 5, 8)
    assert [b.name for b in adopt(sequences, x, blocks=["0.layers.*:2"]).blocks] == [
        f"0.layers.{k}:2" for k in range(3)
    ]
    with pytest.raises(SpecError, match=r"no module '0\.layers\.0:3'"):
        adopt(sequences, x, blocks=["0.layers.0", "0.layers.0:3"])
    with pytest.raises(SpecError, match="give example="):
        adopt(Mine())
    with pytest.raises(SpecError, match="fails on the example"):
        adopt(Mine(), torch.randn(2, 5, 8, 8))


def test_ambiguous_sums_are_listed_and_not_taken():
    class Tie(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.block = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), Scaled(3)

        def forward(self, x):
            return self.block(self.a(x) + self.b(x)).mean((2, 3))

    adopted = adopt(Tie().eval(), IMAGES)
    assert [block.name for block in adopted.blocks] == ["block"]
    assert "cannot be distinguished" in adopted.refused[0].reason


# --- what is measured ----------------------------------------------------------------------------------------------


@pytest.fixture(params=["post", "pre"])
def native(request):
    spec = ModelSpec.model_validate({"depth": 14, "width": 4, "order": request.param})
    return off_defaults(model.build(spec, (3, 16, 16), 4, 0))


DATA = [(torch.randn(6, 3, 16, 16), torch.arange(6) % 4), (torch.randn(5, 3, 16, 16), torch.arange(5) % 4)]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", MEASUREMENTS)
def test_a_traced_network_measures_exactly_what_the_native_path_does(native, name, training):
    traced = adopt(native, DATA[0][0], layouts=False)
    settings = {
        "lesions": {"counts": (1, 2), "draws": 2, "pairs": 2},
        "landscape": {"points": 3, "grid": 3, "lines": 1},
    }.get(name, {})
    own, other = (measure(name, net, DATA, **settings) for net in (adopt(native.train(training), DATA[0][0]), traced))
    assert len(own)
    if name in ("paths", "spectrum"):  # summed in another order
        pd.testing.assert_frame_equal(own, other, rtol=1e-4, atol=1e-6)
    else:
        pd.testing.assert_frame_equal(own, other, check_exact=True)


@pytest.mark.parametrize("make", [Mine, PreActivation, sequence_model, lambda: torchvision_resnet(18)])
def test_every_measurement_leaves_the_model_as_it_was(make):
    net = make()
    x = torch.randn(4, 5, 8) if isinstance(net, nn.Sequential) else IMAGES
    y = torch.arange(4) % 2
    for training in (False, True):
        net.train(training)
        before = copy.deepcopy(net.state_dict())
        random = torch.get_rng_state()
        adopted = adopt(net, x, layouts=False)
        for name in MEASUREMENTS.keys() - {"spectrum", "landscape"}:
            kwargs = {"counts": (1,), "draws": 1, "pairs": 1} if name == "lesions" else {"images": 4}
            table = measure(name, adopted, [(x, y)], **({} if name == "linear" else kwargs))
            assert len(table) and (name == "lesions" or table.select_dtypes("number").notna().any().all())
        assert all(module.training is training for module in net.modules() if not list(module.children()))
        assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
        assert torch.equal(random, torch.get_rng_state())
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_a_lesion_is_the_branch_at_zero():
    net = Mine().eval()
    adopted = adopt(net, IMAGES)
    x = F.silu(net.stem(IMAGES))  # the first block without its branch
    x = torch.add(x, net.side(x))
    x = F.relu(net.narrow(x))  # the third one without its branch
    expected = net.head((x + net.last(x)).mean((2, 3)))
    with torch.no_grad(), lesioned(adopted.network, ["block", "model:2"]):
        torch.testing.assert_close(adopted.network(IMAGES), expected)
    assert torch.equal(adopted.network(IMAGES), net(IMAGES))


def test_parts_add_up_and_gradients_go_one_way_each():
    net = off_defaults(PreActivation())
    adopted = adopt(net, IMAGES)
    with passages(adopted.network) as passed:
        adopted.network(IMAGES.requires_grad_())
    for passage in passed.values():
        torch.testing.assert_close(passage.adapted + passage.branched, passage.total)
        ones = torch.autograd.grad(passage.total.sum(), [passage.adapted, passage.branched], retain_graph=True)
        assert all(torch.equal(one, torch.ones_like(one)) for one in ones)


def test_blocks_that_cannot_stand_elsewhere_do_not_move():
    table = lesions(adopt(Mine().eval(), IMAGES).network, [(IMAGES, LABELS % 2)], [IMAGES], "classification")
    assert set(table[table["lesion"] == "random"]["blocks"]) == {"block"}  # the one that keeps shapes by itself
    assert table[table["lesion"] == "permute"]["blocks"].eq("").all()  # there is none to exchange it with


def test_a_name_that_no_measurement_has():
    with pytest.raises(SpecError, match="did you mean 'lesions'"):
        measure("lesion", Mine().eval(), [(IMAGES, LABELS)])
