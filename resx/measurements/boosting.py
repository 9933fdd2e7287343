"""Gradient boosting as residual learning: each stage fits what is left, against bagging of as many of the same trees.

Friedman 2001 (boosting; 2002 for the share of the data that a stage sees) and Breiman 1996 (bagging); He et al. 2016,
section 2, name residual representations, not trees, so the likeness is this project's to test, not theirs to claim.
"""

from __future__ import annotations

import warnings
from typing import Any

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
    from sklearn.ensemble import BaggingRegressor, GradientBoostingRegressor
    from sklearn.tree import DecisionTreeRegressor

    common = {"n_estimators": trees, "random_state": seed}
    models = {
        "boosting": GradientBoostingRegressor(learning_rate=shrinkage, max_depth=tree_depth, subsample=SHARE, **common),
        "bagging": BaggingRegressor(
            DecisionTreeRegressor(max_depth=tree_depth), max_samples=SHARE, bootstrap=False, **common
        ),
    }
    counts = [2**power for power in range(trees.bit_length()) if 2**power < trees] + [trees]
    outputs = train[1].shape[1]
    rows = []
    for kind, model in models.items():
        losses = {"train_loss": np.zeros(trees), "test_loss": np.zeros(trees)}
        for k in range(outputs):
            with warnings.catch_warnings():  # scikit-learn 1.9 warns of a default of its own
                warnings.simplefilter("ignore", FutureWarning)
                model.fit(train[0], train[1][:, k])
            for loss, (inputs, targets) in zip(losses.values(), (train, test), strict=True):
                loss += np.square(_stages(model, inputs) - targets[:, k]).mean(axis=1) / outputs
        rows += [{"trees": n, "kind": kind} | {key: loss[n - 1] for key, loss in losses.items()} for n in counts]
    return pd.DataFrame(rows)


def _stages(model: Any, inputs: Array) -> Array:
    """Return the predictions [trees, N] after each boosting stage, or the means of the first 1, 2, … bagged trees."""
    if hasattr(model, "staged_predict"):
        return np.stack(list(model.staged_predict(inputs)))
    predictions = [tree.predict(inputs) for tree in model.estimators_]
    return np.cumsum(predictions, axis=0) / np.arange(1, len(predictions) + 1)[:, None]
