"""Pairing: initial weights depend on the seed and the parameter's name, and on nothing else."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from resx import model
from resx.model import GROW, SHORTCUTS
from resx.model.init import INITS, initialise
from resx.seeding import generator
from resx.spec import ModelSpec, SpecError


def weights(seed: int = 0, **fields: object) -> dict[str, Tensor]:
    spec = ModelSpec.model_validate({"depth": 14, **fields})
    return model.build(spec, (3, 16, 16), 10, seed).state_dict()


@pytest.mark.parametrize("order", ["post", "pre"])
@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize(
    "other", [{"shortcut": name} for name in SHORTCUTS] + [{"adapter": f"subsample+{name}"} for name in GROW]
)
def test_twins_share_every_weight_of_the_plain_network(other: dict, norm: str, order: str) -> None:
    plain = weights(shortcut="none", order=order, norm=norm)
    twin = weights(order=order, norm=norm, **other)
    assert plain.keys() <= twin.keys()
    assert all(torch.equal(plain[name], twin[name]) for name in plain)


def test_deeper_networks_share_the_blocks_that_both_have() -> None:
    shallow, deep = weights(depth=14), weights(depth=20)
    assert shallow.keys() <= deep.keys()
    assert all(torch.equal(shallow[name], deep[name]) for name in shallow)


def test_seeds_differ_and_so_do_parameters_of_one_shape() -> None:
    first, second = weights(0), weights(1)
    convolutions = [name for name, tensor in first.items() if tensor.dim() == 4]
    assert len(convolutions) == 13
    assert all(not torch.equal(first[name], second[name]) for name in convolutions)
    assert not torch.equal(first["stages.0.0.branch.conv1.weight"], first["stages.0.0.branch.conv2.weight"])


@pytest.mark.parametrize("name", list(SHORTCUTS))
def test_building_neither_reads_nor_moves_the_global_random_state(name: str) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = weights(shortcut=name)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second = weights(shortcut=name)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_he_normal() -> None:
    state = weights(width=64)
    for name, fan_in in {"stages.1.1.branch.conv2.weight": 128 * 9, "head.weight": 256}.items():
        weight = state[name]
        assert weight.std() == pytest.approx((2 / fan_in) ** 0.5, rel=0.05)
        assert abs(weight.mean()) < 4 * weight.std() / weight.numel() ** 0.5
    assert state["head.bias"].count_nonzero() == 0
    assert all((state[name] == 1).all() for name in state if name.endswith(("norm1.weight", "running_var")))


def test_a_module_may_draw_its_own_tensors_by_name() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Linear(3, 3)
            self.register_buffer("map", torch.empty(3, 3))

        def initialise(self, generator_for: Callable[[str], torch.Generator]) -> None:
            self.gate.bias.fill_(-6)
            self.map.copy_(torch.randn(3, 3, generator=generator_for("map")))

    module = nn.ModuleDict({"shortcut": Mixed()})
    initialise(module, 5)
    mixed = module["shortcut"]
    expected = torch.randn(3, 3, generator=generator(5, "init", "shortcut.map"))
    assert torch.equal(mixed.map, expected)
    assert (mixed.gate.bias == -6).all()
    gate = torch.randn(3, 3, generator=generator(5, "init", "shortcut.gate.weight")) * (2 / 3) ** 0.5
    torch.testing.assert_close(mixed.gate.weight, gate)


def built(**fields: object) -> nn.Module:
    spec = ModelSpec.model_validate({"depth": 20, "width": 6, "shortcut": "none", **fields})
    return model.build(spec, (1, 8, 8), 10, 0).double().eval()


@pytest.mark.parametrize(
    ("norm", "order", "padding"), list(itertools.product(("batch", "none"), ("post", "pre"), ("zeros", "circular")))
)
def test_a_plain_network_that_looks_linear_is_linear(norm: str, order: str, padding: str) -> None:
    fields = {"norm": norm, "order": order, "padding": padding, "activation": "crelu"}
    x, y = torch.randn(2, 5, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for init, is_linear in (("looks-linear", True), ("he", False)):
        network = built(init=init, **fields)
        with torch.no_grad():
            together, apart = network(2 * x - 3 * y), 2 * network(x) - 3 * network(y)
        assert torch.allclose(together, apart, rtol=1e-9, atol=1e-9 * float(together.abs().max())) == is_linear


def test_half_of_every_mirrored_filter_is_hes_draw() -> None:
    he, mirrored = (weights(shortcut="none", activation="crelu", init=init) for init in ("he", "looks-linear"))
    assert torch.equal(he["stem.conv.weight"], mirrored["stem.conv.weight"])
    for name in ("stages.0.0.branch.conv1.weight", "stages.2.1.branch.conv2.weight", "head.weight"):
        half = he[name].shape[1] // 2
        assert torch.equal(mirrored[name][:, :half], he[name][:, :half])
        assert torch.equal(mirrored[name][:, half:], -he[name][:, :half])


def test_dirac_blocks_pass_on_what_enters_them() -> None:
    network = built(init="dirac", norm="none")
    x = torch.rand(2, 6, 8, 8, dtype=torch.float64)
    changed = []
    with torch.no_grad():
        for block in network.blocks:
            out = block(x)
            changed += [] if torch.equal(out, x) else [block.name]
            x = out
    assert changed == ["stages.1.0", "stages.2.0"]


def test_dirac_leaves_hes_draws_where_shapes_change() -> None:
    he, dirac = weights(shortcut="none"), weights(shortcut="none", init="dirac")
    changed = {name for name in he if not torch.equal(he[name], dirac[name])}
    assert {"stem.conv.weight", "head.weight", "stages.1.0.branch.conv1.weight"}.isdisjoint(changed)
    assert len(changed) == 12 - 2


@pytest.mark.parametrize("name", list(INITS))
def test_an_init_is_documented_and_refuses_another_activation(name: str) -> None:
    assert INITS.summary(name)
    wanted = getattr(INITS[name], "activation", None)
    if wanted:
        other = {"relu": "crelu", "crelu": "relu"}[wanted]
        with pytest.raises(SpecError, match=f"init: {name} is made for activation {wanted}"):
            model.complete(ModelSpec.model_validate({"init": name, "activation": other}))


def test_an_unknown_init_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(SpecError, match="did you mean 'dirac'"):
        model.complete(ModelSpec(init="dirak"))
