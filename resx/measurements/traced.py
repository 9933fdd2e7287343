"""Any module as a network of residual blocks: its forward passes are its own, and its residual additions are taps.

Nothing of the model is rewritten. In a pass, each accepted addition S(x) + F(x) is recognised as the operation that it
was in the recorded pass (measurements/dataflow.py), so that x, S(x), F(x), their sum and what follows it can be looked
at, and F(x) replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from resx.measurements.dataflow import (
    ADDITIONS,
    IN_PLACE,
    Addition,
    Call,
    Calls,
    Key,
    Node,
    Recorder,
    record,
    residual_additions,
    tensors_in,
)
from resx.spec import SpecError


@dataclass(frozen=True)
class TracedBlock:
    """A block of a traced network: y = activation(S(x) + F(x)).

    into, out: shapes of x and y for the example. shortcut: the operations of S. how: what it was recognised by.
    difference: between y as the model gave it and as it is when S(x) and F(x) are added anew, the largest over the
    example. module: the module that holds it; whole: x is all that this module reads and y what it returns, so that it
    can stand in another's place. stage: blocks with maps of one size. layers: weighted ones in the branch.
    channel_axis: the dimension of y that holds the channels. reads_x: whether there is a shortcut; without, the module
    is a plain layer that can only be left out.
    """

    name: str
    into: tuple[int, ...]
    out: tuple[int, ...]
    shortcut: str
    how: str
    difference: float = 0.0
    module: str = field(default="", repr=False)
    whole: bool = field(default=False, repr=False)
    stage: int = field(default=0, repr=False)
    layers: int = field(default=0, repr=False)
    channel_axis: int = field(default=1, repr=False)
    reads_x: bool = field(default=True, repr=False)

    @property
    def keeps_shape(self) -> bool:
        """Whether it can be left out or moved without changing shapes."""
        return self.whole and self.into == self.out


@dataclass(frozen=True)
class Passage:
    """What went through one block in a forward pass: out = activation(total), total = S(x) + F(x) in a residual block.

    adapted is S(x), what stands on the shortcut, and branched F(x). Both are tensors of their own in the graph, so that
    the gradient of `total` with respect to one does not contain the way through the other.
    """

    x: Tensor
    adapted: Tensor
    branched: Tensor
    total: Tensor
    out: Tensor


@dataclass(frozen=True)
class Places:
    """Where the blocks' values are computed in one mode of the model: operations by block and role."""

    additions: Mapping[Key, tuple[str, int]]  # block, which operand is the shortcut's
    values: Mapping[Key, tuple[tuple[str, str, int], ...]]  # block, role (x or out), which tensor of the result
    first: tuple[str, ...]  # blocks whose x is the model's input
    separate: frozenset[Key]  # where x is changed in place later, so that it needs a copy


class Traced(nn.Module):
    """A model with its blocks. Parameters, buffers and submodules are the model's own, under the model's own names.

    example: inputs for the recorded passes, one tensor. Raises SpecError where the model takes anything else.
    """

    model: nn.Module
    blocks: Sequence[TracedBlock]
    response_layers: Sequence[str]  # modules whose outputs are the layers' responses
    stem_layers: int  # weighted ones before the first block
    _example: Tensor
    _places: dict[bool, Places]

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        self.__dict__["model"] = model  # nn.Module sets the mode, which is the model's
        mode = model.training
        super().__init__()
        # past nn.Module's own attributes, among which the model may have names such as `blocks`
        self.__dict__.update(_example=example.detach().cpu(), _places={})
        self.describe(())
        self._parameters, self._buffers, self._modules = model._parameters, model._buffers, model._modules
        self.training = mode

    def describe(
        self, blocks: Sequence[TracedBlock], response_layers: Sequence[str] = (), stem_layers: int = 0
    ) -> None:
        """Set what is known of the model's blocks."""
        self.__dict__.update(blocks=tuple(blocks), response_layers=response_layers, stem_layers=stem_layers)

    def get_submodule(self, target: str) -> nn.Module:
        return self.model.get_submodule(target)

    def set_submodule(self, target: str, module: nn.Module, strict: bool = False) -> None:
        self.model.set_submodule(target, module, strict)

    def get_parameter(self, target: str) -> nn.Parameter:
        return self.model.get_parameter(target)

    def forward(self, x: Tensor) -> Any:
        return self.model(x)

    @property
    def training(self) -> bool:
        """Return the model's own mode, whoever set it."""
        return self.model.training

    @training.setter
    def training(self, mode: bool) -> None:
        self.model.training = mode

    def record(self, training: bool) -> Recorder:
        """Record a pass over the example in this mode."""
        return self._on_example(training, record)

    def replay(self) -> None:
        """Run a pass over the example in eval mode, for whatever context looks at it."""
        self._on_example(False, lambda model, example: model(example))

    def _on_example(self, training: bool, run: Callable[[nn.Module, Tensor], Any]) -> Any:
        """Run the model on the example without gradients; its state and torch's are as before afterwards."""
        with unchanged(self.model), torch.no_grad():
            self.model.train(training)
            return run(self.model, placed(self._example, self.model))

    def places(self, training: bool) -> Places:
        """Return where the blocks' values are computed in this mode. Raises SpecError where it has other blocks."""
        if training not in self._places:
            recorder = self.record(training)
            additions, _ = residual_additions(recorder)
            wanted = {block.name for block in self.blocks if block.reads_x}
            if missing := wanted - additions.keys():
                mode = "training" if training else "eval"
                raise SpecError(f"in {mode} mode the model has no block {min(missing)}; measure it in the other")
            taken = {name: one for name, one in additions.items() if name in wanted}
            self._places[training] = places_of(recorder.nodes, taken)
        return self._places[training]

    @contextmanager
    def passed(
        self, branch: Callable[[Tensor], Tensor] | None = None, without: Collection[str] = ()
    ) -> Iterator[dict[str, Passage]]:
        """Collect what goes through each block, by its name, in every pass; or leave branches out.

        branch: what replaces F(x). without: names of blocks whose F(x) is left out, S(x) alone remaining;
        of a plain layer its input remains.
        """
        tap = Tap(self, branch, frozenset(without))
        with ExitStack() as stack:
            for block in self.blocks:
                if not block.reads_x:
                    module = self.get_submodule(block.module)
                    stack.enter_context(module.register_forward_hook(tap.plain(block.name)))
            stack.enter_context(tap.following())
            yield tap.passed


class Tap(Calls):
    """One context's taps on the blocks of a traced network."""

    def __init__(self, network: Traced, branch: Callable[[Tensor], Tensor] | None, without: frozenset[str]) -> None:
        super().__init__(network.model)
        self.branch, self.without = branch, without
        self.looks = not without
        self.seen: dict[str, dict[str, Tensor]] = {}
        self.passed: dict[str, Passage] = {}
        self.by_mode = {mode: network.places(mode) for mode in {False, network.training}}
        self.blocks = network.blocks

    def plain(self, name: str) -> Any:
        """Return the hook of a plain layer that is a block."""

        def hook(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor | None:
            if name in self.without:
                return inputs[0]
            fx = self.branch(output) if self.branch else output
            self.seen[name] = {"x": inputs[0], "adapted": inputs[0], "branched": fx, "total": fx, "out": fx}
            return fx

        return hook

    def entered(self, call: Call, inputs: tuple[Any, ...]) -> None:
        if call == ("", 0):
            self.seen = {block.name: {} for block in self.blocks}
            self.places = self.by_mode[self.root.training]
            for name in self.places.first:
                self.seen[name]["x"] = inputs[0]

    def left(self, call: Call, output: Any) -> None:
        if call == ("", 0) and self.looks:
            self.passed.update({name: Passage(**parts) for name, parts in self.seen.items()})
            self.seen = {}

    def watch(self, key: Key, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        function = getattr(func, "__name__", "")
        at = self.places.additions.get(key) if function in ADDITIONS else None
        result = self._added(*at, function, args, kwargs) if at else func(*args, **kwargs)
        if self.looks and key in self.places.values:
            tensors = [args[0]] if function == "__setitem__" else list(tensors_in(result))
            for name, role, place in self.places.values[key] if tensors else ():
                self.seen[name][role] = tensors[place]
            if tensors and key in self.places.separate:
                return result.clone()
        return result

    def _added(self, name: str, position: int, function: str, args: Any, kwargs: dict[str, Any]) -> Tensor:
        """Add S(x) and F(x) as tensors of their own, or leave F(x) out; in place where the model adds in place."""
        operands = list(tensors_in([args, kwargs]))[:2]
        target = operands[0]
        if kwargs.get("alpha", 1) != 1:
            operands[1] = operands[1] * kwargs["alpha"]
        in_place = function in IN_PLACE
        sx, fx = operands[position], operands[1 - position]
        if name in self.without:
            return target.copy_(sx) if in_place else sx.clone()
        if not self.looks:
            return target.add_(operands[1]) if in_place else operands[0] + operands[1]
        sx, fx = (value.clone() if in_place else value.view_as(value) for value in (sx, fx))
        fx = self.branch(fx) if self.branch else fx
        total = sx + fx if position == 0 else fx + sx
        self.seen[name] |= {"adapted": sx, "branched": fx, "total": total}
        return target.copy_(total) if in_place else total.clone()


@contextmanager
def ablate(network: nn.Module, replacements: Mapping[str, nn.Module]) -> Iterator[None]:
    """Put other modules in the place of the named ones, and those back at the end, whatever happens.

    replacements: by names as `network.named_modules()` gives them; in a block's place a Block is wanted, since the
    network knows its blocks by their class. A module of the network itself may stand in another's place too.
    Raises AttributeError for a name that the network does not have.
    """
    originals = {name: network.get_submodule(name) for name in replacements}
    try:
        for name, module in replacements.items():
            network.set_submodule(name, module)
        yield
    finally:
        for name, module in originals.items():
            network.set_submodule(name, module)


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Restore modes, buffers and torch's random state at the end."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.is_cuda})
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training
            with torch.no_grad():
                for buffer, values in buffers:
                    buffer.copy_(values)


def placed(x: Tensor, model: nn.Module) -> Tensor:
    """Return inputs on the device of a model, in its dtype unless they are whole numbers."""
    like = next((p for p in model.parameters() if p.is_floating_point()), None)
    if like is None:
        return x
    return x.to(like.device, like.dtype) if x.is_floating_point() else x.to(like.device)


def places_of(nodes: Sequence[Node], blocks: Mapping[str, Addition]) -> Places:
    """Return where these blocks' values are computed."""
    additions: dict[Key, tuple[str, int]] = {}
    values: dict[Key, tuple[tuple[str, str, int], ...]] = {}
    first = []
    separate = set()
    for name, one in blocks.items():
        total = nodes[one.total]
        assert total.key
        additions[total.key] = (name, total.sources.index(one.shortcut))
        for role, number in (("x", one.x), ("out", one.out)):
            node = nodes[number]
            if node.key is None:
                first.append(name)
                continue
            values[node.key] = (*values.get(node.key, ()), (name, role, node.output))
            if role == "x" and total.function in IN_PLACE and total.sources[0] == number:
                separate.add(node.key)
    return Places(additions, values, tuple(first), frozenset(separate))
