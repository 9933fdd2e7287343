"""Any trained network as blocks: recognised, proved by replay, and handed to the measurements.

Three steps, each of which refuses in one line. A known layout (model/layouts.py) is loaded into this project's own
network, if both give the same outputs. In any other module residual additions are found in a recorded pass
(measurements/dataflow.py). Each is then replayed: y must come out as the model itself gives it where S(x) and F(x) are
taken apart and added anew, so that a lesion of the block is exactly F = 0 (Veit et al. 2016).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from resx import model as models
from resx.measurements.dataflow import NORMS, Addition, Node, Recorder, Refusal, cone, residual_additions
from resx.measurements.gradients import gradients
from resx.measurements.landscape import landscape
from resx.measurements.lesions import lesions
from resx.measurements.linear import linear_maps
from resx.measurements.paths import paths
from resx.measurements.responses import responses
from resx.measurements.spectrum import spectrum
from resx.measurements.taps import Blocks, passages
from resx.measurements.traced import Traced, TracedBlock, placed, unchanged
from resx.model import Network
from resx.model.layouts import LAYOUTS
from resx.spec import SpecError, did_you_mean, with_kind

TOLERANCE = 1e-4  # of the largest value: what rounding may make of the same sum
INPUTS = 128  # that gradients, responses and spectra take at most

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Adopted:
    """A network that the measurements take. network: this project's own, or the model itself with taps.

    blocks: what each block is, how it was recognised, and how far the replay was from the model. refused: additions
    that are not blocks, and why.
    """

    network: Blocks
    blocks: tuple[TracedBlock, ...]
    refused: tuple[Refusal, ...] = ()


def adopt(
    model: nn.Module, example: Tensor | None = None, *, blocks: Sequence[str] | None = None, layouts: bool = True
) -> Adopted:
    """Find and prove the residual blocks of a trained model, which stays as it is.

    example: a batch of inputs as the model takes them; a known layout needs none. blocks: names of modules, or patterns
    such as layer*.*; a named module without a shortcut is a plain layer, which can be left out where it keeps the shape
    of its input. layouts: whether a known layout is loaded into this project's own network. Raises SpecError where the
    model has no blocks, a name fits none, or the replay gives something else.
    """
    if layouts and blocks is None:
        if isinstance(model, Network):
            return Adopted(model, _described(model, example, "the network's own", 0.0))
        if layout := _known(model, example):
            return layout
    if example is None:
        raise SpecError("adopt: this is no known layout; give example=, a batch of inputs as the model takes them")
    network = Traced(model, example)
    try:
        recorder = network.record(training=False)
    except Exception as error:  # a user's module may fail in any way; the user needs the reason
        raise SpecError(f"adopt: the model fails on the example ({with_kind(error)})") from error
    additions, refused = residual_additions(recorder)
    if blocks is not None:
        additions = {name: one for name, one in additions.items() if _fits(blocks, name, one.holder[0])}
    plain = _plain_layers(model, recorder, blocks or [], additions)
    if not additions and not plain:
        raise SpecError(_no_blocks(recorder, refused, blocks))

    def place(block: TracedBlock) -> int:
        return additions[block.name].total if block.reads_x else recorder.returned[block.module, 0]

    stages: dict[tuple[int, ...], int] = {}
    sums = [_block(recorder, name, one, stages, blocks is not None) for name, one in additions.items()]
    network.describe(sorted([*sums, *plain], key=place))
    proved = _proved(network, recorder, additions, refused)
    taken = [additions[block.name] for block in proved if block.reads_x]
    before = sum(recorder.nodes[k].weighted for k in cone(recorder.nodes, taken[0].x, -1)) if taken else 0
    network.describe(proved, _response_layers(model, recorder, taken), before)
    return Adopted(network, tuple(proved), tuple(refused))


# --- known layouts -------------------------------------------------------------------------------------------------


def _known(model: nn.Module, example: Tensor | None) -> Adopted | None:
    """Return the model in this project's own network, if its layout is known and its outputs are equal."""
    state = model.state_dict()
    weights = [name for name, tensor in state.items() if tensor.dim() > 1 and ".downsample." not in name]
    head = state[weights[-1]] if weights else torch.empty(0)
    for layout in LAYOUTS.values():
        if layout.model.depth != len(weights) or head.dim() != 2:
            continue
        try:
            translated = layout.translated(state, outputs=len(head))
        except SpecError:
            continue
        drawn = torch.randn(2, *layout.input_shape, generator=torch.Generator().manual_seed(0))
        x = placed(drawn if example is None else example, model)
        own = models.build(layout.model, tuple(x.shape[1:]), len(head), 0)
        assert isinstance(own, Network)
        own.load_state_dict(translated)
        own.to(head.device, head.dtype)
        difference = _difference(model, own, x)
        if difference < TOLERANCE:
            own.train(model.training)
            return Adopted(own, _described(own, x, f"layout {layout.name}", difference))
    return None


def _difference(model: nn.Module, own: nn.Module, x: Tensor) -> float:
    """Return how far the outputs of two networks are apart in eval mode, over the largest of them."""
    with unchanged(model), torch.no_grad():
        theirs, ours = model.eval()(x), own.eval()(x)
    return float((theirs - ours).abs().max() / theirs.abs().max())


def _described(network: Network, example: Tensor | None, how: str, difference: float) -> tuple[TracedBlock, ...]:
    """Describe the blocks of this project's own network; their shapes need an example."""
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}
    if example is not None:
        with unchanged(network), torch.no_grad(), passages(network) as passed:
            network.eval()(placed(example, network))
            shapes = {name: (tuple(one.x.shape), tuple(one.out.shape)) for name, one in passed.items()}
    blocks = []
    for block in network.blocks:
        adapter = "+".join(name for name, _ in block.adapter.named_children()) or "identity"
        into, out = shapes.get(block.name, ((), ()))
        blocks.append(TracedBlock(block.name, into, out, adapter if block.reads_x else "none", how, difference))
    return tuple(blocks)


# --- traced models -------------------------------------------------------------------------------------------------


def _fits(patterns: Iterable[str], *names: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns for name in names)


def _plain_layers(
    model: nn.Module, recorder: Recorder, patterns: Sequence[str], additions: Mapping[str, Addition]
) -> list[TracedBlock]:
    """Return the named modules that hold no residual addition and keep the shape of their input.

    Raises SpecError for a pattern that names nothing, and a name whose module cannot be left out.
    """
    layers = []
    modules = dict(model.named_modules())
    for pattern in patterns:
        if any(_fits([pattern], name, one.holder[0]) for name, one in additions.items()):
            continue
        shapes = {name: _shapes(recorder, name) for name in modules if name and fnmatchcase(name, pattern)}
        if not shapes:
            raise SpecError(f"blocks: no module '{pattern}'{did_you_mean(pattern, modules)}")
        fitting = {name: shape for name, shape in shapes.items() if shape and shape[0] == shape[1]}
        if not fitting:
            raise SpecError(
                f"blocks: '{pattern}' holds no residual addition, and its output does not have the shape of its input, "
                "so it cannot be left out"
            )
        for name, shape in fitting.items():
            layers.append(
                TracedBlock(name, *shape, "none", "named; it has no shortcut", module=name, whole=True, reads_x=False)
            )
    return layers


def _shapes(recorder: Recorder, name: str) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    call = (name, 0)
    if call not in recorder.given or call not in recorder.returned or (name, 1) in recorder.given:
        return None
    return tuple(recorder.nodes[places[call]].shape for places in (recorder.given, recorder.returned))  # type: ignore


def _block(
    recorder: Recorder, name: str, one: Addition, stages: dict[tuple[int, ...], int], is_named: bool
) -> TracedBlock:
    nodes = recorder.nodes
    way = [nodes[k].function for k in sorted(cone(nodes, one.shortcut, one.x))]
    into, out = nodes[one.x].shape, nodes[one.out].shape
    whole = recorder.given.get(one.holder) == one.x and recorder.returned.get(one.holder) == one.out
    alone = name == one.holder[0]  # the only block of its module, which is called once
    return TracedBlock(
        name=name,
        into=into,
        out=out,
        shortcut="+".join(way) or "identity",
        how="named" if is_named else "found",
        module=one.holder[0],
        whole=whole and alone,
        stage=stages.setdefault(out[1:], len(stages)),
        layers=one.branch_layers,
        channel_axis=_channel_axis(nodes, one),
    )


def _channel_axis(nodes: Sequence[Node], one: Addition) -> int:
    """Return the dimension of y that has as many entries as the branch's last layer has channels.

    Where several have, it is the last one of a sequence [B, T, C] and the second one of images [B, C, H, W].
    """
    widths = [nodes[k].width for k in sorted(cone(nodes, one.branch, one.x)) if nodes[k].weighted]
    shape = nodes[one.out].shape
    axes = [axis for axis in range(1, len(shape)) if widths and shape[axis] == widths[-1]]
    return 1 if not axes or (len(shape) == 4 and 1 in axes) else axes[-1]


def _response_layers(model: nn.Module, recorder: Recorder, additions: Sequence[Addition]) -> list[str]:
    """Return the modules whose outputs are the layers' responses, as `responses.response_names` says."""
    modules = dict(model.named_modules())
    in_branches = {k for one in additions for k in cone(recorder.nodes, one.branch, one.x)}
    in_shortcuts = {k for one in additions for k in cone(recorder.nodes, one.shortcut, one.x)} - in_branches
    weighted = [node for node in recorder.nodes if node.weighted and node.calls[-1][0] in modules]
    kernels = {node.number: getattr(modules[node.calls[-1][0]], "kernel_size", None) for node in weighted}
    convs = [node for node in weighted if kernels[node.number] == (3, 3) and node.number not in in_shortcuts]
    layers = []
    for node in convs or [node for node in weighted if node.number in in_branches]:
        readers = [recorder.nodes[k] for k in node.readers]
        follows = len(readers) == 1 and readers[0].function in NORMS
        layers.append((readers[0] if follows else node).calls[-1][0])
    return list(dict.fromkeys(layers))


def _no_blocks(recorder: Recorder, refused: Sequence[Refusal], patterns: Sequence[str] | None) -> str:
    """Say why a model has no blocks, in a line that says what can be done."""
    if patterns is not None:
        return f"blocks: nothing fits {', '.join(patterns)}"
    if refused:
        reason = f"{refused[0].reason} ({refused[0].where})"
        return f"adopt: no residual blocks: {len(refused)} additions of two values are none; the first: {reason}"
    if recorder.joins:
        joins = f"values are joined by concatenation ({recorder.joins} times), never by addition"
        return f"adopt: no residual blocks: {joins}"
    shapes = {name: _shapes(recorder, name) for name, _ in recorder.given if name}
    keeping = [name for name, pair in shapes.items() if pair and pair[0] == pair[1]]
    advice = f"; name layers that can be left out with blocks=, such as {keeping[0]}" if keeping else ""
    return f"adopt: no residual blocks: nothing is added to an earlier value{advice}"


def _proved(
    network: Traced, recorder: Recorder, additions: Mapping[str, Addition], refused: list[Refusal]
) -> list[TracedBlock]:
    """Replay the example with every sum taken apart, and return the blocks with how far each was from the model.

    A block whose y differs by more than rounding, or whose identity shortcut carries something else than x, is refused.
    """
    proved = []
    with passages(network) as passed:
        network.replay()
        for block in network.blocks:
            if not block.reads_x:
                proved.append(block)
                continue
            one, passage = additions[block.name], passed[block.name]
            pairs = [(passage.out, recorder.copies[one.out])] + (
                [(passage.adapted, passage.x)] if one.shortcut == one.x else []
            )
            difference = max(_apart(*pair) for pair in pairs)
            if difference < TOLERANCE:
                proved.append(replace(block, difference=difference))
            else:
                reason = f"replayed, its output differs by {difference:.2g} of the largest value"
                refused.append(Refusal(block.name, reason))
    if not proved:
        raise SpecError(f"adopt: no block is as it was found: {refused[-1].reason}")
    return proved


def _apart(one: Tensor, other: Tensor) -> float:
    """Return the largest difference of two values, over the largest of the second."""
    return float((one - other).abs().max() / other.abs().max().clamp(min=torch.finfo(other.dtype).tiny))


# --- measuring -----------------------------------------------------------------------------------------------------


def measure(
    name: str,
    network: Adopted | nn.Module,
    data: Iterable[Batch],
    *,
    statistics: Iterable[Batch] | None = None,
    **settings: Any,
) -> pd.DataFrame:
    """Measure an adopted network on batches (x, y) of a data loader or a list; return the measurement's tidy table.

    name: a key of MEASUREMENTS. A model that is not adopted yet is, with the first batch as example. statistics:
    batches for re-estimated statistics of normalisations, by default the same data. settings: keyword arguments of the
    measurement. Lesions and landscape run in eval mode, everything else in the mode that the network has; it is as it
    was afterwards. Raises SpecError for an unknown name.
    """
    if name not in MEASUREMENTS:
        raise SpecError(f"measure: no '{name}'{did_you_mean(name, MEASUREMENTS)}; there are {', '.join(MEASUREMENTS)}")
    batches = list(data)
    adopted = network if isinstance(network, Adopted) else adopt(network, batches[0][0])
    blocks = adopted.network
    device = next(blocks.parameters()).device
    batches = [(placed(x, blocks), y.to(device)) for x, y in batches]
    inputs = [x for x, _ in batches] if statistics is None else [placed(x, blocks) for x, _ in statistics]
    task = "regression" if batches[0][1].is_floating_point() else "classification"
    with unchanged(blocks):
        return MEASUREMENTS[name](blocks, batches, inputs, task, **settings)


def _first(batches: list[Batch], images: int) -> Batch:
    x, y = zip(*batches[:images], strict=True)  # a batch has at least one image
    return torch.cat(x)[:images], torch.cat(y)[:images]


def _paths(
    network: Blocks, batches: list[Batch], inputs: list[Tensor], task: str, images: int = 32, samples: int = 2
) -> pd.DataFrame:
    x, y = _first(batches, images)
    return paths(copy.deepcopy(network).double(), x.double(), y, task, samples)


# each takes the network, batches, inputs for re-estimated statistics, the task and settings of its own
MEASUREMENTS: dict[str, Callable[..., pd.DataFrame]] = {
    "lesions": lambda net, batches, inputs, task, **settings: lesions(net.eval(), batches, inputs, task, **settings),
    "responses": lambda net, batches, inputs, task, images=INPUTS: responses(net, _first(batches, images)[0]),
    "gradients": lambda net, batches, inputs, task, images=INPUTS: gradients(net, *_first(batches, images), task),
    "paths": _paths,
    "landscape": lambda net, batches, inputs, task, **settings: landscape(net, batches, task, **settings),
    "linear": lambda net, batches, inputs, task: linear_maps(net, [x for x, _ in batches]),
    "spectrum": lambda net, batches, inputs, task, images=16: spectrum(net, _first(batches, images)[0]),
}
