"""Paths: the gradients of all lengths add up to autograd's, and single paths to those of their length."""

from itertools import combinations
from math import comb

import numpy as np
import pytest
import torch
from torch import nn

from resx.measurements import paths as probe
from resx.model import SHORTCUTS
from resx.spec import SpecError


@pytest.mark.parametrize("shortcut", ["identity", "scaled:alpha=0.5"])
@pytest.mark.parametrize("adapter", ["A", "B", "C"])
@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("order", ["post", "pre"])
def test_all_lengths_add_up_to_autograds_gradient(order, norm, adapter, shortcut, network_of, batch):
    network = network_of(order=order, norm=norm, adapter=adapter, shortcut=shortcut)
    passed = probe.trace(network, *batch, "classification")
    gradients = probe.path_gradients(passed)
    assert len(gradients) == len(network.blocks) + 1
    torch.testing.assert_close(sum(gradients), passed.before, rtol=1e-10, atol=1e-13)


def test_the_gradient_of_a_length_is_the_sum_over_its_paths_followed_one_by_one(network_of, batch):
    network = network_of(order="post")
    passed = probe.trace(network, *batch, "classification")
    gradients, n = probe.path_gradients(passed), len(passed.blocks)
    for length in (0, 1, n - 1, n):
        total = torch.zeros_like(passed.before)
        for taken in combinations(range(n), length):
            gradient = passed.behind
            for place in reversed(range(n)):
                block, into = network.blocks[place], passed.blocks[place].into.detach().requires_grad_()
                mask = (block(into) > 0).to(gradient)  # the ReLU after the addition
                part = block.branch(into) if place in taken else block.adapter(into)
                (gradient,) = torch.autograd.grad(part, into, mask * gradient)
            total += gradient
        torch.testing.assert_close(gradients[length], total, rtol=1e-9, atol=1e-13)


def test_the_table_holds_shares_that_sum_to_one_and_veits_estimate_is_exact_at_both_ends(network_of, batch):
    network = network_of()
    table = probe.paths(network, *batch, "classification", samples=2)
    n = len(network.blocks)
    assert table["share"].sum() == pytest.approx(1, abs=1e-9)
    assert table["sampled"].sum() == pytest.approx(1)
    assert table["residue"].max() < 1e-10
    # one path each of length 0 and n: there the estimate is proportional to the exact norm
    ends = table.iloc[[0, n]]
    assert ends["sampled"].iloc[1] / ends["sampled"].iloc[0] == pytest.approx(
        ends["gradient"].iloc[1] / ends["gradient"].iloc[0]
    )


def test_half_is_where_the_cumulative_share_stays_above_one_half(network_of, batch):
    table = probe.paths(network_of(), *batch, "classification", samples=1)
    table["share"] = [0.6, -0.3, 0.5, 0.1, 0.1, 0.0, 0.0]  # above a half at 0, below at 1, for good at 2
    assert probe.summarise(table).half == pytest.approx(1.5 + 0.2 / 0.5)
    table["share"] = [0.6, 0.4, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert probe.summarise(table).half == pytest.approx(-0.5 + 0.5 / 0.6)
    table["share"] = table["binomial"]
    assert probe.summarise(table).half == pytest.approx(3)


@pytest.mark.parametrize("n", [1, 9, 27, 54])
def test_half_of_all_paths_is_half_of_the_blocks(n):
    assert probe.median_length(np.array([comb(n, k) / 2**n for k in range(n + 1)])) == pytest.approx(n / 2)
    assert probe.median_length(np.eye(n + 1)[n]) == pytest.approx(n)  # all of it through every branch
    assert np.isnan(probe.median_length(np.full(n + 1, np.nan)))


class Gate(nn.Module):
    """A gate whose initial weights are zero, beside which it is linear."""

    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x, fx):
        gate = torch.sigmoid(self.weight * x)
        return gate * x + (1 - gate) * fx


def test_plain_networks_and_gates_are_refused(network_of, batch):
    assert "plain" in probe.unfit(SHORTCUTS.create("none", 4), 4)
    assert "not linear" in probe.unfit(Gate(4), 4)
    assert probe.unfit(SHORTCUTS.create("scaled:alpha=0.3", 4), 4) is None
    with pytest.raises(SpecError, match="one path only"):
        probe.trace(network_of(shortcut="none"), *batch, "classification")
