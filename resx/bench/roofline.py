"""The machine's limit, a roofline.

A step takes at least as long as its arithmetic at the fastest rate of a matrix product or a convolution here, and at
least as long as its memory traffic at the rate of a large copy; perfect overlap is assumed. The arithmetic is that of
convolutions and linear layers, forward and backward. The traffic is that of unfused operations, each of which reads its
inputs from memory and writes its outputs to it once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from resx.bench.plan import Plan
from resx.model.construction import skeleton
from resx.training.evaluate import loss_of
from resx.training.machine import wait_for


class _Traffic(TorchDispatchMode):
    """Adds up the bytes that operations read and write, each input and output once."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
            self.bytes += sum(tensor.nbytes for tensor in tensors)
        return result


@dataclass(frozen=True)
class Work:
    """The least work of a step: floating-point operations, and bytes of memory traffic."""

    flops: int
    bytes: int

    def seconds(self, flops_rate: float, bandwidth: float) -> float:
        """Return the least time of this work."""
        return max(self.flops / flops_rate, self.bytes / bandwidth)


def work(plan: Plan, depth: int) -> dict[str, Work]:
    """Count a training step and the evaluation of one batch, on the meta device."""
    spec = plan.spec(depth)
    network = skeleton(spec.model, (3, plan.image_size, plan.image_size), 10)
    inputs = torch.empty(plan.batch_size, 3, plan.image_size, plan.image_size, device="meta")
    labels = torch.zeros(plan.batch_size, dtype=torch.int64, device="meta")
    size = 2 if plan.precision == "bf16" else 4
    counted = {}
    for what in ("train", "evaluate"):
        network.train(what == "train")
        with torch.set_grad_enabled(what == "train"), FlopCounterMode(display=False) as flops, _Traffic() as traffic:
            loss = loss_of(network(inputs), labels, "classification")
            if what == "train":
                loss.backward()
        counted[what] = Work(flops.get_total_flops(), traffic.bytes * size // 4)
    return counted


def machine_limit(device: torch.device, precision: str) -> tuple[float, float]:
    """Return the FLOP/s of the best of matrix products and convolutions here and now, and the bytes/s of a copy."""
    cuda = device.type == "cuda"
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    n = 8192 if cuda else 1024
    side = torch.randn(n, n, device=device, dtype=kind)
    images = torch.randn(256 if cuda else 64, 256, 16, 16, device=device, dtype=kind)
    images = images.to(memory_format=torch.channels_last)
    rates = [2 * n**3 / _best(lambda: side @ side, device)]
    for kernel in (1, 3):
        weight = torch.randn(256, 256, kernel, kernel, device=device, dtype=kind)
        weight = weight.to(memory_format=torch.channels_last)
        flops = 2 * images.numel() * 256 * kernel**2
        convolve = partial(torch.nn.functional.conv2d, images, weight, padding=kernel // 2)
        rates.append(flops / _best(convolve, device))
    source = torch.ones(2**28 if cuda else 2**26, device=device)
    target = torch.empty_like(source)
    return max(rates), 2 * source.nbytes / _best(lambda: target.copy_(source), device)


def _best(act: Callable[[], Any], device: torch.device) -> float:
    """Return the least seconds of several attempts."""
    best = float("inf")
    with torch.no_grad():
        for _ in range(4):
            begun = time.perf_counter()
            act()
            wait_for(device)
            best = min(best, time.perf_counter() - begun)
    return best
