"""The teacher: its maps are what their names say, its nonlinear part holds nothing of R."""

import math

import pytest
import torch

from resx import data
from resx.data.maps import MAPS, NUMBERS, linear_map, parse_map
from resx.data.teacher import even_map, teach
from resx.spec import DataSpec, SpecError

EXAMPLES = {"scaling": "0.8", "rotation": "30", "lowrank": "4"}
TEXTS = [f"{name}-{EXAMPLES[name]}" if name in NUMBERS else name for name in MAPS]
EYE = torch.eye(8, dtype=torch.float64)


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_maps_are_what_they_are_called():
    close(linear_map("identity", 8), EYE)
    close(linear_map("negation", 8), -EYE)
    close(linear_map("scaling-0.5", 8), EYE / 2)
    permutation = linear_map("permutation", 8)
    assert permutation.sum(0).tolist() == permutation.sum(1).tolist() == [1.0] * 8
    powers = [torch.linalg.matrix_power(permutation, power) for power in range(1, 9)]
    assert [bool(power.trace()) for power in powers] == [False] * 7 + [True]  # one cycle through all coordinates
    projection = linear_map("lowrank-3", 8)
    close(projection @ projection, projection)
    close(projection, projection.T)
    assert torch.linalg.matrix_rank(projection) == 3


@pytest.mark.parametrize("angle", [30, 90, 135])
def test_a_rotation_turns_every_vector_by_its_angle(angle):
    turn = linear_map(f"rotation-{angle}", 8)
    close(turn @ turn.T, EYE)
    x = torch.randn(8, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cosines = torch.cosine_similarity(x, turn @ x, dim=0)
    close(cosines, torch.full_like(cosines, math.cos(math.radians(angle))))


@pytest.mark.parametrize("text", TEXTS)
def test_a_map_turned_away_is_at_the_distance_of_its_angle(text):
    matrix = linear_map(text, 8)
    turned = linear_map(text, 8, away=50)
    distance = (turned - matrix).norm() / matrix.norm()
    assert float(distance) == pytest.approx(2 * math.sin(math.radians(25)), abs=1e-12)


@pytest.mark.parametrize("text", TEXTS)
def test_the_odd_part_of_one_layer_is_the_map(text):
    x = torch.randn(20, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    odd = (teach(x, text, 0.3, 1) - teach(-x, text, 0.3, 1)) / 2
    close(odd, x @ linear_map(text, 8).T)
    assert not torch.allclose(teach(x, text, 0.3, 1), odd)


def test_without_its_nonlinear_part_layers_are_a_power_of_the_map():
    x = torch.randn(20, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    close(teach(x, "rotation-30", 0.0, 12), x)
    close(teach(x, "negation", 0.0, 8), x)
    assert not torch.allclose(teach(x, "rotation-30", 0.0, 8), x)


def test_the_nonlinear_part_has_mean_zero_and_the_length_of_its_input():
    inner, outer = even_map(16, 3)
    close(inner.norm(dim=1), torch.ones(8, dtype=torch.float64))
    close(outer.sum(1), torch.zeros(16, dtype=torch.float64))
    x = torch.randn(20_000, 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    values = (x @ inner.T).abs() @ outer.T
    assert values.mean(0).abs().max() < 0.05
    assert float(values.square().sum(1).mean()) == pytest.approx(16, rel=0.25)
    assert not torch.equal(even_map(16, 4)[0], inner)  # every layer has its own


def test_the_data_set_is_a_regression_without_noise():
    dataset = data.load(DataSpec(dataset="teacher:map=negation,layers=2,d=8,train=64,test=16,eps=0.2"))
    assert (dataset.task, dataset.input_shape, dataset.n_outputs) == ("regression", (8,), 8)
    expected = teach(dataset.train_x.double(), "negation", 0.2, 2).float()
    torch.testing.assert_close(dataset.train_y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("rotate-30", "did you mean 'rotation'"),
        ("rotation", "rotation-NUMBER"),
        ("rotation-much", "rotation-NUMBER"),
        ("negation-2", "takes no number"),
        ("lowrank-9", "from 1 to 8"),
        ("lowrank-2.5", "whole number"),
    ],
)
def test_a_map_that_cannot_be_is_one_line(text, word):
    with pytest.raises(SpecError, match=word) as caught:
        data.complete(DataSpec(dataset=f"teacher:map={text},d=8"))
    assert len(caught.value.errors) == 1


def test_a_name_and_its_number():
    assert parse_map("rotation--45") == ("rotation", -45.0)
    assert parse_map("identity") == ("identity", 0.0)


@pytest.mark.parametrize("arguments", ["d=2", "layers=0", "eps=-1", "train=0"])
def test_impossible_teachers_are_refused(arguments):
    with pytest.raises(SpecError, match="teacher"):
        data.complete(DataSpec(dataset=f"teacher:{arguments}"))
