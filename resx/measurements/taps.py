"""Taps: look at the outputs of a network's modules in a forward pass, or change them, and leave no trace."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from resx.measurements.dataflow import tensors_in
from resx.measurements.traced import Passage, Traced, ablate, unchanged
from resx.model import Network

__all__ = ["Blocks", "Passage", "ablate", "capture", "differentiable", "hold_statistics", "passages", "reestimated"]

Blocks = Network | Traced  # what the measurements of blocks take


@contextmanager
def passages(
    network: Blocks, branch: Callable[[Tensor], Tensor] = lambda fx: fx.view_as(fx)
) -> Iterator[dict[str, Passage]]:
    """Collect what goes through each block, by its name; each forward pass replaces the one before.

    branch: what replaces a branch's output F(x), such as zeros, or F(x) cut off from the graph.
    """
    if isinstance(network, Traced):
        with network.passed(branch) as traced:
            yield traced
        return
    parts: dict[str, dict[str, Tensor]] = {block.name: {} for block in network.blocks}
    passed: dict[str, Passage] = {}

    def keep(name: str, part: str, change: Callable[[Tensor], Tensor] | None = None) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            parts[name][part] = output = change(output) if change else output
            return output

        return hook

    def finish(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            passed[name] = Passage(x=inputs[0], out=output, **parts[name])

        return hook

    with ExitStack() as stack:
        for block in network.blocks:
            for module, hook in (
                (block.adapter, keep(block.name, "adapted", lambda sx: sx.view_as(sx))),
                (block.branch, keep(block.name, "branched", branch)),
                (block.shortcut, keep(block.name, "total")),
                (block, finish(block.name)),
            ):
                stack.enter_context(module.register_forward_hook(hook))
        yield passed


def differentiable(x: Tensor) -> Tensor:
    """Return inputs with respect to which gradients can be taken, unless they are whole numbers."""
    return x.detach().requires_grad_() if x.is_floating_point() else x


@contextmanager
def capture(
    network: nn.Module, names: Iterable[str], keep: Callable[[Tensor], Tensor] = lambda output: output
) -> Iterator[dict[str, Tensor]]:
    """Collect the outputs of the named modules; each forward pass replaces those of the one before.

    names: as `network.named_modules()` gives them. The outputs stay part of the graph, so gradients with
    respect to them can be asked for. keep: what is kept of an output, the first one where a module returns several.
    Raises KeyError for a name that the network does not have.
    """
    modules = dict(network.named_modules())
    outputs: dict[str, Tensor] = {}

    def collect(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            outputs[name] = keep(next(tensors_in(output)))

        return hook

    with ExitStack() as stack:
        for name in names:
            stack.enter_context(modules[name].register_forward_hook(collect(name)))
        yield outputs


@torch.no_grad()
def hold_statistics(network: nn.Module, x: Tensor) -> None:
    """Give every normalisation the statistics of x as its running ones, and put the normalisations in eval mode.

    On x the network's output is then that of training mode, and each input's output depends on that input alone.
    """
    norms = {name: module for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}
    momenta = [norm.momentum for norm in norms.values()]
    for norm in norms.values():
        norm.momentum = 1.0  # the statistics of this batch alone
        norm.train()
    with capture(network, norms) as outputs:
        network(x)
    for (name, norm), momentum in zip(norms.items(), momenta, strict=True):
        assert norm.running_var is not None
        norm.running_var *= 1 - norm.num_features / outputs[name].numel()  # BN keeps the unbiased one, uses the other
        norm.momentum = momentum
        norm.eval()


@contextmanager
def reestimated(network: nn.Module, batches: Iterable[Tensor]) -> Iterator[None]:
    """Give every batch normalisation the running statistics of these inputs; the old ones come back at the end.

    They are the mean of the batches' statistics, as the network is inside the context: changes made to it by
    `ablate` count. The network's mode is restored, and nothing but normalisations ever is in training mode.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    modes = [(module, module.training) for module in network.modules()]
    with unchanged(network):
        try:
            network.eval()
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # the mean over batches, each with the same weight
                norm.train()
            with torch.no_grad():
                for inputs in batches:
                    network(inputs)
            for module, training in modes:
                module.training = training
            yield
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
