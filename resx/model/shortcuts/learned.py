"""Learned numbers and maps on the shortcut or on the branch (He et al. 2016b, section 3.1; later ones as named)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from resx.model.shortcuts.contract import SHORTCUTS, GeneratorFor, mix
from resx.spec import SpecError


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


@SHORTCUTS.register("layerscale")
class LayerScale(nn.Module):
    """x + γ ⊙ F: one learned number per channel on the branch, from `start` (CaiT: Touvron et al. 2021). C parameters.

    γ = 1 is residual learning; γ = 0 the identity without its branch.
    """

    def __init__(self, channels: int, *, start: float = 1e-4) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels,), start))

    def forward(self, x: Tensor, fx: Tensor) -> Tensor:
        return x + (fx.movedim(1, -1) * self.scale).movedim(-1, 1)


@SHORTCUTS.register("laurel-rw")
class LaurelWeights(nn.Module):
    """βx + αF: two learned numbers per block, both from 1 (LAuReL-RW: Menghani et al. 2024). 2 parameters.

    arXiv 2411.07501; at the start it is residual learning.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, fx: Tensor) -> Tensor:
        return self.scale * x + self.gain * fx


@SHORTCUTS.register("laurel-lr")
class LaurelLowRank(nn.Module):
    """x + B(Ax) + F: a learned map of low rank added to the identity (LAuReL-LR: Menghani et al. 2024). 2rC parameters.

    A [r, C] starts as He's normal, B [C, r] from 0, so that at the start it is residual learning (arXiv 2411.07501).
    """

    def __init__(self, channels: int, *, rank: int = 4) -> None:
        super().__init__()
        if not 1 <= rank <= channels:
            raise SpecError(
                f"shortcut 'laurel-lr': rank must be 1 or more and at most its {channels} channels, not {rank}"
            )
        self.down = nn.Linear(channels, rank, bias=False)
        self.up = nn.Parameter(torch.zeros(channels, rank))

    def forward(self, x: Tensor, fx: Tensor) -> Tensor:
        return x + mix(mix(x, self.down.weight), self.up) + fx
