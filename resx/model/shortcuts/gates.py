"""Gates and noise on the shortcut (He et al. 2016b, section 3.1; Srivastava et al. 2015)."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn

from resx.model.shortcuts.contract import SHORTCUTS, GeneratorFor
from resx.spec import SpecError


class _Gate(nn.Module):
    """g(x) = σ(W x + b), [B, C, …]: a 1×1 convolution, W from He's normal and b from `bias`. C² + C parameters."""

    def __init__(self, channels: int, bias: float) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, channels)
        self.start = bias

    def initialise(self, generator_for: GeneratorFor) -> None:
        self.linear.bias.fill_(self.start)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.linear(x.movedim(1, -1))).movedim(-1, 1)


class _Gated(nn.Module):
    """A shortcut with a gate: `bias` is b at the start."""

    kind = "gated"
    examples = ("bias=0", "bias=-6")

    def __init__(self, channels: int, *, bias: float = -6.0) -> None:
        super().__init__()
        self.gate = _Gate(channels, bias)


@SHORTCUTS.register("exclusive-gate")
class ExclusiveGate(_Gated):
    """(1−g(x)) ⊙ x + g(x) ⊙ F(x), g(x) = σ(W x + b), as in a highway network (He et al. 2016b, section 3.1).

    bias: b at the start; the more negative, the nearer the block is to the identity without its branch.
    C² + C parameters (Srivastava et al. 2015).
    """

    def forward(self, x: Tensor, fx: Tensor) -> Tensor:
        return torch.lerp(x, fx, self.gate(x))


@SHORTCUTS.register("shortcut-gate")
class ShortcutGate(_Gated):
    """(1−g(x)) ⊙ x + F(x), g(x) = σ(W x + b): only the shortcut is gated (He et al. 2016b, section 3.1).

    bias: b at the start; the more negative, the nearer the shortcut is to the identity. C² + C parameters.
    """

    def forward(self, x: Tensor, fx: Tensor) -> Tensor:
        return (1 - self.gate(x)) * x + fx


@SHORTCUTS.register("highway")
class Highway(nn.Module):
    """x + T(x) ⊙ (relu(F) − x): a highway block, its gate as deep as its branch (Srivastava 2025). 18C² + 4C.

    T = σ(BN(conv(relu(BN(conv(x)))))), 3×3 convolutions, the last BN's bias at `bias` at the start, as in the author's
    code (rupeshks.cc/blog/skip.html, which finds Identity Mappings' comparison of gates faulty, one run each). There
    the gate of a block that changes shape reads its input, here what the adapter makes of it. T = 0 is the identity
    without its branch, T = 1 relu(F). Images only.
    """

    def __init__(self, channels: int, *, bias: float = -6.0) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.start = bias

    def initialise(self, generator_for: GeneratorFor) -> None:
        self.norm2.bias.fill_(self.start)

    def gate(self, x: Tensor) -> Tensor:
        """Return T(x), [B, C, H, W], between 0 and 1."""
        hidden = torch.relu(self.norm1(self.conv1(x)))
        return torch.sigmoid(self.norm2(self.conv2(hidden)))

    def forward(self, x: Tensor, fx: Tensor) -> Tensor:
        return torch.lerp(x, torch.relu(fx), self.gate(x))


@SHORTCUTS.register("dropout")
class Dropout(nn.Module):
    """m ⊙ x / (1−rate) + F(x), each m 0 with probability `rate`, else 1; in eval mode x + F(x).

    He et al. 2016b, section 3.1. No parameters. The loop fills `noise` with one key per image before a step;
    the mask of its elements is a hash of the key, so neither memory nor the CPU's generator sees them all.
    """

    kind = "noisy"
    noise: Tensor

    def __init__(self, channels: int, *, rate: float = 0.5) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise SpecError(f"shortcut 'dropout': rate must be at least 0 and below 1, not {rate:g}")
        self.rate = rate
        self.register_buffer("noise", torch.zeros(1, dtype=torch.int64), persistent=False)

    def draw(self, generator: torch.Generator, batch_size: int) -> Tensor:
        """Return one key per image, int64 [B]."""
        return torch.randint(2**62, (batch_size,), generator=generator)

    def forward(self, x: Tensor, fx: Tensor) -> Tensor:
        if not self.training:
            return x + fx
        shape = x.shape[1:]
        keep = uniform_from_keys(self.noise, prod(shape)).view(-1, *shape) >= self.rate
        return torch.where(keep, x / (1 - self.rate), 0) + fx


def uniform_from_keys(keys: Tensor, count: int) -> Tensor:
    """Return `count` numbers in [0, 1) per key: keys int64 [B] -> float32 [B, count].

    SplitMix64 (Steele et al. 2014) in wrapping int64; the same on every device, and nothing is drawn.
    """
    position = torch.arange(1, count + 1, device=keys.device)
    z = keys[:, None] + position * _signed(0x9E3779B97F4A7C15)
    z = (z ^ _shifted(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shifted(z, 27)) * _signed(0x94D049BB133111EB)
    return _shifted(z ^ _shifted(z, 31), 40).float() / 2**24


def _signed(constant: int) -> int:
    return constant - 2**64  # the int64 of the same bits


def _shifted(z: Tensor, bits: int) -> Tensor:
    return (z >> bits) & ((1 << (64 - bits)) - 1)  # torch's own shift would repeat the sign
