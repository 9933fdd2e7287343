"""Every registered shortcut: shape, parameters, gradients, defining formula."""

import pytest
import torch
from torch import nn

from resx.model import SHORTCUTS
from resx.model.init import initialise
from resx.model.shortcuts.gates import uniform_from_keys
from resx.spec import SpecError

C = 8
IMAGES_ONLY = {"highway"}
STREAMS = {"hyper", "hyper-doubly-stochastic", "depth-attention"}  # in networks of images too
NOT_LOCAL = {"highway", "perpendicular:over=image"}


def texts() -> list[str]:
    """Every shortcut with its default arguments and with each of its examples."""
    found = dict.fromkeys(SHORTCUTS)
    for name in SHORTCUTS:
        found |= {f"{name}:{example}": None for example in getattr(SHORTCUTS[name], "examples", ())}
    return list(found)


def made(text: str, channels: int = C, seed: int = 0) -> nn.Module:
    module = SHORTCUTS.create(text, channels)
    initialise(module, seed, "stages.0.0.shortcut.")
    return module


def name_of(text: str) -> str:
    return text.partition(":")[0]


def tiled(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """x as the module takes it, streams that differ where it carries some: [B, C, …] or [B, n, C, …]."""
    n = getattr(module, "streams", 3)
    return torch.stack([x.roll(k, -1) for k in range(n)], 1) if hasattr(module, "read") else x


def inputs(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    stream = torch.Generator().manual_seed(3)
    x, fx = (torch.randn(2, C, *shape, generator=stream, dtype=torch.float64) for _ in range(2))
    return x, fx


@pytest.mark.parametrize("text", texts())
def test_gradients_reach_x_the_branch_and_every_parameter(text: str) -> None:
    module = made(text)
    with torch.no_grad():
        for parameter in module.parameters():  # a gain of 0 lets nothing through until its first step
            parameter.add_(0.1 * torch.rand_like(parameter))
    x, fx = (torch.randn(2, C, 4, 4, requires_grad=True) for _ in range(2))
    streams = tiled(module, x)
    read = module.read(streams) if name_of(text) in STREAMS else 0
    out = module(streams, fx + read)
    assert out.shape[0] == 2 and out.shape[-3:] == fx.shape[1:]
    (out * torch.randn_like(out)).sum().backward()
    reads_x = getattr(SHORTCUTS[name_of(text)], "reads_x", True)
    assert fx.grad is not None and fx.grad.abs().sum() > 0
    assert (x.grad is not None and bool(x.grad.abs().sum() > 0)) == reads_x
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in module.parameters())


@pytest.mark.parametrize("text", texts())
def test_a_step_reads_nothing_back(text: str) -> None:
    """On the meta device there are no values, so what looked at one, or drew one into a shape, would fail."""
    with torch.device("meta"):
        module = SHORTCUTS.create(text, C).train()
        x, fx = torch.empty(2, C, 4, 4, requires_grad=True), torch.empty(2, C, 4, 4, requires_grad=True)
        module(tiled(module, x), fx).sum().backward()
    assert fx.grad is not None and fx.grad.is_meta


@pytest.mark.parametrize("text", [text for text in texts() if name_of(text) not in STREAMS | IMAGES_ONLY])
@pytest.mark.parametrize("shape", [(), (5,), (3, 4)])
def test_any_number_of_positions(text: str, shape: tuple[int, ...]) -> None:
    x, fx = inputs(*shape)
    module = made(text).double()
    assert module(x, fx).shape == fx.shape
    if shape and text not in NOT_LOCAL:
        module.eval()  # what stands at one position depends on nothing at the others
        at_first = module(x[..., :1], fx[..., :1])
        torch.testing.assert_close(module(x, fx)[..., :1], at_first, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("zero", ["0", "0.0", "-0.0", "-0", "0e3"])
def test_zero_is_written_in_one_way(zero: str) -> None:
    assert SHORTCUTS.complete(f"scaled:alpha={zero}") == "scaled:alpha=0.0"


@pytest.mark.parametrize("name", list(SHORTCUTS))
def test_documented_with_a_formula_on_one_line(name: str) -> None:
    assert SHORTCUTS.summary(name)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        *((name, 0) for name in ("none", "identity", "scaled", "convex", "negation", "permutation", "orthogonal")),
        ("annealed", 0),
        *((name, 0) for name in ("gaussian", "lowrank", "fitted", "dropout")),
        ("learned-scalar", 1),
        ("learned-channels", C),
        ("rezero", 1),
        ("conv:init=identity", C * C),
        ("conv:init=he", C * C),
        ("exclusive-gate", C * C + C),
        ("shortcut-gate", C * C + C),
        ("highway", 18 * C * C + 4 * C),
        ("perpendicular", 0),
        ("delta", 2 * C + 2),
        ("mixing", 4 * 4),
        ("mixing:groups=2", 2 * 2),
        ("doubly-stochastic", 4 * 4),
        ("birkhoff", 24),
        ("layerscale", C),
        ("laurel-rw", 2),
        ("laurel-lr:rank=3", 2 * 3 * C),
        ("post-norm", 2 * C),
        ("sphere", C),
        ("hyper", 4 * 4 + 2 * 4),
        ("hyper-doubly-stochastic:streams=3", 3 * 3 + 2 * 3),
        ("depth-attention", C),
    ],
)
def test_number_of_parameters(text: str, count: int) -> None:
    assert sum(parameter.numel() for parameter in made(text).parameters()) == count


@pytest.mark.parametrize(
    ("text", "of_x", "of_branch"),
    [
        ("none", 0, 1),
        ("identity", 1, 1),
        ("scaled", 0.5, 1),
        ("scaled:alpha=-2", -2, 1),
        ("convex:alpha=0.25", 0.25, 0.75),
        ("negation", -1, 1),
        ("fitted", 1, 1),
        ("learned-scalar:start=0", 0, 1),
        ("learned-scalar:start=1", 1, 1),
        ("learned-channels:start=0", 0, 1),
        ("learned-channels:start=1", 1, 1),
        ("rezero", 1, 0),
        ("annealed", 1, 1),
        ("annealed:start=0,end=0", 0, 1),
        ("conv:init=identity", 1, 1),
        ("dropout:rate=0", 1, 1),
        ("mixing", 1, 1),
        ("mixing:groups=1", 1, 1),
        ("doubly-stochastic:groups=1", 1, 1),
        ("doubly-stochastic:start=-80", 1, 1),
        ("birkhoff:start=-80", 1, 1),
        ("layerscale:start=1", 1, 1),
        ("layerscale:start=0.5", 1, 0.5),
        ("laurel-rw", 1, 1),
        ("laurel-lr", 1, 1),
    ],
)
def test_at_step_0_it_is_a_sum(text: str, of_x: float, of_branch: float) -> None:
    x, fx = inputs(4, 4)
    torch.testing.assert_close(made(text).double()(x, fx), of_x * x + of_branch * fx, rtol=1e-12, atol=1e-12)


def matrix(text: str, channels: int = 16, seed: int = 0) -> torch.Tensor:
    """The matrix of a linear shortcut, float64 [C, C]."""
    module = made(text, channels, seed).double()
    basis = torch.eye(channels, dtype=torch.float64)
    return module(basis, torch.zeros_like(basis)).T.detach()


def test_an_annealed_shortcut_falls_linearly() -> None:
    module = made("annealed:start=0.25,end=0.75")
    assert [module.schedule(step / 8) for step in range(9)] == [1, 1, 1, 0.75, 0.5, 0.25, 0, 0, 0]
    step = made("annealed:start=0.55,end=0.55")  # 0.55·100 is 55.00000000000001
    assert [step.schedule(done / 100) for done in (54, 55)] == [1, 0]


def test_a_permutation_is_invertible_and_moves_channels_only() -> None:
    permutation = matrix("permutation")
    assert (permutation.sum(0) == 1).all() and (permutation.sum(1) == 1).all()
    assert set(permutation.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(permutation, torch.eye(16, dtype=torch.float64))


def test_an_orthogonal_map_keeps_lengths() -> None:
    q = matrix("orthogonal")
    torch.testing.assert_close(q.T @ q, torch.eye(16, dtype=torch.float64), atol=1e-6, rtol=0)


def test_a_gaussian_map_has_the_norm_of_the_identity() -> None:
    assert matrix("gaussian").square().sum() == pytest.approx(16, rel=1e-6)


@pytest.mark.parametrize(("fraction", "rank"), [(0.5, 8), (0.25, 4), (1.0, 16), (0.01, 1)])
def test_a_low_rank_map_is_a_projection(fraction: float, rank: int) -> None:
    p = matrix(f"lowrank:fraction={fraction}")
    torch.testing.assert_close(p @ p, p, atol=1e-6, rtol=0)
    torch.testing.assert_close(p, p.T)
    assert p.trace() == pytest.approx(rank, rel=1e-5)


@pytest.mark.parametrize("text", ["permutation", "orthogonal", "gaussian", "lowrank", "conv:init=he"])
def test_random_maps_belong_to_a_seed_and_a_block(text: str) -> None:
    assert torch.equal(matrix(text), matrix(text))
    assert not torch.equal(matrix(text, seed=0), matrix(text, seed=1))
    other = SHORTCUTS.create(text, 16)
    initialise(other, 0, "stages.0.1.shortcut.")
    state = made(text, 16).state_dict()
    assert all(not torch.equal(state[name], tensor) for name, tensor in other.state_dict().items())


def test_gates() -> None:
    x, fx = inputs(4, 4)
    for name, of_branch in (("exclusive-gate", lambda g: g), ("shortcut-gate", torch.ones_like)):
        module = made(f"{name}:bias=-1.5").double()
        weight, bias = module.gate.linear.weight, module.gate.linear.bias
        assert (bias == -1.5).all()
        g = torch.sigmoid(torch.einsum("oc,bchw->bohw", weight, x) + bias[:, None, None])
        torch.testing.assert_close(module(x, fx), (1 - g) * x + of_branch(g) * fx, rtol=1e-12, atol=1e-12)


def test_closed_gates_are_the_identity() -> None:
    x, fx = inputs(4, 4)
    torch.testing.assert_close(made("exclusive-gate:bias=-60").double()(x, fx), x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(made("shortcut-gate:bias=-60").double()(x, fx), x + fx, rtol=1e-9, atol=1e-9)


def test_a_highway_block_is_the_identity_or_its_branch() -> None:
    x, fx = inputs(4, 4)
    closed, open_ = (made(f"highway:bias={bias}").double() for bias in (-60, 60))
    torch.testing.assert_close(closed(x, fx), x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(open_(x, fx), fx.relu(), rtol=1e-9, atol=1e-9)
    module = made("highway").double()
    gate = module.gate(x)
    assert torch.logit(gate).mean().item() == pytest.approx(-6, abs=1e-6)  # BN's bias, in training mode
    torch.testing.assert_close(module(x, fx), x + gate * (fx.relu() - x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("over", "axes"), [("position", (1,)), ("image", (1, 2, 3))])
def test_what_is_added_is_perpendicular_to_x(over: str, axes: tuple[int, ...]) -> None:
    x, fx = inputs(4, 4)
    module = made(f"perpendicular:over={over}")
    assert (module(x, fx) - x).mul(x).sum(axes).abs().max() < 1e-5
    parallel = 0.7 * x
    torch.testing.assert_close(module(x, parallel), x, rtol=1e-4, atol=1e-4)
    across = (fx - (fx * x).sum(axes, keepdim=True) / x.square().sum(axes, keepdim=True) * x).detach()
    torch.testing.assert_close(module(x, across), x + across, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("beta", "shrinks"), [(0.001, 0), (1.0, 1), (1.999, 2)])
def test_the_delta_rule_keeps_projects_and_reflects(beta: float, shrinks: float) -> None:
    """With v = 0 what x has along k is kept, removed or reversed; the rest of x is left alone."""
    x, fx = inputs(4, 4)
    module = made(f"delta:beta={beta}").double()
    with torch.no_grad():
        module.value_bias.fill_(-1e3)
    k = fx / fx.norm(dim=1, keepdim=True)
    along = (k * x).sum(1, keepdim=True) * k
    torch.testing.assert_close(module(x, fx), x - shrinks * along, rtol=0, atol=1e-2)
    torch.testing.assert_close(module(x, 3 * fx), module(x, fx), rtol=0, atol=1e-9)


def test_the_delta_rule_writes_v() -> None:
    x, fx = inputs(4, 4)
    out = made("delta:beta=1").double()(x, fx)
    k = fx / fx.norm(dim=1, keepdim=True)
    torch.testing.assert_close((k * out).sum(1), torch.full((2, 4, 4), 2.0).double(), rtol=1e-9, atol=1e-9)


def grouped(text: str) -> torch.Tensor:
    """The matrix by which groups are mixed, with parameters far from the start."""
    module = made(text).double()
    stream = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=stream))
    return module.mixing().detach()


def test_groups_are_mixed_whole() -> None:
    x, fx = inputs(4, 4)
    module = made("mixing:groups=4").double()
    with torch.no_grad():
        module.mixing.weight.copy_(torch.randn(4, 4))
    expected = torch.kron(module.mixing.weight, torch.eye(C // 4).double())
    torch.testing.assert_close(module(x, fx), torch.einsum("oc,bchw->bohw", expected, x) + fx)


@pytest.mark.parametrize(
    ("text", "error"), [("doubly-stochastic", 1e-3), ("birkhoff", 1e-12), ("birkhoff:groups=2", 1e-12)]
)
def test_constrained_mixing_is_doubly_stochastic(text: str, error: float) -> None:
    matrix = grouped(text)
    assert (matrix > 0).all()
    torch.testing.assert_close(matrix.sum(0), torch.ones(len(matrix)).double(), rtol=0, atol=error)
    torch.testing.assert_close(matrix.sum(1), torch.ones(len(matrix)).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("start", [-8.0, -4.0])
def test_sinkhorn_starts_near_the_identity(start: float) -> None:
    off = torch.tensor(start).exp() / (1 + 3 * torch.tensor(start).exp())
    matrix = made(f"doubly-stochastic:start={start}").mixing().detach()
    torch.testing.assert_close(matrix, off + (1 - 4 * off) * torch.eye(4))


def test_unconstrained_mixing_is_not() -> None:
    matrix = grouped("mixing")
    assert (matrix < 0).any() and (matrix.sum(1) - 1).abs().max() > 0.1


def test_post_norm_and_sphere_fix_the_length() -> None:
    x, fx = inputs(4, 4)
    for text in ("post-norm", "sphere"):
        out = made(text).double()(7 * x, fx)
        torch.testing.assert_close(out.square().mean(1), torch.ones(2, 4, 4).double(), rtol=1e-2, atol=0)
    of_x, of_branch = made("sphere:start=0").double()(x, fx), made("sphere:start=1").double()(x, fx)
    torch.testing.assert_close(of_x, x / x.square().mean(1, keepdim=True).sqrt(), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(of_branch, fx / fx.square().mean(1, keepdim=True).sqrt(), rtol=1e-3, atol=1e-3)


def test_hyper_connections_read_write_and_mix() -> None:
    x, fx = inputs(4, 4)
    module = made("hyper:streams=3").double()
    assert module.reading.sum() == 1 and module.reading.max() == 1
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    h = tiled(module, x)
    torch.testing.assert_close(module.read(h), sum(module.reading[i] * h[:, i] for i in range(3)))
    out = module(h, fx)
    for i in range(3):
        mixed = sum(module.mixing.weight[i, j] * h[:, j] for j in range(3))
        torch.testing.assert_close(out[:, i], mixed + module.writing[i] * fx)


def test_depth_attention_keeps_all_outputs_and_reads_their_mean_at_first() -> None:
    x, fx = inputs(4, 4)
    module = made("depth-attention").double()
    outputs = module(module(x.unsqueeze(1), fx), 2 * fx)
    assert torch.equal(outputs, torch.stack([x, fx, 2 * fx], 1))
    torch.testing.assert_close(module.read(outputs), outputs.mean(1))
    with torch.no_grad():
        module.query.copy_(1e3 * x[0, :, 0, 0] / x[0, :, 0, 0].norm())
    torch.testing.assert_close(module.read(outputs)[0, :, 0, 0], x[0, :, 0, 0])  # the output that is most like q
    assert module.read(outputs[:, :, : C // 2]).shape == (2, C // 2, 4, 4)


def test_dropout_drops_its_rate_in_training_and_nothing_in_evaluation() -> None:
    module = made("dropout:rate=0.25")
    x, fx = torch.ones(64, C, 8, 8), torch.zeros(64, C, 8, 8)
    module.noise = module.draw(torch.Generator().manual_seed(0), 64)
    out = module(x, fx)
    kept = torch.tensor([0.0, 1 / 0.75])
    assert torch.equal(out.unique(), kept)
    assert (out == 0).float().mean() == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / out.numel()) ** 0.5)
    assert torch.equal(out, module(x, fx))
    assert torch.equal(module.eval()(x, fx), x)
    assert not module.state_dict()


def test_hashed_numbers_are_uniform_and_independent() -> None:
    keys = torch.randint(2**62, (400,), generator=torch.Generator().manual_seed(1))
    numbers = uniform_from_keys(keys, 500)
    assert numbers.min() >= 0 and numbers.max() < 1
    counts = torch.histc(numbers, 20, 0, 1)
    assert ((counts - 10_000).abs() < 5 * 10_000**0.5).all()
    for other in (numbers.roll(1, 0), numbers.roll(1, 1)):  # from one image to the next, and from one element to it
        assert abs(torch.corrcoef(torch.stack([numbers.flatten(), other.flatten()]))[0, 1]) < 5 / 200_000**0.5
    assert numbers.unique().numel() > 190_000


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dropout:rate=1", "rate must be at least 0 and below 1"),
        ("lowrank:fraction=0", "fraction must be above 0"),
        ("delta:beta=2", "beta must be above 0 and below 2"),
        ("perpendicular:over=channel", "over must be position or image"),
        ("mixing:groups=3", "groups: 8 channels do not divide into 3"),
        ("birkhoff:groups=8", "groups: 8 have too many permutations"),
        ("hyper:streams=0", "streams: must be 1 or more"),
        ("laurel-lr:rank=0", "rank must be 1 or more"),
        ("conv:init=zeros", "init must be identity or he"),
        ("laurel-lr:rank=9", "at most its 8 channels"),
        ("laurel-lr:rank=2.5", "rank must be a whole number"),
        ("exclusive-gate:bias=nan", "bias must be a number"),
        ("hyper:", "write arguments as name:key=value"),
        ("hyper:streams=2,", "write arguments as name:key=value"),
        ("hyper:streams=2,streams=3", "streams is given twice"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(text: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        SHORTCUTS.create(text, C)
