"""Initial weights that come from another run: `init_from` names the parent and a transformation of its weights.

A transformation takes the parent's network (in eval mode, with its last weights), the new network (initialised by its
seed) and the run's batches (for inputs as the network sees them), and returns the new network's initial state.
`deepen` carries out the existence argument of He et al. 2016, section 1.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path

import torch
from torch import Tensor, nn

from resx import model
from resx.data import Dataset
from resx.data.batches import Batches
from resx.model import Network
from resx.model.subset import SubsetNetwork
from resx.registry import Registry
from resx.spec import RunSpec, SpecError
from resx.store.run import read_run

STATISTICS_BATCH = 250  # images at a time for statistics of the training images
FITTED_IMAGES = 2000  # for fitting a linear map; every position of an image counts, so they are plenty
RIDGE = 1e-3  # of the mean square of the inputs

Transform = Callable[[nn.Module, nn.Module, Batches], Mapping[str, Tensor]]
TRANSFORMS: Registry[Transform] = Registry("transformation")


@TRANSFORMS.register("same")
def same(parent: nn.Module, child: nn.Module, batches: Batches) -> Mapping[str, Tensor]:
    """The parent's weights as they are, for a restart; momentum starts at zero."""
    return parent.state_dict()


@TRANSFORMS.register("deepen")
def deepen(parent: nn.Module, child: nn.Module, batches: Batches) -> Mapping[str, Tensor]:
    """A deeper plain network with the parent's outputs: per stage its blocks, then blocks that compute the identity.

    A new block has Dirac kernels. Its input comes from a ReLU and is not negative, so its own ReLUs change nothing.
    Each new normalisation has the mean and variance of the training images there as running statistics and undoes them
    with its bias and gain: the identity in eval mode, and nearly so in training. The state is float64, in which the
    outputs agree to rounding; a float32 network takes it rounded. Raises SpecError for networks that cannot be
    deepened so.
    """
    if not isinstance(parent, Network) or not isinstance(child, Network):
        raise SpecError("deepen: needs networks of blocks")
    reason = _not_deepened(parent, child)
    if reason:
        raise SpecError(f"deepen: {reason}")
    parent, child = copy.deepcopy(parent).double().eval(), copy.deepcopy(child).double()
    outputs = [list(stage.children())[-1] for stage in parent.stages]
    moments = _channel_moments(
        parent, outputs, (x.double() for x, _ in batches.evaluation("train", None, STATISTICS_BATCH))
    )
    for name in ("stem", "final", "head"):
        child.get_submodule(name).load_state_dict(parent.get_submodule(name).state_dict())
    for old, new, (mean, variance) in zip(parent.stages, child.stages, moments, strict=True):
        for block, twin in zip_longest(new.children(), old.children()):
            if twin is None:
                _make_identity(block, mean, variance)
            else:
                block.load_state_dict(twin.state_dict())
    return child.state_dict()


def _not_deepened(parent: Network, child: Network) -> str | None:
    if any(getattr(block.shortcut, "reads_x", True) for block in [*parent.blocks, *child.blocks]):
        return "only a plain network's blocks can compute the identity; use shortcut none"
    if not all(isinstance(block.activation, nn.ReLU) for block in [*parent.blocks, *child.blocks]):
        return "the original order is needed, in which a block's input is not negative"
    sizes = [[len(list(stage.children())) for stage in network.stages] for network in (parent, child)]
    if len(sizes[0]) != len(sizes[1]) or any(new < old for old, new in zip(*sizes, strict=True)):
        return f"blocks per stage go from {sizes[0]} to {sizes[1]}; no stage may lose any"
    added = [block for stage, n in zip(child.stages, sizes[0], strict=True) for block in list(stage.children())[n:]]
    convs = [part for block in added for part in block.modules() if isinstance(part, nn.Conv2d)]
    if any(conv.in_channels != conv.out_channels or conv.stride != (1, 1) for conv in convs):
        return "the new blocks' convolutions must keep the number of channels"
    return None


@torch.no_grad()
def _channel_moments(
    network: nn.Module, places: list[nn.Module], inputs: Iterable[Tensor]
) -> list[tuple[Tensor, Tensor]]:
    """Return mean and variance [channels] of each module's output, over inputs and positions."""
    sums = [torch.zeros(3, 1, dtype=torch.float64) for _ in places]

    def collect(place: int) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: object, output: Tensor) -> None:
            values = output.transpose(0, 1).flatten(1)
            count = torch.full_like(values[:, 0], values.shape[1])
            sums[place] = sums[place].to(values.device) + torch.stack([count, values.sum(1), values.square().sum(1)])

        return hook

    with ExitStack() as stack:
        for place, module in enumerate(places):
            stack.enter_context(module.register_forward_hook(collect(place)))
        for batch in inputs:
            network(batch)
    return [(total / n, (squares / n - (total / n).square()).clamp(min=0)) for n, total, squares in sums]


@torch.no_grad()
def _make_identity(block: nn.Module, mean: Tensor, variance: Tensor) -> None:
    """Make a block compute the identity for non-negative inputs with these moments [channels]."""
    for part in block.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.dirac_(part.weight)
            if part.bias is not None:
                part.bias.zero_()
        elif isinstance(part, nn.BatchNorm2d):
            assert part.running_mean is not None and part.running_var is not None
            part.running_mean.copy_(mean)
            part.running_var.copy_(variance)
            part.weight.copy_((variance + part.eps).sqrt())
            part.bias.copy_(mean)


@TRANSFORMS.register("fitted")
def fitted(parent: nn.Module, child: nn.Module, batches: Batches) -> Mapping[str, Tensor]:
    """The child's own initial weights, each block's fixed shortcut set to the best linear map in the parent.

    M minimises Σ|M x − y|² + λ‖M‖² over training images and positions: x is the input of the parent's block after
    the child's adapter (option A at a mismatch, even for a plain parent), y the block's sum before the activation,
    and λ is a thousandth of the mean of x² times their number. M becomes the buffer `map` [C, C] of the child's
    shortcut. Raises SpecError where a shortcut has no such buffer or the blocks of the two networks differ.
    """
    if not isinstance(parent, Network) or not isinstance(child, Network):
        raise SpecError("fitted: needs networks of blocks")
    reason = _not_fitted(parent, child)
    if reason:
        raise SpecError(f"fitted: {reason}")
    inputs = (x for x, _ in batches.evaluation("train", FITTED_IMAGES, STATISTICS_BATCH))
    state = dict(child.state_dict())
    for block, (xx, yx) in zip(child.blocks, _block_products(parent, child, inputs), strict=True):
        state[f"{block.name}.shortcut.map"] = best_map(xx, yx).to(state[f"{block.name}.shortcut.map"].dtype)
    return state


def best_map(xx: Tensor, yx: Tensor) -> Tensor:
    """Return the M [C, C] that minimises Σ|M x − y|² + λ‖M‖², from Σ x xᵀ and Σ y xᵀ; λ as `fitted` says."""
    ridge = RIDGE * xx.diagonal().mean() * torch.eye(len(xx), dtype=xx.dtype, device=xx.device)
    return torch.linalg.solve(xx + ridge, yx, left=False)


def _not_fitted(parent: Network, child: Network) -> str | None:
    if any("map" not in dict(block.shortcut.named_buffers()) for block in child.blocks):
        return "every shortcut of the new network needs a fixed map (a buffer `map`), such as shortcut fitted has"
    if len(parent.blocks) != len(child.blocks):
        return f"the networks have {len(parent.blocks)} and {len(child.blocks)} blocks; they must have the same depth"
    return None


@torch.no_grad()
def _block_products(parent: Network, child: Network, inputs: Iterable[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Return Σ x xᵀ and Σ y xᵀ, float64 [C, C], of each block of the parent, with x and y as in `fitted`."""
    child = copy.deepcopy(child).eval()
    products: dict[int, tuple[Tensor, Tensor]] = {}
    for batch in inputs:
        h = parent.stem(batch)
        for place, (block, twin) in enumerate(zip(parent.blocks, child.blocks, strict=True)):
            y = block.shortcut(block.adapter(h), block.residual(h))
            rows, sums = (t.movedim(1, -1).flatten(0, -2).double() for t in (twin.adapter(h), y))
            if rows.shape != sums.shape:
                raise SpecError(f"fitted: {twin.name} has {rows.shape[1]} channels, the parent's has {sums.shape[1]}")
            xx, yx = rows.T @ rows, sums.T @ rows
            if place in products:
                xx, yx = products[place][0] + xx, products[place][1] + yx
            products[place] = xx, yx
            h = block.activation(y)
    return list(products.values())


def unloaded_network(spec: RunSpec, dataset: Dataset) -> nn.Module:
    """Build a run's network as its seed initialises it, without the weights of `init_from`."""
    network = model.build(spec.model, dataset.input_shape, dataset.n_outputs, spec.seed)
    return network if spec.train.active_blocks is None else SubsetNetwork(network, spec.train.active_blocks)


def build_network(spec: RunSpec, dataset: Dataset, results: Path) -> nn.Module:
    """Build a run's network with the weights that its training starts from.

    With `active_blocks` it trains a subset of its blocks at each step. Raises SpecError where the parent is not
    recorded or its weights do not fit, for an impossible number of blocks, and for weights that were trained elsewhere.
    """
    if spec.foreign is not None:
        raise SpecError(
            f"{spec.run_id}: its weights were trained elsewhere, and it is not recorded here; give --weights"
        )
    network = unloaded_network(spec, dataset)
    if spec.init_from is None:
        return network
    folder = results / "runs" / spec.init_from.run
    if not (folder / "result.json").exists():
        raise SpecError(f"init_from: run {spec.init_from.run} is not finished in {results}; train it first")
    parent_run = read_run(folder)
    parent = model.build(parent_run.spec.model, dataset.input_shape, dataset.n_outputs, parent_run.spec.seed)
    parent.load_state_dict(parent_run.load_weights())
    batches = Batches(dataset, spec.data, spec.train.batch_size, spec.seed, "cpu")
    state = TRANSFORMS[spec.init_from.transform](parent.eval(), network, batches)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise SpecError(
            f"init_from: the weights of {spec.init_from.run} after '{spec.init_from.transform}' do not fit "
            f"the network of this run ({str(error).splitlines()[-1].strip()})"
        ) from error
    return network
