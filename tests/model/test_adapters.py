"""Every registered part of an adapter: shape, gradient, defining identity."""

import pytest
import torch
import torch.nn.functional as F

from resx.model import GROW, SHRINK, SPATIAL
from resx.model.adapters import compose
from resx.model.init import initialise
from resx.spec import AdapterSpec

CASES = [
    *(("spatial", name, (16, 24, 2)) for name in SPATIAL),
    *(("grow", name, (16, 24, 1)) for name in GROW),
    *(("grow", name, (16, 32, 2)) for name in GROW),
    *(("shrink", name, (24, 16, 1)) for name in SHRINK),
]


@pytest.mark.parametrize(("part", "name", "shape"), CASES)
def test_shape_and_gradient(part: str, name: str, shape: tuple[int, int, int]) -> None:
    parts = AdapterSpec().model_copy(update={part: name})
    adapter = compose(parts, *shape)
    initialise(adapter, 0)
    x = torch.randn(4, shape[0], 8, 8, requires_grad=True)
    out = adapter(x)
    assert out.shape == (4, shape[1], 8 // shape[2], 8 // shape[2])
    (out * torch.randn_like(out)).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


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
