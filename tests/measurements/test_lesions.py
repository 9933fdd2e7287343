"""Lesions and their controls: removed blocks, exchanged blocks, statistics estimated anew, subsets, ensembles."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from resx import model
from resx.measurements.lesions import (
    ensemble,
    interactions,
    lesions,
    movable,
    removable,
    removed,
    short_paths,
    swaps,
    too_small,
)
from resx.measurements.taps import ablate, reestimated
from resx.model import Network
from resx.model.subset import SubsetNetwork, check_active_blocks
from resx.seeding import generator
from resx.spec import ModelSpec, SpecError

ORDERS = ("post", "pre")


def built(depth: int = 14, **fields: object) -> Network:
    """A small network in float64 and eval mode in which no tensor has a value that hides mistakes."""
    spec = ModelSpec.model_validate({"depth": depth, "width": 4, **fields})
    network = model.build(spec, (1, 8, 8), 4, 0)
    stream = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if "norm" in name and value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=stream) + 0.5)
    assert isinstance(network, Network)
    return network.double().eval()


def images(count: int = 12) -> torch.Tensor:
    return torch.randn(count, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def batches(count: int = 12) -> list:
    return [(images(count), torch.arange(count) % 4)]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", ["stages.0.0", "stages.0.1", "stages.1.1", "stages.2.1"])
def test_a_lesioned_network_equals_one_rebuilt_without_the_block(order: str, name: str) -> None:
    network = built(order=order)
    rebuilt = copy.deepcopy(network)
    stages = [[block for block in stage.children() if block.name != name] for stage in rebuilt.stages]
    rebuilt = Network(rebuilt.stem, stages, rebuilt.final, rebuilt.head)
    before = network(images())
    block = network.get_submodule(name)
    with ablate(network, {name: removed(block)}):
        assert len(network.blocks) == len(rebuilt.blocks) + 1
        torch.testing.assert_close(network(images()), rebuilt.eval()(images()), rtol=0, atol=1e-12)
        assert (network(images()) - before).abs().max() > 1e-6
    assert network.get_submodule(name) is block
    assert torch.equal(network(images()), before)


def test_where_shapes_change_the_adapter_stays() -> None:
    network = built()
    x = torch.rand(2, 4, 8, 8, dtype=torch.float64) - 0.5
    expected = F.relu(F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, 4)))
    assert torch.equal(removed(network.get_submodule("stages.1.0"))(x), expected)


def test_in_a_plain_network_x_stands_in_the_place_of_a_block_that_keeps_shapes() -> None:
    plain, residual = built(shortcut="none"), built()
    kept = [block.name for block in plain.blocks if block.keeps_shape]
    assert kept == ["stages.0.0", "stages.0.1", "stages.1.1", "stages.2.1"]
    assert [block.name for block in removable(plain)] == kept
    assert [block.name for block in movable(residual)] == kept
    assert len(removable(residual)) == len(residual.blocks)
    x = torch.rand(2, 4, 8, 8, dtype=torch.float64)
    assert torch.equal(removed(plain.blocks[0])(x), x)


def test_blocks_come_back_after_an_error() -> None:
    network = built()
    blocks = network.blocks
    with pytest.raises(RuntimeError), ablate(network, {block.name: removed(block) for block in blocks}):
        raise RuntimeError
    assert network.blocks == blocks
    with pytest.raises(AttributeError), ablate(network, {"stages.0.9": blocks[0]}):
        pass


@pytest.mark.parametrize("count", [1, 5])
def test_exchanges_keep_every_block_in_its_stage(count: int) -> None:
    network = built(depth=20)
    order = swaps(movable(network), count, generator(0, "test", count))
    assert sorted(order.values()) == sorted(order)
    assert all(place.split(".")[1] == name.split(".")[1] for place, name in order.items())
    if count == 1:
        assert sum(place != name for place, name in order.items()) == 2


def test_statistics_estimated_anew_are_those_of_the_inputs_and_leave_no_trace() -> None:
    network = built()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with reestimated(network, [images()]):
        norm = network.get_submodule("stem.norm")
        into = network.get_submodule("stem.conv")(images())
        torch.testing.assert_close(norm.running_mean, into.mean((0, 2, 3)))
        torch.testing.assert_close(norm.running_var, into.var((0, 2, 3)))
        assert not norm.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not any(module.training for module in network.modules())


def test_lesions_measure_what_evaluation_of_the_lesioned_network_gives() -> None:
    network = built()
    found = lesions(network, batches(), [images()], "classification", counts=(1, 2, 9), draws=2, pairs=3)
    counts = found.groupby("lesion").size() / 2  # two kinds of statistics
    assert dict(counts) == {"none": 1, "remove": 6, "random": 4, "permute": 6, "pair": 3}  # 9 blocks are not there
    assert found["loss"].notna().all()
    row = found[(found["lesion"] == "remove") & (found["statistics"] == "running")].iloc[1]
    with torch.no_grad(), ablate(network, {row["blocks"]: removed(network.get_submodule(row["blocks"]))}):
        assert row["loss"] == pytest.approx(float(F.cross_entropy(network(images()).float(), batches()[0][1])))
    again = lesions(network, batches(), [images()], "classification", counts=(1, 2, 9), draws=2, pairs=3)
    pd.testing.assert_frame_equal(found, again)


def test_interaction_of_two_removals() -> None:
    rows = [("none", np.nan, 1.0), ("remove", "a", 1.5), ("remove", "b", 1.2), ("pair", "a+b", 2.2)]
    table = pd.DataFrame(rows, columns=["lesion", "blocks", "loss"]).assign(statistics="running")
    [pair] = interactions(table).to_dict("records")
    assert pair["sum"] == pytest.approx(0.7)
    assert pair["both"] == pytest.approx(1.2)


def test_an_ensemble_averages_probabilities() -> None:
    sure, unsure = np.array([[9.0, 0.0]], dtype=np.float32), np.array([[0.0, 1.0]], dtype=np.float32)
    loss, error = ensemble([sure, unsure], np.array([0]))
    shares = [1 / (1 + np.exp(-9.0)), 1 / (1 + np.exp(1.0))]
    assert loss == pytest.approx(-np.log(np.mean(shares)))
    assert error == 0
    assert ensemble([unsure], np.array([0]))[1] == 100


def test_a_network_of_eight_layers_cannot_bear_lesions() -> None:
    assert "at least 4" in str(too_small(built(depth=8).blocks))
    assert too_small(built(depth=14).blocks) is None


# --- random subsets of blocks --------------------------------------------------------------------------------------


def test_inactive_blocks_are_as_if_removed() -> None:
    network = built().train()
    subset = SubsetNetwork(network, 2).train()
    subset.noise = subset.draw(generator(0, "test"), 1)
    assert int(subset.noise.sum()) == 2
    out = [block for block, on in zip(network.blocks, subset.noise.tolist(), strict=True) if not on]
    found = subset(images())
    with ablate(network, {block.name: removed(block) for block in out}):
        torch.testing.assert_close(found, network(images()), rtol=0, atol=1e-12)


@pytest.mark.parametrize("training", [True, False])
def test_with_all_blocks_active_it_is_the_network_itself(training: bool) -> None:
    network = built()
    subset = SubsetNetwork(network, 6)
    assert list(subset.state_dict()) == list(network.state_dict())
    assert torch.equal(subset.train(training)(images()), network.train(training)(images()))


def test_an_inactive_branch_gets_no_gradient() -> None:
    subset = SubsetNetwork(built(), 3).train()
    subset.noise = subset.draw(generator(1, "test"), 1)
    subset(images()).square().sum().backward()
    for block, on in zip(subset.blocks, subset.noise.tolist(), strict=True):
        assert bool(block.branch.conv1.weight.grad.count_nonzero()) is on


def test_all_subsets_are_drawn_equally_often() -> None:
    subset = SubsetNetwork(built(), 2)
    draws = torch.stack([subset.draw(generator(0, "test", k), 1) for k in range(600)])
    assert (draws.sum(1) == 2).all()
    assert (draws.double().mean(0) - 2 / 6).abs().max() < 0.08  # 4 standard errors


@pytest.mark.parametrize(
    ("fields", "active", "words"),
    [
        ({"shortcut": "none"}, 2, "plain network"),
        ({}, 0, "between 1 and 6"),
        ({}, 7, "between 1 and 6"),
        ({"family": "vgg", "depth": 16, "shortcut": "none", "width": None}, 2, "no blocks"),
    ],
)
def test_what_has_no_such_subsets_is_refused(fields: dict, active: int, words: str) -> None:
    spec = model.complete(ModelSpec.model_validate({"depth": 14, "width": 4, **fields}))
    with pytest.raises(SpecError, match=words):
        check_active_blocks(spec, active)
    check_active_blocks(model.complete(ModelSpec(depth=14)), 6)


def test_short_paths_are_tested_in_three_ways() -> None:
    network = built()
    found = short_paths(network, 6, batches(), [images()], "classification", draws=2)
    assert dict(found.groupby("blocks").size()) == {"all": 2, "weighted": 2, "subset": 4}
    assert found.groupby("statistics")["loss"].nunique().eq(1).all()  # with 6 of 6 blocks all three are the same
    assert isinstance(network.head, nn.Linear)
