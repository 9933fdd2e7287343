"""Digits as sequences, and the temporal order task."""

import pytest
import torch

from resx import data
from resx.data.longrange import DISTRACTORS
from resx.spec import DataSpec, SpecError


@pytest.mark.parametrize("steps", [1, 8, 64])
def test_digits_as_sequences_are_the_digits(steps):
    digits = data.load(DataSpec(dataset="digits"))
    dataset = data.load(DataSpec(dataset=f"digits-sequence:steps={steps}"))
    assert dataset.input_shape == (steps, 64 // steps)
    assert torch.equal(dataset.train_y, digits.train_y)
    torch.testing.assert_close(dataset.test_x.flatten(1), digits.test_x.flatten(1) / 127.5 - 1)


@pytest.mark.parametrize("steps", [10, 24, 60])
def test_the_label_is_the_order_of_the_two_symbols(steps):
    dataset = data.load(DataSpec(dataset=f"temporal-order:steps={steps},train=80,test=40"))
    x, y = dataset.train_x, dataset.train_y
    assert x.shape == (80, steps, DISTRACTORS + 2)
    assert (x.sum(2) == 1).all()
    assert y.bincount().tolist() == [20] * 4
    for sequence, label in zip(x, y.tolist(), strict=True):
        places = sequence[:, DISTRACTORS:].sum(1).nonzero().flatten().tolist()
        assert len(places) == 2
        first, second = (int(sequence[place, DISTRACTORS + 1]) for place in places)
        assert dataset.classes[label] == "XY"[first] + "XY"[second]
        assert steps // 10 <= places[0] <= 2 * steps // 10
        assert 5 * steps // 10 <= places[1] <= 6 * steps // 10


@pytest.mark.parametrize("text", ["digits-sequence:steps=7", "digits-sequence:steps=0", "temporal-order:steps=9"])
def test_impossible_sequences_are_refused(text):
    with pytest.raises(SpecError, match="steps must"):
        data.complete(DataSpec(dataset=text))
