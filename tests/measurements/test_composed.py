"""The gain of the composed shortcut: exact where the adapters are fixed maps."""

import pytest
import torch

from resx import model
from resx.measurements.composed import composed_gain
from resx.model import Network
from resx.spec import ModelSpec


def gains(adapter: str, depth: int = 20, widths: str | None = "alternating") -> list[float]:
    """Return the gain after each block, for a stem whose output is 1 everywhere."""
    spec = ModelSpec.model_validate({"depth": depth, "width": 4, "widths": widths, "adapter": adapter})
    network = model.build(spec, (1, 8, 8), 10, 0).double().eval()
    assert isinstance(network, Network)
    torch.nn.init.zeros_(network.stem.conv.weight)
    torch.nn.init.ones_(network.stem.norm.bias)
    frame = composed_gain(network, torch.rand(2, 1, 8, 8, dtype=torch.float64))
    assert list(frame["block"]) == list(range(1, 3 * (depth - 2) // 6 + 1))
    return list(frame["gain"])


@pytest.mark.parametrize("adapter", ["subsample+pad+chop", "average+pad+fold-sum", "max+copy+chop"])
def test_these_compose_to_the_identity(adapter: str) -> None:
    assert gains(adapter, depth=14)[1] == pytest.approx(1)


def test_the_scaled_fold_lengthens_nothing_and_inverts_the_scaled_copy() -> None:
    found = gains("subsample+copy-scaled+fold-scaled")
    assert found[:3] == pytest.approx([1, 1, 1])
    assert max(found) == pytest.approx(1)


def test_copy_then_fold_sum_doubles_what_was_copied_every_two_blocks() -> None:
    """14 layers: 4→6→4 | 8→12 | 24→16. The first two channels are copied and folded: squares 4, 4, 1, 1."""
    found = gains("subsample+copy+fold-sum", depth=14)
    squares = [gain**2 * 4 for gain in found]
    assert squares[0] == pytest.approx(6)  # 1, 1, 1, 1, then copies of the first two
    assert squares[1] == pytest.approx(4 + 4 + 1 + 1)
    assert squares[2] == pytest.approx(2 * (4 + 4 + 1 + 1))


def test_growth_with_depth() -> None:
    assert gains("subsample+copy+fold-sum", depth=32)[-1] > 4 * gains("subsample+copy+fold-sum", depth=20)[-1]


def test_one_missing_shortcut_leaves_nothing() -> None:
    assert gains("zero+pad", widths=None)[-1] == 0
    assert gains("subsample+zero+chop")[0] == 0
