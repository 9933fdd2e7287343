"""A shortcut with streams of your own: `resx compare --plugin examples/my_streams.py --shortcut echo`."""

import torch
from torch import Tensor, nn

from resx.model import SHORTCUTS


@SHORTCUTS.register("echo")
class Echo(nn.Module):
    """(h₁ + F, h₂ + gF), F reads h₁ + h₂: a second stream that is written with a learned weight. 1 parameter.

    Blocks of every depth find both streams as the block before left them; the stem makes two copies of its output, and
    the network ends with their sum.
    """

    streams = 2

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(()))

    def read(self, x: Tensor) -> Tensor:  # [B, 2, channels, H, W] -> [B, channels, H, W], what the branch is given
        return x.sum(1)

    def forward(self, x: Tensor, fx: Tensor) -> Tensor:  # [B, 2, channels, H, W] and [B, channels, H, W]
        return x + torch.stack([fx, self.gain * fx], 1)
