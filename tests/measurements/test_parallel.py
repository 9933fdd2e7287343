"""The share of F that is parallel to x: known where F is a multiple of x, or perpendicular to it."""

import pytest
import torch
from torch import nn

from resx.measurements.parallel import parallel_share


class Times(nn.Module):
    """A branch that returns a multiple of its input."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * x


class Turned(nn.Module):
    """A branch whose output is perpendicular to its input at every position: channels 0 and 1 turned by 90°."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([-x[:, 1], x[:, 0], *torch.zeros_like(x[:, 2:]).unbind(1)], 1)


@pytest.mark.parametrize(("branch", "share", "sign"), [(Times(2.0), 1, 1), (Times(-0.5), 1, -1), (Turned(), 0, 0)])
def test_known_branches(network_of, batch, branch: nn.Module, share: float, sign: float) -> None:
    network = network_of(order="pre")
    network.blocks[1].branch = branch
    row = parallel_share(network, batch[0]).iloc[1]
    assert (row["block"], row["name"]) == (2, "stages.0.1")
    assert [row["position"], row["image"], row["sign"]] == pytest.approx([share, share, sign], abs=1e-6)


def test_shares_lie_between_0_and_1_and_a_position_has_more_than_the_image(network_of, batch) -> None:
    for shortcut in ("identity", "hyper", "depth-attention"):
        table = parallel_share(network_of(shortcut=shortcut), batch[0])
        assert len(table) == 6
        assert table[["position", "image"]].ge(0).all(axis=None) and table[["position", "image"]].le(1).all(axis=None)
        assert (table["position"] >= table["image"]).all()


def test_plain_networks_have_none(network_of, batch) -> None:
    assert parallel_share(network_of(shortcut="none"), batch[0]).empty
