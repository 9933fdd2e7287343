"""Scikit-learn's digits read as sequences: for networks along time (transfer of He et al. 2016 beyond images)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from resx.data.dataset import DATASETS, Dataset
from resx.data.digits import load_digits
from resx.spec import SpecError

if TYPE_CHECKING:
    from torch import Tensor

PIXELS = 64


@DATASETS.register("digits-sequence")
def load_digits_sequence(root: Path | None = None, *, steps: int = 8) -> Dataset:
    """The 8×8 digits as sequences, row by row: 8 steps of 8 pixels, or 64 of 1, or between.

    Inputs are float32 [N, steps, 64/steps] in −1..1; splits and order are those of `digits`. Raises SpecError
    for a number of steps that does not divide 64.
    """
    if steps < 1 or PIXELS % steps:
        raise SpecError(f"dataset 'digits-sequence': steps must divide {PIXELS}, not {steps}")
    digits = load_digits(root)

    def sequences(images: Tensor) -> Tensor:
        return (images.float() / 127.5 - 1).view(-1, steps, PIXELS // steps)

    label = f"digits, {steps} steps of {PIXELS // steps}"
    return replace(digits, train_x=sequences(digits.train_x), test_x=sequences(digits.test_x), label=label)
