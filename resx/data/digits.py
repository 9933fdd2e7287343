"""Scikit-learn's 8×8 digits (1,797 images, the test part of the UCI set): small, and needs no download."""

from __future__ import annotations

from pathlib import Path

from resx.data.dataset import DATASETS, FACTS, Dataset, Facts

TRAIN = 1500

FACTS["digits"] = Facts(shape=(1, 8, 8), train=TRAIN, test=297, outputs=10)


@DATASETS.register("digits")
def load_digits(root: Path | None = None) -> Dataset:
    """Handwritten digits, 8×8 grey, part of scikit-learn: the first 1,500 to train on, the other 297 to test.

    The 17 grey values 0..16 become round(v · 255 / 16), uint8 [N, 1, 8, 8]; the order is scikit-learn's. It is
    not a random one: the last images are harder, so that the nearest training image errs on 5.4 % of them and on about
    1.2 % of a random part. Test errors are so higher than on random splits.
    """
    import torch
    from sklearn.datasets import load_digits as read

    bunch = read()
    x = torch.from_numpy(bunch.images).mul(255 / 16).round().to(torch.uint8).unsqueeze(1)
    y = torch.from_numpy(bunch.target).to(torch.int64)
    return Dataset(
        train_x=x[:TRAIN],
        train_y=y[:TRAIN],
        test_x=x[TRAIN:],
        test_y=y[TRAIN:],
        classes=tuple(str(name) for name in bunch.target_names),
        label="digits",
    )
