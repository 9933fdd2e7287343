"""Kernels of a step: what counts as one, the numbers that hold today, and the history that is published."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from pretended_cuda import Machine as Cards

from resx.bench.kernels import Launches, count_kernels, publish

KERNELS = {("fp32", 20): 195, ("fp32", 56): 485, ("fp32", 110): 920, ("bf16", 20): 200, ("bf16", 110): 927}


@pytest.mark.parametrize(("precision", "depth"), KERNELS)
def test_a_step_starts_no_more_kernels_than_before(precision: str, depth: int) -> None:
    """Where a change lowers a number, lower it here and run `resx bench --kernels --publish results/bench`."""
    assert count_kernels(depth, precision) == KERNELS[precision, depth]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_card_starts_what_is_counted_on_a_cpu(precision: str, cards: Cards) -> None:
    assert count_kernels(20, precision, "cuda") == KERNELS[precision, 20]


def test_views_start_no_kernel_and_lists_share_one() -> None:
    x = torch.zeros(4, 4)
    with Launches() as launches:
        x.view(16)[2:].detach()
        torch.empty_like(x)
    assert launches.kernels == 0
    with Launches() as launches:
        torch._foreach_add_([x] * 111, 1)
        torch._foreach_copy_([x, x], [x, x])
    assert launches.kernels == 2 + 1
    kernel, images = torch.zeros(2, 4, 1, 1, requires_grad=True), x.view(1, 4, 2, 2)
    with Launches() as launches:
        loss = torch.nn.functional.conv2d(images, kernel).sum()
        loss.backward()
    assert launches.kernels == 2 + 2, "convolution, sum; ones, and the gradient of the weight alone (an expanded view)"


def test_a_history_grows_where_the_numbers_change(tmp_path: Path) -> None:
    first = {"commit": "a", "torch": "2", "started": "", "kernels": {"fp32": {"20": 9}}}
    second = {**first, "commit": "b", "kernels": {"fp32": {"20": 7}}}
    for count in (first, first, second):
        table, numbers = publish(count, tmp_path)
    assert [entry["commit"] for entry in json.loads(numbers.read_text())] == ["a", "b"]
    assert table.read_text().splitlines()[-2:] == ["| a | 2 | 9 |", "| b | 2 | 7 |"]
