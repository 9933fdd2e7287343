"""The transformation `fitted`: each block's best linear map, from identity and from plain networks."""

import pytest
import torch

from resx import data, model
from resx.data.batches import Batches
from resx.spec import DataSpec, ModelSpec, SpecError
from resx.training.initial import RIDGE, fitted

DATA = DataSpec(dataset="synthetic:classes=3,size=8,train=96,test=48", normalize="symmetric")


def network(shortcut: str, seed: int = 0, **fields: object) -> model.Network:
    spec = ModelSpec.model_validate({"depth": 8, "width": 4, "shortcut": shortcut, **fields})
    built = model.build(spec, (3, 8, 8), 3, seed).eval()
    assert isinstance(built, model.Network)
    return built


@pytest.fixture(scope="module")
def batches() -> Batches:
    return Batches(data.load(DATA), DATA, 32, 0, "cpu")


@pytest.mark.parametrize("order", ["post", "pre"])
def test_a_network_without_branches_is_recovered(batches: Batches, order: str) -> None:
    """With branches that put out nothing the best map from x to x is the identity, but for the ridge."""
    parent = network("identity", order=order)
    for name, parameter in parent.named_parameters():
        if "branch" in name:
            torch.nn.init.zeros_(parameter)
    state = fitted(parent, network("fitted", order=order), batches)
    with torch.no_grad():
        x = parent.stem(next(batches.evaluation("train", None, 96))[0])
    rows = x.movedim(1, -1).flatten(0, -2).double()
    xx = rows.T @ rows
    ridge = RIDGE * xx.diagonal().mean() * torch.eye(4, dtype=torch.float64)
    expected = xx @ torch.linalg.inv(xx + ridge)
    torch.testing.assert_close(state["stages.0.0.shortcut.map"].double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("donor", ["none", "identity"])
def test_it_is_the_best_map_of_every_block(batches: Batches, donor: str) -> None:
    parent, child = network(donor, seed=1), network("fitted")
    state = fitted(parent, child, batches)
    h = parent.stem(next(batches.evaluation("train", None, 96))[0])
    with torch.no_grad():
        for block, twin in zip(parent.blocks, child.blocks, strict=True):
            y = block.shortcut(block.adapter(h), block.branch(h))
            rows, sums = (t.movedim(1, -1).flatten(0, -2).double() for t in (twin.adapter(h), y))
            best = state[f"{block.name}.shortcut.map"].double()

            def loss(candidate: torch.Tensor, rows: torch.Tensor = rows, sums: torch.Tensor = sums) -> float:
                ridge = RIDGE * rows.square().sum(0).mean()
                return float((rows @ candidate.T - sums).square().sum() + ridge * candidate.square().sum())

            for step in torch.randn(5, *best.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64):
                assert loss(best) < loss(best + 1e-2 * step)
            h = block.activation(y)


def test_all_else_is_the_seeds_own(batches: Batches) -> None:
    child = network("fitted")
    state = fitted(network("identity", seed=1), child, batches)
    own = child.state_dict()
    assert state.keys() == own.keys()
    changed = {name for name in own if not torch.equal(own[name], state[name])}
    assert changed == {f"{block.name}.shortcut.map" for block in child.blocks}


def test_what_cannot_be_fitted_is_refused(batches: Batches) -> None:
    with pytest.raises(SpecError, match="needs a fixed map"):
        fitted(network("identity"), network("conv"), batches)
    with pytest.raises(SpecError, match="same depth"):
        fitted(network("identity", depth=14), network("fitted"), batches)
    with pytest.raises(SpecError, match="channels, the parent's has 16"):
        fitted(network("identity", width=8), network("fitted"), batches)
