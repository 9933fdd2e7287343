"""Fixed linear maps M x + F(x): nothing is learned (Orhan & Pitkow 2018 for orthogonal ones)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from resx.model.shortcuts.contract import SHORTCUTS, GeneratorFor, mix, orthonormal
from resx.spec import SpecError


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
        self.map.copy_(orthonormal(self.map.shape, generator_for("map")))


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
        basis = orthonormal(self.map.shape, generator_for("map"))[:, : self.rank]
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
