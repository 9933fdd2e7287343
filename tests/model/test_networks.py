"""Networks: shapes of the family, blocks, orders, what a spec is completed to, and what is refused."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from resx import model
from resx.model.network import Block, CReLU
from resx.spec import ModelSpec, SpecError

DIGITS = ((1, 8, 8), 10)


def spec_of(**fields: object) -> ModelSpec:
    return ModelSpec.model_validate(fields)


def randomise(network: nn.Module) -> nn.Module:
    """Give every tensor, running statistics too, a value that no default could hide."""
    stream = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=stream) * 0.5 + 0.1)
    return network.double().eval()


@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("order", ["post", "pre"])
@pytest.mark.parametrize("shortcut", ["none", "identity", "scaled:alpha=0.25"])
def test_a_network_equals_one_written_by_hand(shortcut: str, order: str, norm: str) -> None:
    network = model.build(spec_of(depth=14, width=4, shortcut=shortcut, order=order, norm=norm), *DIGITS, 0)
    state = randomise(network).state_dict()
    alpha = {"none": 0.0, "identity": 1.0, "scaled:alpha=0.25": 0.25}[shortcut]

    def normed(x: torch.Tensor, name: str) -> torch.Tensor:
        if norm == "none":
            return x
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        return F.batch_norm(x, mean, var, state[f"{name}.weight"], state[f"{name}.bias"])

    def conv(x: torch.Tensor, name: str, stride: int) -> torch.Tensor:
        bias = state[f"{name}.bias"] if norm == "none" else None
        assert bias is not None or f"{name}.bias" not in state
        return F.conv2d(x, state[f"{name}.weight"], bias, stride, padding=1)

    x = images = torch.rand(2, 1, 8, 8, dtype=torch.float64)
    x = F.relu(normed(conv(x, "stem.conv", 1), "stem.norm"))
    for s in range(3):
        for b in range(2):
            name, stride = f"stages.{s}.{b}.branch", 2 if s and not b else 1
            if order == "post":
                f = F.relu(normed(conv(x, f"{name}.conv1", stride), f"{name}.norm1"))
                f = normed(conv(f, f"{name}.conv2", 1), f"{name}.norm2")
            else:  # the first block follows the stem's own ReLU
                f = x if s == b == 0 else F.relu(normed(x, f"{name}.norm1"))
                f = conv(f, f"{name}.conv1", stride)
                f = conv(F.relu(normed(f, f"{name}.norm2")), f"{name}.conv2", 1)
            skip = torch.zeros_like(f)
            skip[:, : x.shape[1]] = x[:, :, ::stride, ::stride]
            x = alpha * skip + f
            x = F.relu(x) if order == "post" else x
    if order == "pre":
        x = F.relu(normed(x, "final.norm"))
    expected = x.mean((2, 3)) @ state["head.weight"].T + state["head.bias"]
    with torch.no_grad():
        torch.testing.assert_close(network(images), expected, rtol=1e-12, atol=1e-12)


def test_blocks_are_flat_and_named() -> None:
    network = model.build(spec_of(depth=20), *DIGITS, 0)
    assert len(network.blocks) == 9
    for block in network.blocks:
        assert isinstance(block, Block)
        assert network.get_submodule(block.name) is block


def test_a_block_without_shortcut_is_its_branch() -> None:
    network = model.build(spec_of(depth=8, shortcut="none"), *DIGITS, 0).eval()
    block = network.blocks[1]
    x = torch.randn(2, 16, 8, 8)
    torch.testing.assert_close(block(x), F.relu(block.branch(x)), rtol=0, atol=0)
    assert not [name for name in network.state_dict() if "adapter" in name or "shortcut" in name]
    nn.init.zeros_(block.branch.norm2.weight)
    assert block(x).count_nonzero() == 0


@pytest.mark.parametrize("order", ["post", "pre"])
def test_no_normalisation_means_none_anywhere(order: str) -> None:
    network = model.build(spec_of(depth=8, norm="none", adapter="C", order=order), *DIGITS, 0)
    assert not [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]


def test_option_c_projects_every_shortcut_and_b_only_the_mismatches() -> None:
    for letter, expected in (("A", 0), ("B", 2), ("C", 9)):
        network = model.build(spec_of(depth=20, adapter=letter), *DIGITS, 0)
        projections = [block.name for block in network.blocks if any(True for _ in block.adapter.parameters())]
        assert len(projections) == expected


def channels(network: nn.Module) -> list[tuple[int, int]]:
    convs = [(block.branch.conv1, block.branch.conv2) for block in network.blocks]
    return [(first.in_channels, second.out_channels) for first, second in convs]


@pytest.mark.parametrize("depth", [8, 14, 20, 26, 56])
@pytest.mark.parametrize("shortcut", ["none", "identity"])
def test_alternating_widths_change_at_every_block(depth: int, shortcut: str) -> None:
    network = model.build(spec_of(depth=depth, widths="alternating", shortcut=shortcut), *DIGITS, 0)
    shapes, n = channels(network), (depth - 2) // 6
    assert len(shapes) == 3 * n
    assert all(wide == narrow * 3 // 2 or wide == 2 * narrow for narrow, wide in map(sorted, shapes))
    for stage, widths in enumerate([(16, 24), (32, 48), (64, 96)]):
        inside = shapes[stage * n : (stage + 1) * n]
        assert {out for _, out in inside} <= set(widths)
        assert all(first != second for (_, first), (_, second) in itertools.pairwise(inside))
    assert shapes[0] == (16, 24)
    assert network(torch.randn(2, 1, 8, 8)).shape == (2, 10)


def test_alternating_widths_of_20_layers() -> None:
    network = model.build(spec_of(depth=20, widths="alternating"), *DIGITS, 0)
    outs = [out for _, out in channels(network)]
    assert outs == [24, 16, 24, 48, 32, 48, 96, 64, 96]
    assert str(model.complete(spec_of(depth=20, widths="alternating")).adapter) == "subsample+pad+chop"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"depth": 20}, {"adapter": "subsample+pad", "stride_in": None, "width": 16}),
        ({"depth": 20, "adapter": "B"}, {"adapter": "subsample+project:norm=true"}),
        ({"depth": 20, "adapter": "B", "norm": "none"}, {"adapter": "subsample+project:norm=false"}),
        ({"depth": 20, "adapter": "C"}, {"adapter": "subsample+project:norm=true@all"}),
        ({"depth": 20, "adapter": "C", "shortcut": "none"}, {"adapter": "None"}),
        ({"depth": 20, "shortcut": "scaled"}, {"shortcut": "scaled:alpha=0.5"}),
        ({"depth": 20, "stride_in": "3x3"}, {"stride_in": None}),
        ({"width": None, "order": None, "norm": None}, {"width": 16, "order": "post", "norm": "batch"}),
        ({"family": "imagenet", "depth": 34}, {"adapter": "subsample+project:norm=true", "stride_in": None}),
        ({"family": "imagenet", "depth": 50}, {"stride_in": "1x1", "width": None}),
        ({"family": "imagenet", "depth": 50, "stride_in": "3x3"}, {"stride_in": "3x3"}),
        ({"family": "vgg", "depth": 16, "shortcut": "none"}, {"order": None, "norm": None, "width": None}),
    ],
)  # fmt: skip
def test_a_spec_is_completed(fields: dict, expected: dict) -> None:
    completed = model.complete(spec_of(**fields))
    shown = {key: getattr(completed, key) for key in expected}
    assert {key: str(value) if key == "adapter" else value for key, value in shown.items()} == expected
    assert model.complete(completed) == completed
    assert ModelSpec.model_validate(completed.model_dump()) == completed


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"depth": 57}, ["57 is not 6n+2; the nearest are 56 and 62"]),
        ({"depth": 2}, ["2 is not 6n+2; the smallest is 8"]),
        ({"family": "imagenet", "depth": 20}, ["there are 18, 34, 50, 101, 152"]),
        ({"family": "imagenet", "depth": 18, "width": 32}, ["width"]),
        ({"family": "vgg", "depth": 16}, ["shortcut: the vgg family is plain"]),
        ({"family": "cifr", "shortcut": "identitty"}, ["did you mean 'cifar'", "did you mean 'identity'"]),
        ({"depth": 57, "shortcut": "scaled:beta=1"}, ["no argument 'beta'", "6n+2"]),
        ({"shortcut": "scaled:alpha=much"}, ["alpha must be a number"]),
        ({"adapter": "subsampel+chop"}, ["did you mean 'subsample'", "growing adapter: no 'chop'"]),
        ({"adapter": "subsample+chop"}, ["no 'chop', which is a shrinking adapter; a shortcut goes from 16 to 32"]),
        ({"adapter": "subsample+pad+pad"}, ["shrinking adapter: no 'pad', which is a growing adapter"]),
        ({"adapter": "-+pad"}, ["from 16 to 32 channels at stride 2, so it needs a spatial adapter"]),
        ({"adapter": "space-to-depth:then=chpo+pad"}, ["shrinking adapter: no 'chpo'"]),
        ({"width": 15, "widths": "alternating"}, ["it must be even, not 15"]),
    ],
)
def test_every_mistake_is_named(fields: dict, words: list[str]) -> None:
    errors = model.check_names({"depth": 20, **fields})
    assert len(errors) == len(words)
    for word in words:
        assert any(word in line for line in errors)
    with pytest.raises(SpecError):
        model.complete(spec_of(**{"depth": 20, **fields}))


def test_what_is_wrong_in_form_is_left_to_the_spec() -> None:
    assert model.check_names({"depth": "deep", "adapter": "pad"}) == []


def test_a_mismatch_without_a_part_says_which_part() -> None:
    with pytest.raises(SpecError, match=r"from 16 to 32 channels at stride 2.*spatial adapter.*subsample"):
        model.complete(spec_of(adapter="-+pad"))


def test_inputs_that_are_no_images_are_refused() -> None:
    with pytest.raises(SpecError, match="needs images"):
        model.build(spec_of(depth=8), (64,), 10, 0)


@pytest.mark.parametrize("order", ["post", "pre"])
@pytest.mark.parametrize("shortcut", ["none", "identity"])
def test_circular_padding_commutes_with_rolls(shortcut: str, order: str) -> None:
    x = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for padding, commutes in (("circular", True), ("zeros", False)):
        spec = spec_of(depth=14, width=4, shortcut=shortcut, order=order, padding=padding)
        network = randomise(model.build(spec, (1, 16, 16), 10, 0))
        maps = nn.Sequential(network.stem, *network.blocks, network.final)
        with torch.no_grad():  # the last maps are a quarter of the size
            rolled, plain = maps(x.roll((4, 8), (2, 3))), maps(x).roll((1, 2), (2, 3))
        assert torch.allclose(rolled, plain, rtol=1e-10) == commutes


@pytest.mark.parametrize("order", ["post", "pre"])
@pytest.mark.parametrize("shortcut", ["none", "identity"])
def test_a_crelu_doubles_what_is_read_and_leaves_widths_alone(shortcut: str, order: str) -> None:
    network = model.build(spec_of(depth=14, width=4, shortcut=shortcut, order=order, activation="crelu"), *DIGITS, 0)
    convolutions = [part for part in network.modules() if isinstance(part, nn.Conv2d)]
    assert [conv.out_channels for conv in convolutions] == [4] * 5 + [8] * 4 + [16] * 4
    assert [conv.in_channels for conv in convolutions] == [1] + [8] * 5 + [16] * 4 + [32] * 3
    assert network.head.in_features == 32
    assert network(torch.randn(2, 1, 8, 8)).shape == (2, 10)


def test_a_crelu_is_the_relu_of_x_and_of_its_negative() -> None:
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(CReLU()(x), torch.cat([x.clamp(min=0), (-x).clamp(min=0)], 1))


@pytest.mark.parametrize("family", ["mlp", "conv1d", "rnn", "transformer", "vgg"])
@pytest.mark.parametrize("fields", [{"padding": "circular"}, {"activation": "crelu"}, {"init": "dirac"}])
def test_families_without_these_fields_refuse_them(family: str, fields: dict[str, str]) -> None:
    with pytest.raises(SpecError, match=f"{next(iter(fields))}: the {family} family has none"):
        model.complete(spec_of(family=family, depth=16, shortcut="none", **fields))


def test_defaults_by_name_are_the_same_network() -> None:
    named = spec_of(padding="zeros", activation="relu", init="he")
    assert model.complete(named) == model.complete(spec_of())
