"""What every file of this package builds on: the registry, and maps over channels."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resx.registry import Registry, settable


class Plain(nn.Module):
    """A shortcut that is a plain function f(x, fx), with the arguments that its spec sets."""

    def __init__(self, function: Callable[..., Tensor], arguments: dict[str, Any]) -> None:
        super().__init__()
        self.function, self.arguments = function, arguments

    def forward(self, x: Tensor, fx: Tensor) -> Tensor:
        """Return what the function does of x and F(x), both [B, channels, …]."""
        return self.function(x, fx, **self.arguments)


def factory_of(entry: Callable[..., Any]) -> Callable[..., nn.Module]:
    """Return a factory of modules: the entry as it is, or one for a plain function of x and F(x).

    A plain function is one whose first two parameters have no defaults and whose others have.
    """
    parameters = list(inspect.signature(entry).parameters.values())
    is_plain = [item.name for item in parameters if item.name not in settable(entry, 0)] == [
        item.name for item in parameters[:2]
    ]
    if not (inspect.isfunction(entry) and len(parameters) > 1 and is_plain):
        return entry

    @wraps(entry)
    def factory(channels: int, **arguments: Any) -> nn.Module:
        return Plain(entry, arguments)

    own = [item.replace(kind=item.KEYWORD_ONLY) for item in parameters[2:]]
    channels = inspect.Parameter("channels", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    factory.__signature__ = inspect.Signature([channels, *own])  # type: ignore[attr-defined]
    return factory


SHORTCUTS: Registry[Callable[..., nn.Module]] = Registry("shortcut", positional=1, adapt=factory_of)
GeneratorFor = Callable[[str], torch.Generator]


def orthonormal(shape: torch.Size, stream: torch.Generator) -> Tensor:
    """Return a uniformly random matrix with orthonormal columns, float64 (Mezzadri 2007: QR and signs)."""
    q, r = torch.linalg.qr(torch.randn(shape, generator=stream, dtype=torch.float64))
    return q * r.diagonal().sign()


def mix(x: Tensor, weight: Tensor) -> Tensor:
    """Return W x at every position: x [B, C, …], weight [C, C]. It is a 1×1 convolution of any number of axes."""
    return F.linear(x.movedim(1, -1), weight).movedim(-1, 1)
