"""The learning rate, counted in iterations (He et al. 2016, section 4.2), and the steps at which something is kept.

The base rate is a table for the steps ahead. The warm-up of the 110-layer network depends on the training error, so it
is a flag on the device, which the step itself updates.
"""

from __future__ import annotations

import torch

from resx.spec import TrainSpec

WARMUP_FACTOR = 0.1  # 0.01 instead of 0.1
WARMUP_UNTIL = 0.8  # running training error below which the full rate starts
SNAPSHOTS = 8


def learning_rates(train: TrainSpec, first_step: int, n_steps: int) -> torch.Tensor:
    """Return the base rate of each of n_steps steps from first_step on: float32 [n_steps], without warm-up.

    A drop applies from the first step before which at least its share of the steps is done. Shares are compared,
    not steps: 0.55·100 is 55.00000000000001, while 55/100 is 0.55.
    """
    done = torch.arange(first_step, first_step + n_steps, dtype=torch.float64) / train.steps
    drops = torch.tensor(train.drops, dtype=torch.float64)
    passed = (done[:, None] >= drops[None, :]).sum(dim=1)
    return (train.lr * 0.1**passed).to(torch.float32)


def evaluation_steps(train: TrainSpec) -> set[int]:
    """Return the steps after which the network is evaluated: 0, the multiples of eval_every, and the last."""
    return {*range(0, train.steps, train.eval_every), train.steps}


def snapshot_steps(train: TrainSpec, which: str = "log") -> set[int]:
    """Return the steps at which weights are saved.

    which: `log` for about eight, log-spaced, first and last included; `ends` for these two; `none`.
    """
    if which != "log":
        return {0, train.steps} if which == "ends" else set()
    return {0} | {max(1, round(train.steps / 2**halvings)) for halvings in range(SNAPSHOTS - 1)}
