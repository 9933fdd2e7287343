"""Every registered shortcut: shape, gradients, defining formula."""

import pytest
import torch

from resx.model import SHORTCUTS
from resx.model.init import initialise


@pytest.mark.parametrize("name", list(SHORTCUTS))
def test_shape_and_gradient(name: str) -> None:
    module = SHORTCUTS.create(name, 6)
    initialise(module, 0)
    x, fx = (torch.randn(2, 6, 4, 4, requires_grad=True) for _ in range(2))
    out = module(x, fx)
    assert out.shape == fx.shape
    (out * torch.randn_like(out)).sum().backward()
    assert fx.grad is not None
    assert fx.grad.abs().sum() > 0
    reads_x = getattr(SHORTCUTS[name], "reads_x", True)
    assert (x.grad is not None and bool(x.grad.abs().sum() > 0)) == reads_x


@pytest.mark.parametrize("name", list(SHORTCUTS))
def test_documented_with_a_formula_on_one_line(name: str) -> None:
    assert SHORTCUTS.summary(name)


@pytest.mark.parametrize(
    ("text", "alpha"), [("none", 0), ("identity", 1), ("scaled", 0.5), ("scaled:alpha=-2", -2)]
)
def test_constant_shortcuts(text: str, alpha: float) -> None:
    x, fx = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    module = SHORTCUTS.create(text, 3)
    torch.testing.assert_close(module(x, fx), alpha * x + fx)
    assert not list(module.parameters())
