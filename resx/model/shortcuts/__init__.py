"""Shortcut functions of x and the branch's output F(x) (He et al. 2016, eq. 1; 2016b, section 3).

To add one, register a factory `(channels, *, arguments…) -> nn.Module` whose module has `forward(x, fx)`: x
is the block's input after its adapter, fx the branch's output, both [B, channels, …]; the result has the same
shape. Keyword arguments are set in a spec as `name:key=value`. A module with tensors of its own may define
`initialise(generator_for)` (see init.py). Random maps are buffers that are drawn there once, from a stream
with the buffer's full name, so every block and every seed has its own.

A factory may carry attributes that studies and tests read, so that neither needs its name:

* `reads_x = False`: x is left out, so the block gets no adapter.
* `kind`: constant, fixed, learned, gated, noisy or fitted; a study compares those that have one.
* `examples`: texts of arguments worth comparing, such as ("bias=0", "bias=-6"); the defaults where absent.
* `transform`: the transformation of a trained network (training/initial.py) that gives it its values.

Numbers of parameters are per block of C channels. All that is learned decays like any other weight.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resx.registry import Registry
from resx.spec import SpecError

SHORTCUTS: Registry[Callable[..., nn.Module]] = Registry("shortcut")
GeneratorFor = Callable[[str], torch.Generator]


def mix(x: Tensor, weight: Tensor) -> Tensor:
    """Return W x at every position: x [B, C, …], weight [C, C]. It is a 1×1 convolution of any number of axes."""
    return F.linear(x.movedim(1, -1), weight).movedim(-1, 1)


def random_rotation(channels: int, stream: torch.Generator) -> Tensor:
    """Return a uniformly random orthogonal matrix, float64 [C, C] (Mezzadri 2007: QR and signs)."""
    q, r = torch.linalg.qr(torch.randn(channels, channels, generator=stream, dtype=torch.float64))
    return q * r.diagonal().sign()


# --- without a map, and constants ----------------------------------------------------------------------------------


@SHORTCUTS.register("none")
class Nothing(nn.Module):
    """F(x): a plain network. No parameters; x is not read."""

    reads_x = False

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, fx: Tensor) -> Tensor:
        return fx


@SHORTCUTS.register("identity")
class Identity(nn.Module):
    """x + F(x): residual learning (He et al. 2016, eq. 1). No parameters."""

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, fx: Tensor) -> Tensor:
        return x + fx


@SHORTCUTS.register("scaled")
class Scaled(nn.Module):
    """αx + F(x): constant scaling, branch unscaled (He et al. 2016b, section 3.1). No parameters."""

    kind = "constant"
    examples = ("alpha=0.25", "alpha=0.5", "alpha=0.75", "alpha=1.25")

    def __init__(self, channels: int, *, alpha: float = 0.5) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, x: Tensor, fx: Tensor) -> Tensor:
        return torch.add(fx, x, alpha=self.alpha)


@SHORTCUTS.register("convex")
class Convex(nn.Module):
    """αx + (1−α)F(x): constant scaling of both (He et al. 2016b, section 3.1). No parameters."""

    kind = "constant"
    examples = ("alpha=0.25", "alpha=0.5", "alpha=0.75")

    def __init__(self, channels: int, *, alpha: float = 0.5) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, x: Tensor, fx: Tensor) -> Tensor:
        return torch.lerp(fx, x, self.alpha)


@SHORTCUTS.register("annealed")
class Annealed(nn.Module):
    """w·x + F(x), w from 1 to 0 in training: the identity until `start`, plain from `end` on (Monti et al. 2018).

    start, end: fractions of the steps; in between w falls linearly. The loop fills `weight` before each step, as it
    does the learning rate; weights that are saved keep it, so a network is evaluated as it was last trained. No
    parameters; a buffer `weight` [].
    """

    weight: Tensor

    def __init__(self, channels: int, *, start: float = 0.25, end: float = 0.5) -> None:
        super().__init__()
        if not 0 <= start <= end <= 1:
            raise SpecError(f"shortcut 'annealed': 0 <= start <= end <= 1 is needed, not {start:g} and {end:g}")
        self.start, self.end = start, end
        self.register_buffer("weight", torch.tensor(self.schedule(0)))

    def schedule(self, progress: float) -> float:
        """Return w for a step from the fraction of steps that lie before it."""
        if progress < self.start:
            return 1.0
        return 0.0 if progress >= self.end else (self.end - progress) / (self.end - self.start)

    def forward(self, x: Tensor, fx: Tensor) -> Tensor:
        return self.weight * x + fx


# --- fixed linear maps ---------------------------------------------------------------------------------------------


@SHORTCUTS.register("negation")
class Negation(nn.Module):
    """−x + F(x): an isometry, but after a ReLU the sum loses x unless F exceeds it. No parameters."""

    kind = "fixed"

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, fx: Tensor) -> Tensor:
        return fx - x


@SHORTCUTS.register("permutation")
class Permutation(nn.Module):
    """x[π] + F(x): a fixed random permutation π of the channels (Orhan & Pitkow 2018: orthogonal skips).

    No parameters; a buffer `order` int64 [C].
    """

    kind = "fixed"
    order: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("order", torch.arange(channels))

    def initialise(self, generator_for: GeneratorFor) -> None:
        self.order.copy_(torch.randperm(len(self.order), generator=generator_for("order")))

    def forward(self, x: Tensor, fx: Tensor) -> Tensor:
        return x.index_select(1, self.order) + fx


class FixedMap(nn.Module):
    """M x + F(x) with a buffer `map`, M [C, C], the identity until `initialise` or a transformation sets it."""

    map: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("map", torch.eye(channels))

    def forward(self, x: Tensor, fx: Tensor) -> Tensor:
        return mix(x, self.map) + fx


@SHORTCUTS.register("orthogonal")
class Orthogonal(FixedMap):
    """Q x + F(x): a fixed random rotation or reflection, QᵀQ = 1 (Orhan & Pitkow 2018).

    No parameters; a buffer `map` [C, C].
    """

    kind = "fixed"

    def initialise(self, generator_for: GeneratorFor) -> None:
        self.map.copy_(random_rotation(len(self.map), generator_for("map")))


@SHORTCUTS.register("gaussian")
class Gaussian(FixedMap):
    """G x + F(x): a fixed random Gaussian map of the identity's norm, ‖G‖² = ‖1‖² = C (Frobenius).

    So it keeps |x|² on average over directions, while single directions grow or shrink, and products of such
    maps lose ever more of them. No parameters; a buffer `map` [C, C]. This project's own control.
    """

    kind = "fixed"

    def initialise(self, generator_for: GeneratorFor) -> None:
        draw = torch.randn(self.map.shape, generator=generator_for("map"), dtype=torch.float64)
        self.map.copy_(draw * (len(draw) ** 0.5 / torch.linalg.matrix_norm(draw)))


@SHORTCUTS.register("lowrank")
class LowRank(FixedMap):
    """P x + F(x): a fixed orthogonal projection onto a random subspace of fraction·C dimensions, P² = P = Pᵀ.

    No parameters; a buffer `map` [C, C]. Every block has its own subspace. This project's own control.
    """

    kind = "fixed"

    def __init__(self, channels: int, *, fraction: float = 0.5) -> None:
        super().__init__(channels)
        if not 0 < fraction <= 1:
            raise SpecError(f"shortcut 'lowrank': fraction must be above 0 and at most 1, not {fraction:g}")
        self.rank = max(1, round(channels * fraction))

    def initialise(self, generator_for: GeneratorFor) -> None:
        basis = random_rotation(len(self.map), generator_for("map"))[:, : self.rank]
        self.map.copy_(basis @ basis.T)


@SHORTCUTS.register("fitted")
class Fitted(FixedMap):
    """M x + F(x): M is each block's best linear map in a trained network, then frozen.

    The transformation `fitted` (training/initial.py) sets it from the run that `init_from` names; without one
    it is the identity. No parameters; a buffer `map` [C, C]. This project's own reading of 'knowledge of the
    input in relation to the output'.
    """

    kind = "fitted"
    transform = "fitted"


# --- learned maps --------------------------------------------------------------------------------------------------


@SHORTCUTS.register("learned-scalar")
class LearnedScalar(nn.Module):
    """a·x + F(x): one learned number per block, from `start` (Srivastava et al. 2015 gate it; here it is free).

    1 parameter.
    """

    kind = "learned"
    examples = ("start=0", "start=1")

    def __init__(self, channels: int, *, start: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((), start))

    def forward(self, x: Tensor, fx: Tensor) -> Tensor:
        return self.scale * x + fx


@SHORTCUTS.register("learned-channels")
class LearnedChannels(nn.Module):
    """a ⊙ x + F(x): one learned number per channel, from `start`. C parameters. This project's own control."""

    kind = "learned"
    examples = ("start=0", "start=1")

    def __init__(self, channels: int, *, start: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels,), start))

    def forward(self, x: Tensor, fx: Tensor) -> Tensor:
        return (x.movedim(1, -1) * self.scale).movedim(-1, 1) + fx


@SHORTCUTS.register("rezero")
class ReZero(nn.Module):
    """x + a·F(x), a learned from 0 (ReZero: Bachlechner et al. 2021; SkipInit: De & Smith 2020).

    1 parameter. At step 0 every block is the identity, and only a has a gradient.
    """

    kind = "learned"

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, fx: Tensor) -> Tensor:
        return x + self.gain * fx


@SHORTCUTS.register("conv")
class Conv(nn.Module):
    """W x + F(x): a learned 1×1 convolution without bias (He et al. 2016b, section 3.1). C² parameters.

    init: identity, so that step 0 is residual learning's; or he, N(0, 2/C) like any other convolution.
    """

    kind = "learned"
    examples = ("init=identity", "init=he")

    def __init__(self, channels: int, *, init: str = "identity") -> None:
        super().__init__()
        if init not in ("identity", "he"):
            raise SpecError(f"shortcut 'conv': init must be identity or he, not '{init}'")
        self.at_identity = init == "identity"
        self.map = nn.Linear(channels, channels, bias=False)

    def initialise(self, generator_for: GeneratorFor) -> None:
        if self.at_identity:  # otherwise it has its values already, as every linear layer
            nn.init.eye_(self.map.weight)

    def forward(self, x: Tensor, fx: Tensor) -> Tensor:
        return mix(x, self.map.weight) + fx


# --- gates and noise -----------------------------------------------------------------------------------------------


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


@SHORTCUTS.register("exclusive-gate")
class ExclusiveGate(nn.Module):
    """(1−g(x)) ⊙ x + g(x) ⊙ F(x), g(x) = σ(W x + b), as in a highway network (He et al. 2016b, section 3.1).

    bias: b at the start; the more negative, the nearer the block is to the identity without its branch.
    C² + C parameters (Srivastava et al. 2015).
    """

    kind = "gated"
    examples = ("bias=0", "bias=-6")

    def __init__(self, channels: int, *, bias: float = -6.0) -> None:
        super().__init__()
        self.gate = _Gate(channels, bias)

    def forward(self, x: Tensor, fx: Tensor) -> Tensor:
        return torch.lerp(x, fx, self.gate(x))


@SHORTCUTS.register("shortcut-gate")
class ShortcutGate(nn.Module):
    """(1−g(x)) ⊙ x + F(x), g(x) = σ(W x + b): only the shortcut is gated (He et al. 2016b, section 3.1).

    bias: b at the start; the more negative, the nearer the shortcut is to the identity. C² + C parameters.
    """

    kind = "gated"
    examples = ("bias=0", "bias=-6")

    def __init__(self, channels: int, *, bias: float = -6.0) -> None:
        super().__init__()
        self.gate = _Gate(channels, bias)

    def forward(self, x: Tensor, fx: Tensor) -> Tensor:
        return (1 - self.gate(x)) * x + fx


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
        kept = uniform_from_keys(self.noise, prod(shape)).view(-1, *shape) >= self.rate
        return torch.where(kept, x / (1 - self.rate), 0) + fx


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
