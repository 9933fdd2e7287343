"""Families that are chains of blocks: shapes, pairing, formulas written by hand, what is refused."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from resx import model
from resx.data.maps import linear_map
from resx.spec import ModelSpec, SpecError

# family -> (depth, input shape, outputs)
CASES = {
    "mapping": (3, (8,), 8),
    "mlp": (8, (1, 4, 4), 5),
    "conv1d": (8, (6, 3), 5),
    "rnn": (4, (6, 3), 5),
    "rnn-time": (1, (6, 3), 5),
    "transformer": (4, (6, 3), 5),
}


def spec_of(family, **fields):
    return ModelSpec.model_validate({"family": family, "depth": CASES[family][0], "width": 8, **fields})


def network(family, seed=0, **fields):
    return model.build(spec_of(family, **fields), *CASES[family][1:], seed)


def inputs(family, batch=5):
    return torch.randn(batch, *CASES[family][1], generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("shortcut", ["none", "identity", "known:map=rotation-40", "linear", "scaled"])
@pytest.mark.parametrize("family", CASES)
def test_outputs_have_their_shape_and_every_parameter_a_gradient(family, shortcut):
    built = network(family, shortcut=shortcut)
    out = built(inputs(family))
    assert out.shape == (5, CASES[family][2])
    out.square().sum().backward()
    without = [name for name, weight in built.named_parameters() if weight.grad is None]
    assert not without
    assert model.count(built, *CASES[family][1:]).parameters == sum(p.numel() for p in built.parameters())


@pytest.mark.parametrize("other", ["identity", "linear", "known"])
@pytest.mark.parametrize("family", CASES)
def test_twins_share_every_weight_of_the_plain_network(family, other):
    plain, twin = network(family, shortcut="none").state_dict(), network(family, shortcut=other).state_dict()
    assert plain.keys() <= twin.keys()
    assert all(torch.equal(plain[name], twin[name]) for name in plain)
    assert any(not torch.equal(plain[name], weight) for name, weight in network(family, 1).state_dict().items())


@pytest.mark.parametrize("family", CASES)
def test_building_does_not_move_the_global_random_state(family):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = network(family).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second = network(family).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("family", CASES)
def test_completing_twice_changes_nothing(family):
    completed = model.complete(spec_of(family))
    assert model.complete(completed) == completed
    assert completed.adapter is None


@pytest.mark.parametrize("family", [family for family in CASES if family != "rnn-time"])
def test_blocks_are_named_and_a_plain_block_is_its_branch(family):
    built = network(family, shortcut="none").eval()
    blocks = list(built.blocks)
    assert blocks
    for block in blocks:
        assert built.get_submodule(block.name) is block
    shape = {"mapping": (2, 8), "mlp": (2, 8)}.get(family, (2, 8, 6))
    x = torch.randn(shape)
    torch.testing.assert_close(blocks[0](x), blocks[0].activation(blocks[0].branch(x)))


def test_a_mapping_layer_is_its_formula_and_positively_homogeneous():
    built = network("mapping", shortcut="known:map=rotation-30,away=20").double()
    matrix = linear_map("rotation-30", 8, away=20)
    x = inputs("mapping").double()
    expected = x
    for block in built.blocks:
        first, second = block.branch.linear1.weight, block.branch.linear2.weight
        expected = expected @ matrix.T.float().double() + F.relu(expected @ first.T) @ second.T
    torch.testing.assert_close(built(x), expected)
    torch.testing.assert_close(built(3 * x), 3 * built(x))  # no biases: the kinks stay at zero
    assert not [name for name, _ in built.named_parameters() if "bias" in name]


@pytest.mark.parametrize("shape", [(2, 8), (2, 8, 3), (2, 8, 3, 4)])
def test_a_learned_linear_map_starts_at_the_identity_or_at_nothing(shape):
    x, fx = torch.randn(shape), torch.randn(shape)
    torch.testing.assert_close(model.SHORTCUTS.create("linear", 8)(x, fx), x + fx)
    torch.testing.assert_close(model.SHORTCUTS.create("linear:start=0", 8)(x, fx), fx)


@pytest.mark.parametrize("text", ["known:map=permutation", "linear"])
def test_a_linear_shortcut_mixes_the_channels_alone(text):
    shortcut = model.SHORTCUTS.create(text, 8)
    matrix = linear_map("permutation", 8).float()
    with torch.no_grad():
        shortcut.matrix.copy_(matrix)
    x = torch.randn(2, 8, 3, 4)
    expected = F.conv2d(x, matrix[:, :, None, None])
    torch.testing.assert_close(shortcut(x, torch.zeros_like(x)), expected)


def test_a_known_map_is_the_same_for_every_seed_and_not_learned():
    first, second = (network("mapping", seed, shortcut="known:map=permutation") for seed in (0, 1))
    expected = linear_map("permutation", 8).float()
    for built in (first, second):
        assert all(torch.equal(block.shortcut.matrix, expected) for block in built.blocks)
        assert not [name for name, _ in built.named_parameters() if "shortcut" in name]


@pytest.mark.parametrize("shortcut", ["none", "identity"])
def test_a_recurrent_layer_is_its_formula(shortcut):
    built = network("rnn-time", shortcut=shortcut).double()
    layer = built.stem.layer
    x = inputs("rnn-time").double()
    state = torch.zeros(5, 8, dtype=torch.float64)
    for step in range(6):
        new = torch.tanh(x[:, step] @ layer.inward.T + state @ layer.recurrent.T + layer.bias)
        state = new + state if shortcut == "identity" else new
    torch.testing.assert_close(built(x), built.head.linear(built.head.norm(state)))


def test_a_plain_recurrent_layer_is_torchs():
    built = network("rnn-time", shortcut="none")
    layer, theirs = built.stem.layer, nn.RNN(3, 8, batch_first=True)
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(layer.inward)
        theirs.weight_hh_l0.copy_(layer.recurrent)
        theirs.bias_ih_l0.copy_(layer.bias)
        theirs.bias_hh_l0.zero_()
        expected = theirs(inputs("rnn"))[0].transpose(1, 2)
    torch.testing.assert_close(layer(inputs("rnn").transpose(1, 2)), expected)


def test_attention_is_torchs():
    built = network("transformer")
    ours, theirs = built.blocks[0].branch.attention, nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.qkv.weight)
        theirs.in_proj_bias.copy_(ours.qkv.bias)
        theirs.out_proj.load_state_dict(ours.out.state_dict())
        x = torch.randn(5, 6, 8)
        torch.testing.assert_close(ours(x), theirs(x, x, x)[0])


@pytest.mark.parametrize("order", ["post", "pre"])
def test_a_residual_encoder_layer_is_torchs(order):
    built = network("transformer", shortcut="identity", order=order)
    attention, perceptron = list(built.blocks)[:2]
    theirs = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, norm_first=order == "pre")
    norms = [block.activation if order == "post" else block.branch.norm for block in (attention, perceptron)]
    with torch.no_grad():
        theirs.self_attn.in_proj_weight.copy_(attention.branch.attention.qkv.weight)
        theirs.self_attn.in_proj_bias.copy_(attention.branch.attention.qkv.bias)
        theirs.self_attn.out_proj.load_state_dict(attention.branch.attention.out.state_dict())
        theirs.linear1.load_state_dict(perceptron.branch.linear1.state_dict())
        theirs.linear2.load_state_dict(perceptron.branch.linear2.state_dict())
        for own, norm in zip((theirs.norm1, theirs.norm2), norms, strict=True):
            own.load_state_dict(norm.state_dict())
        x = torch.randn(5, 6, 8)
        found = perceptron(attention(x.transpose(1, 2))).transpose(1, 2)
        torch.testing.assert_close(found, theirs(x), rtol=1e-4, atol=1e-5)


def test_a_convolution_sees_as_many_steps_as_stated():
    built = model.build(spec_of("conv1d", norm="none", depth=4), (30, 1), 2, 0).double()
    x = torch.zeros(1, 30, 1, dtype=torch.float64, requires_grad=True)
    features = built.blocks[0](built.stem(x + 0.5))
    features[0, :, 15].square().sum().backward()
    seen = x.grad[0, :, 0].nonzero().flatten()
    assert int(seen.max() - seen.min()) + 1 == 2 * 4 - 1


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"family": "mlp", "depth": 7}, "the nearest is 8"),
        ({"family": "conv1d", "depth": 2}, "the nearest is 4"),
        ({"family": "rnn", "depth": 1}, "use 2 or more"),
        ({"family": "rnn-time", "depth": 2}, "one layer"),
        ({"family": "transformer", "depth": 3}, "use 4"),
        ({"family": "transformer", "depth": 2, "width": 7}, "heads"),
        ({"family": "mlp", "depth": 4, "adapter": "A"}, "adapter"),
        ({"family": "mapping", "depth": 1, "shortcut": "known:map=rotat-3"}, "did you mean 'rotation'"),
        ({"family": "mapping", "depth": 1, "shortcut": "highway"}, r"'highway:bias=-6.0': does not take \[2, 8\]"),
    ],
)
def test_what_is_wrong_is_one_line(fields, word):
    with pytest.raises(SpecError, match=word) as caught:
        model.build(ModelSpec.model_validate({"width": 8, **fields}), (8,), 8, 0)
    assert len(caught.value.errors) == 1


@pytest.mark.parametrize("family", ["conv1d", "rnn", "rnn-time", "transformer"])
def test_images_are_no_sequences(family):
    with pytest.raises(SpecError, match="needs sequences"):
        model.build(spec_of(family), (1, 8, 8), 5, 0)


def test_a_branch_that_could_hold_any_linear_map_is_refused():
    with pytest.raises(SpecError, match="fewer than 16"):
        model.build(spec_of("mapping", width=16), (8,), 8, 0)
    with pytest.raises(SpecError, match="one size"):
        model.build(spec_of("mapping"), (8,), 4, 0)


def test_a_shortcut_of_another_shape_is_named(monkeypatch):
    class Cut(nn.Module):
        def __init__(self, channels):
            super().__init__()

        def forward(self, x, fx):
            return fx[:, 1:]

    monkeypatch.setitem(model.SHORTCUTS._entries, "cut", Cut)
    with pytest.raises(SpecError, match=r"shortcut 'cut'.*\[2, 7, 4\].*\[2, 8, 4\]"):
        model.complete(spec_of("conv1d", shortcut="cut"))
