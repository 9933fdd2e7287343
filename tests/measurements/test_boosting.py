"""Boosting and bagging of the same trees: identities, and that what is left is what is fitted."""

import numpy as np
import pandas as pd
import pytest

from resx.measurements.boosting import SHARE, boosting


def made(seed=0, outputs=2):
    draw = np.random.default_rng(seed)
    x = draw.standard_normal((200, 4))
    y = np.stack([np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2], x[:, 3] ** 2], axis=1)[:, :outputs]
    return (x[:150], y[:150]), (x[150:], y[150:])


def measure(**changed):
    return boosting(*made(), **{"trees": 12, "tree_depth": 2, "shrinkage": 1.0, "seed": 0, **changed})


def loss(frame, kind, trees, column="train_loss"):
    return frame.set_index(["kind", "trees"]).loc[(kind, trees), column]


def test_losses_are_of_1_2_4_trees_and_all():
    frame = measure()
    assert frame[frame["kind"] == "bagging"]["trees"].tolist() == [1, 2, 4, 8, 12]
    pd.testing.assert_frame_equal(frame, measure())
    assert not frame.equals(measure(seed=1))
    few = measure(trees=4)
    for kind in ("boosting", "bagging"):
        assert loss(few, kind, 4) == pytest.approx(loss(frame, kind, 4))


def test_stages_that_fit_what_is_left_go_on_falling_and_means_do_not():
    frame = measure(trees=32)
    falls = {kind: loss(frame, kind, 4) / loss(frame, kind, 32) for kind in ("boosting", "bagging")}
    assert falls["boosting"] > 2 > falls["bagging"]


def test_unshrunk_boosting_fits_the_residuals_of_its_own_stages():
    from sklearn.ensemble import GradientBoostingRegressor

    (x, y), test = made(outputs=1)
    frame = boosting((x, y), test, trees=3, tree_depth=2, shrinkage=1.0, seed=5)
    model = GradientBoostingRegressor(
        n_estimators=3, learning_rate=1.0, max_depth=2, subsample=SHARE, random_state=5
    ).fit(x, y[:, 0])
    left = y[:, 0] - y[:, 0].mean()
    for trees, stage in zip((1, 2, 3), model.estimators_[:, 0], strict=True):
        left = left - stage.predict(x)
        assert loss(frame, "boosting", trees) == pytest.approx(np.square(left).mean())


def test_the_loss_is_the_mean_over_outputs():
    both = measure()
    [one], [other] = (
        [boosting((a, b[:, [k]]), (c, d[:, [k]]), trees=2, tree_depth=2, shrinkage=1.0, seed=0)]
        for k in (0, 1)
        for (a, b), (c, d) in [made()]
    )
    for kind in ("boosting", "bagging"):
        assert loss(both, kind, 2) == pytest.approx((loss(one, kind, 2) + loss(other, kind, 2)) / 2)
