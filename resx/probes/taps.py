"""Taps: look at, or change, what modules of a network put out in a forward pass, and leave no trace."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def capture(network: nn.Module, names: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """Collect the outputs of the named modules; each forward pass replaces those of the one before.

    names: as `network.named_modules()` gives them. The outputs stay part of the graph, so gradients with
    respect to them can be asked for. Raises KeyError for a name that the network does not have.
    """
    modules = dict(network.named_modules())
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            outputs[name] = output

        return hook

    handles = [modules[name].register_forward_hook(keep(name)) for name in names]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
