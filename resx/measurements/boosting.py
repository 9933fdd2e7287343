"""Gradient boosting as residual learning: each stage fits what is left, against bagging of as many of the same trees.

Friedman 2001 (boosting; 2002 for the share of the data that a stage sees) and Breiman 1996 (bagging); He et al. 2016,
section 2, name residual representations, not trees, so the likeness is this project's to test, not theirs to claim.
"""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from numpy.typing import NDArray

SHARE = 0.8  # of the training data that every tree sees, drawn anew and without replacement

Array = NDArray[np.float64]


def boosting(
    train: tuple[Array, Array],
    test: tuple[Array, Array],
    *,
    trees: int,
    tree_depth: int,
    shrinkage: float,
    seed: int,
) -> pd.DataFrame:
    """Return mean squared errors of the first 1, 2, 4, … trees of both: columns trees, kind, train_loss, test_loss.

    train, test: inputs [N, d] and targets [N, K]; each of the K outputs has trees of its own. Scikit-learn's
    GradientBoostingRegressor (shrinkage is its learning rate) and BaggingRegressor; trees are alike in depth, in
    splitting criterion and in the share of the data that they see. kind: boosting, bagging.
    """
    counts = [2**power for power in range(trees.bit_length()) if 2**power < trees] + [trees]
    rows = []
    for kind, fit in (("boosting", _boosted), ("bagging", _bagged)):
        losses = {split: np.zeros(trees) for split in ("train", "test")}
        for k in range(train[1].shape[1]):
            stages = fit(train[0], train[1][:, k], [train[0], test[0]], trees, tree_depth, shrinkage, seed)
            for (split, (_, targets)), predictions in zip((("train", train), ("test", test)), stages, strict=True):
                losses[split] += np.square(predictions - targets[:, k]).mean(axis=1) / train[1].shape[1]
        rows += [
            {"trees": n, "kind": kind, "train_loss": losses["train"][n - 1], "test_loss": losses["test"][n - 1]}
            for n in counts
        ]
    return pd.DataFrame(rows)


def _boosted(
    x: Array, y: Array, sizes: list[Array], trees: int, tree_depth: int, shrinkage: float, seed: int
) -> list[Array]:
    """Return the predictions [trees, N] after each stage, for every array of inputs in `wanted`."""
    from sklearn.ensemble import GradientBoostingRegressor

    model = GradientBoostingRegressor(
        n_estimators=trees,
        learning_rate=shrinkage,
        max_depth=tree_depth,
        subsample=SHARE,
        random_state=seed,
    )
    with warnings.catch_warnings():  # scikit-learn 1.9 warns of a default of its own
        warnings.simplefilter("ignore", FutureWarning)
        model.fit(x, y)
    return [np.stack(list(model.staged_predict(inputs))) for inputs in sizes]


def _bagged(
    x: Array, y: Array, sizes: list[Array], trees: int, tree_depth: int, shrinkage: float, seed: int
) -> list[Array]:
    """Return the mean predictions [trees, N] of the first 1, 2, … trees; there is nothing to shrink."""
    from sklearn.ensemble import BaggingRegressor
    from sklearn.tree import DecisionTreeRegressor

    tree = DecisionTreeRegressor(max_depth=tree_depth)
    model = BaggingRegressor(tree, n_estimators=trees, max_samples=SHARE, bootstrap=False, random_state=seed).fit(x, y)
    counts = np.arange(1, trees + 1)[:, None]
    return [np.cumsum([one.predict(inputs) for one in model.estimators_], axis=0) / counts for inputs in sizes]
