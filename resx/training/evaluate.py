"""Eval-mode loss and error on un-augmented inputs: what is reported, as opposed to the running training error.

Replications commonly report a moving average over augmented batches as 'training error'; this is not that number.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EVAL_BATCH = 250
CUDA_EVAL_VALUES = 6_000_000  # input values at a time; with more of them, fewer kernels have to be started


@dataclass(frozen=True)
class Evaluation:
    """Mean loss, error in percent (nan for a regression), and on request outputs [N, …] with labels."""

    loss: float
    error: float
    outputs: Tensor | None = None
    labels: Tensor | None = None


def loss_of(outputs: Tensor, labels: Tensor, task: str) -> Tensor:
    """Return the mean cross-entropy for a classification, the mean squared error for a regression."""
    return (F.mse_loss if task == "regression" else F.cross_entropy)(outputs.float(), labels)


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Return the context in which forward passes run: bfloat16 where the spec says so, else no change."""
    # without the cache of cast weights, which would outlive the capture of a CUDA graph
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16", cache_enabled=False)


def evaluation_batch(train_batch: int, input_shape: tuple[int, ...], device: torch.device) -> int:
    """Return how many inputs are evaluated at a time; a constant on a CPU, since rounding depends on it."""
    if device.type == "cpu":
        return EVAL_BATCH
    return max(train_batch, CUDA_EVAL_VALUES // math.prod(input_shape))


def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    task: str,
    precision: str = "fp32",
    keep_outputs: bool = False,
) -> Evaluation:
    """Evaluate a network on batches of (inputs, labels) in eval mode; its mode is restored.

    Sums stay on the device and are read once, at the end.
    """
    was_training = model.training
    model.eval()
    losses, wrong, count, per_batch = [], [], 0, []
    try:
        with torch.inference_mode():
            for inputs, labels in batches:
                with autocast(precision, inputs.device):
                    outputs = model(inputs)
                losses.append(loss_of(outputs, labels, task).double() * len(labels))
                if task == "classification":
                    wrong.append((outputs.argmax(dim=1) != labels).sum())
                count += len(labels)
                if keep_outputs:
                    per_batch.append((outputs.float(), labels))
    finally:
        model.train(was_training)
    return Evaluation(
        loss=float(torch.stack(losses).sum() / count),
        error=100 * float(torch.stack(wrong).sum()) / count if wrong else float("nan"),
        outputs=torch.cat([outputs for outputs, _ in per_batch]).cpu() if keep_outputs else None,
        labels=torch.cat([labels for _, labels in per_batch]).cpu() if keep_outputs else None,
    )
