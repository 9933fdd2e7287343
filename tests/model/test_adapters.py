"""Every registered part of an adapter: shape, gradient, defining identity."""

import pytest
import torch
import torch.nn.functional as F

from resx import model
from resx.model import GROW, SHRINK, SPATIAL
from resx.model.adapters import PARTS, compose
from resx.model.init import initialise
from resx.spec import AdapterSpec, ModelSpec, SpecError

THENS = [f"space-to-depth:then={name}" for name in SHRINK]
CASES = [
    *(("spatial", name, (16, 24, 2)) for name in [*SPATIAL, *THENS]),
    *(("spatial", name, (4, 24, 2)) for name in SPATIAL),
    *(("grow", name, (16, 24, 1)) for name in GROW),
    *(("grow", name, (16, 32, 2)) for name in GROW),
    *(("grow", name, (16, 40, 1)) for name in GROW),
    *(("shrink", name, (24, 16, 1)) for name in SHRINK),
    *(("shrink", name, (40, 16, 2)) for name in SHRINK),
]
LEARNED = {"project"}  # every other part has no parameters


def part(key: str, text: str, *shape: int) -> torch.nn.Module:
    """Return one part, its fixed maps drawn, in float64."""
    module = PARTS[key].create(text, *shape)
    initialise(module, 0)
    return module.double()


def inputs(channels: int, side: int = 4) -> torch.Tensor:
    return torch.randn(3, channels, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def matrix(key: str, name: str, wide: int, narrow: int) -> torch.Tensor:
    """Return a channel part as a matrix [out, in]."""
    shape = (narrow, wide) if key == "grow" else (wide, narrow)
    unit = torch.eye(shape[0], dtype=torch.float64)[:, :, None, None]
    return part(key, name, *shape, 1)(unit)[:, :, 0, 0].T


@pytest.mark.parametrize(("part", "name", "shape"), CASES)
def test_shape_and_gradient(part: str, name: str, shape: tuple[int, int, int]) -> None:
    """Where maps shrink or channels change, and where both do; only the control lets no gradient through."""
    parts = AdapterSpec().model_copy(update={part: name})
    adapter = compose(parts, *shape)
    initialise(adapter, 0)
    x = torch.randn(4, shape[0], 8, 8, requires_grad=True)
    out = adapter(x)
    assert out.shape == (4, shape[1], 8 // shape[2], 8 // shape[2])
    if "zero" in name:
        assert out.count_nonzero() == 0
        return
    (out * torch.randn_like(out)).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    learned = [parameter.grad for parameter in adapter.parameters()]
    assert bool(learned) == any(word in name for word in LEARNED)
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in learned)


@pytest.mark.parametrize(("registry", "name"), [(r, name) for r in (SPATIAL, GROW, SHRINK) for name in r])
def test_documented_with_a_formula_on_one_line(registry, name: str) -> None:
    assert registry.summary(name)


def test_nothing_stands_where_nothing_mismatches() -> None:
    x = torch.randn(1, 16, 4, 4)
    assert compose(AdapterSpec(), 16, 16, 1)(x) is x


def test_option_a_pads_zeros_at_the_end() -> None:
    x = torch.randn(2, 16, 8, 8)
    out = compose(AdapterSpec(), 16, 32, 2)(x)
    assert torch.equal(out[:, :16], x[:, :, ::2, ::2])
    assert out[:, 16:].count_nonzero() == 0


@pytest.mark.parametrize("part", ["grow", "shrink"])
def test_option_b_is_a_strided_1x1_convolution(part: str) -> None:
    shape = (16, 32, 2) if part == "grow" else (32, 16, 2)
    adapter = compose(AdapterSpec(grow="project", shrink="project"), *shape)
    initialise(adapter, 3)
    x = torch.randn(2, shape[0], 8, 8)
    projection = adapter.get_submodule(part)
    expected = projection.norm(F.conv2d(x, projection.conv.weight, stride=2))
    torch.testing.assert_close(adapter(x), expected)
    assert sum(p.numel() for p in adapter.parameters()) == 16 * 32 + 2 * shape[1]


def test_projection_without_normalisation_has_a_bias() -> None:
    adapter = compose(AdapterSpec(grow="project:norm=false"), 16, 32, 1)
    assert sum(p.numel() for p in adapter.parameters()) == 16 * 32 + 32


def test_chop_of_a_pad_is_the_input() -> None:
    x = torch.randn(2, 16, 4, 4)
    assert torch.equal(compose(AdapterSpec(), 24, 16, 1)(compose(AdapterSpec(), 16, 24, 1)(x)), x)


@pytest.mark.parametrize("name", [name for name in GROW if name not in LEARNED])
@pytest.mark.parametrize("wide", [24, 32, 40])
def test_what_growing_does_to_norms(name: str, wide: int) -> None:
    """Columns orthonormal: the norm of every x is kept. Copies count twice; a zero part keeps nothing."""
    gram = matrix("grow", name, wide, 16).T @ matrix("grow", name, wide, 16)
    copies = torch.tensor([float(len(range(k, wide, 16))) for k in range(16)], dtype=torch.float64)
    diagonal = {"copy": copies, "copy-negated": copies, "zero": 0 * copies}.get(name, torch.ones_like(copies))
    torch.testing.assert_close(gram, diagonal.diag(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in SHRINK if name not in LEARNED])
@pytest.mark.parametrize("wide", [24, 32, 40])
def test_what_shrinking_does_to_channels(name: str, wide: int) -> None:
    fold = torch.zeros(16, wide, dtype=torch.float64)
    fold[torch.arange(wide) % 16, torch.arange(wide)] = 1
    meet = fold.sum(1, keepdim=True)
    expected = {
        "chop": torch.eye(16, wide, dtype=torch.float64),
        "fold-sum": fold,
        "fold-average": fold / meet,
        "fold-scaled": fold / meet.sqrt(),
        "zero": 0 * fold,
    }[name]
    torch.testing.assert_close(matrix("shrink", name, wide, 16), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("wide", [24, 32, 40])
@pytest.mark.parametrize(
    ("grow", "shrink", "doubles"),
    [
        ("pad", "chop", False),
        ("copy", "chop", False),
        ("copy-negated", "chop", False),
        ("copy", "fold-average", False),
        ("copy-scaled", "fold-scaled", False),
        ("pad", "fold-sum", False),
        ("copy", "fold-sum", True),  # each channel times its number of copies
    ],
)
def test_growing_then_shrinking(grow: str, shrink: str, doubles: bool, wide: int) -> None:
    """The composed shortcut of two blocks: the identity, but for copy then fold-sum, which doubles."""
    x = inputs(16)
    number = torch.tensor([len(range(k, wide, 16)) for k in range(16)])[:, None, None]
    composed = part("shrink", shrink, wide, 16, 1)(part("grow", grow, 16, wide, 1)(x))
    torch.testing.assert_close(composed, x * number if doubles else x, rtol=1e-6, atol=1e-6)


def test_fold_sum_keeps_the_sum_over_channels() -> None:
    x = inputs(24)
    torch.testing.assert_close(part("shrink", "fold-sum", 24, 16, 1)(x).sum(1), x.sum(1))


def test_fold_scaled_is_the_transpose_of_copy_scaled() -> None:
    torch.testing.assert_close(matrix("shrink", "fold-scaled", 24, 16), matrix("grow", "copy-scaled", 24, 16).T)


def test_partial_copies_take_the_first_channels() -> None:
    x = inputs(16)
    for name, factor in (("copy", 1.0), ("copy-negated", -1.0), ("copy-scaled", 0.5**0.5)):
        out = part("grow", name, 16, 24, 1)(x)
        torch.testing.assert_close(out[:, 16:], factor * x[:, :8], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(out[:, 8:16], x[:, 8:16])


def test_pad_both_puts_the_input_in_the_middle() -> None:
    x = inputs(16)
    out = part("grow", "pad-both", 16, 25, 1)(x)
    assert torch.equal(out[:, 4:20], x)
    assert out[:, :4].count_nonzero() == out[:, 20:].count_nonzero() == 0


def test_the_orthogonal_map_comes_from_the_seed() -> None:
    first, again, other = (GROW.create("orthogonal", 4, 6, 1) for _ in range(3))
    for module, seed in ((first, 0), (again, 0), (other, 1)):
        initialise(module, seed, "stages.0.0.adapter.grow.")
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)


def test_space_to_depth_is_invertible() -> None:
    x = inputs(4, side=6)
    deep = part("spatial", "space-to-depth", 4, 16, 2)(x)
    ordered = deep.unflatten(1, (4, 4)).transpose(1, 2).flatten(1, 2)  # as pixel_shuffle wants it
    assert torch.equal(F.pixel_shuffle(ordered, 2), x)


def test_space_to_depth_then_a_shrinking_part() -> None:
    """From C to 2C: chop keeps the upper pixels of a window, a fold joins them with those below."""
    x = inputs(4)
    upper, lower = (torch.cat([x[:, :, i::2, ::2], x[:, :, i::2, 1::2]], dim=1) for i in (0, 1))
    for then, expected in (("chop", upper), ("fold-sum", upper + lower), ("fold-average", (upper + lower) / 2)):
        torch.testing.assert_close(part("spatial", f"space-to-depth:then={then}", 4, 8, 2)(x), expected)


@pytest.mark.parametrize("name", list(SPATIAL))
def test_odd_maps_shrink_as_a_strided_convolution_does(name: str) -> None:
    x = inputs(4, side=5)
    assert part("spatial", name, 4, 8, 2)(x).shape[2:] == (3, 3)


def test_pooling() -> None:
    x = torch.arange(16.0, dtype=torch.float64).view(1, 1, 4, 4)
    assert part("spatial", "average", 1, 2, 2)(x).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert part("spatial", "max", 1, 2, 2)(x).flatten().tolist() == [5, 7, 13, 15]
    odd = part("spatial", "average", 1, 2, 2)(x[:, :, :3, :3])
    assert odd.flatten().tolist() == [2.5, 4, 8.5, 10]  # at the edge, the mean of the pixels that are there


def test_a_part_of_the_wrong_kind_is_refused_with_the_shapes() -> None:
    with pytest.raises(SpecError, match=r"'chop', which is a shrinking adapter; .* from 16 to 24 channels"):
        compose(AdapterSpec(grow="chop"), 16, 24, 1)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (torch.nn.Identity, r"'mine': from 16 to 32 channels at stride 2, 1×16×4×4 became 1×16×4×4, not 1×32×4×4"),
        (lambda: torch.nn.Conv2d(7, 32, 1), r"'mine': from 16 to 32 channels at stride 2, it fails on 1×16×4×4"),
    ],
)
def test_a_users_part_that_does_not_fit_is_refused_before_training(module, words: str) -> None:
    GROW.register("mine")(lambda in_channels, out_channels, stride: module())
    try:
        with pytest.raises(SpecError, match=words):
            model.complete(ModelSpec(depth=8, adapter="subsample+mine"))
    finally:
        del GROW._entries["mine"]


def test_a_spatial_part_may_change_the_channels() -> None:
    """A part that says so in `out_channels` is followed by what the block still needs, with no other code."""

    @SPATIAL.register("fold-pixels")
    class FoldPixels(torch.nn.PixelUnshuffle):
        def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
            super().__init__(stride)
            self.out_channels = in_channels * stride**2

    try:
        adapter = compose(AdapterSpec(spatial="fold-pixels"), 16, 32, 2)
    finally:
        del SPATIAL._entries["fold-pixels"]
    assert [name for name, _ in adapter.named_children()] == ["spatial", "shrink"]
    assert adapter(torch.randn(1, 16, 8, 8)).shape == (1, 32, 4, 4)
