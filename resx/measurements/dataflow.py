"""What a module computes from what: every operation of one forward pass, as torch sees it, and its residual additions.

torch's own overrides (TorchFunctionMode) show each call with its tensors, whatever control flow led to it; so unlike a
symbolic trace this needs no second mechanism for modules that such a trace cannot follow, and the same calls can be
recognised in later passes. A residual addition is one whose two operands come from one earlier value, x, through which
everything that reaches it has passed (its immediate dominator): y = S(x) + F(x) (He et al. 2016, eq. 1 and 2).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Call = tuple[str, int]  # a module's name, and how many calls of it went before
Key = tuple[str, int, int]  # the innermost call, and how many operations of its own went before

ADDITIONS = frozenset({"add", "add_"})  # operators, torch.add and FloatFunctional all arrive under these names
IN_PLACE = frozenset({"add_"})
POINTWISE = frozenset(
    "relu relu_ relu6 leaky_relu leaky_relu_ elu elu_ selu celu gelu silu hardswish mish prelu".split()
)
NORMS = frozenset("batch_norm layer_norm group_norm instance_norm rms_norm".split())
NONLINEAR = POINTWISE | frozenset("sigmoid tanh softmax hardsigmoid max_pool2d scaled_dot_product_attention".split())


def tensors_in(content: Any) -> Iterator[Tensor]:
    """Yield all tensors in nested lists, tuples and dicts."""
    if isinstance(content, Tensor):
        yield content
    elif isinstance(content, dict):
        yield from tensors_in(list(content.values()))
    elif isinstance(content, list | tuple):
        for item in content:
            yield from tensors_in(item)


class Calls(TorchFunctionMode):
    """Follows the calls of a model's modules, so that every operation of a pass has a name that later passes share.

    `watch(key, function, args, kwargs)` runs each operation whose result is a tensor.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.names = {module: name for name, module in model.named_modules()}
        self.root = model
        self._reset()

    def _reset(self) -> None:
        self.stack: list[Call] = []
        self.calls: dict[str, int] = {}
        self.counts: dict[Call, int] = {}

    def _enter(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if module is self.root:
            self._reset()
        name = self.names[module]
        call = (name, self.calls.get(name, 0))
        self.calls[name] = call[1] + 1
        self.stack.append(call)
        self.entered(call, inputs)

    def _leave(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self.left(self.stack.pop(), output)

    def entered(self, call: Call, inputs: tuple[Any, ...]) -> None:
        """Look at what a module is given."""

    def left(self, call: Call, output: Any) -> None:
        """Look at what a module returns."""

    @contextmanager
    def following(self) -> Iterator[None]:
        """Follow every pass in this context; the model's hooks are as before afterwards."""
        with ExitStack() as stack:
            for module in self.names:
                if not isinstance(module, torch.jit.ScriptModule):
                    stack.enter_context(module.register_forward_pre_hook(self._enter, prepend=True))
                    stack.enter_context(module.register_forward_hook(self._leave))
            stack.enter_context(self)
            yield

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self.stack:
            return func(*args, **(kwargs or {}))
        call = self.stack[-1]
        key = (*call, self.counts.get(call, 0))
        result = self.watch(key, func, args, kwargs or {})
        if getattr(func, "__name__", "") == "__setitem__" or any(True for _ in tensors_in(result)):
            self.counts[call] = key[2] + 1
        return result

    def watch(self, key: Key, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run an operation. Where its result is not a tensor, the next one has the same key."""
        return func(*args, **kwargs)


@dataclass
class Node:
    """A value of a pass that depends on the model's input: an operation's result, or (the first node) the input.

    sources: the nodes it is computed from, in the order of the operation's arguments. calls: the modules inside which
    it was computed, outermost first. width: the first dimension of a weight that has two or more, so the number of
    channels that a convolution or a linear layer returns; 0 without one. output: its place among the results.
    """

    number: int
    function: str
    key: Key | None
    calls: tuple[Call, ...] = ()
    sources: tuple[int, ...] = ()
    width: int = 0
    output: int = 0
    shape: tuple[int, ...] = ()
    readers: list[int] = field(default_factory=list)

    @property
    def weighted(self) -> bool:
        """Return whether it uses a weight of two or more dimensions."""
        return self.width > 0


class Recorder(Calls):
    """Records the values of one pass. Nodes stand in the order in which they are computed."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.weights = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
        self.nodes: list[Node] = []
        self.values: dict[int, int] = {}  # id of a tensor -> its node
        self.alive: list[Tensor] = []  # an id names a tensor only while it lives
        # values that may be a block's output, before anything works in place on them
        self.copies: dict[int, Tensor] = {}
        self.joins = 0  # concatenations of two values that depend on the input
        self.given: dict[Call, int] = {}  # the node that a call of a module reads, where it is one tensor
        self.returned: dict[Call, int] = {}  # the node that it returns

    def entered(self, call: Call, inputs: tuple[Any, ...]) -> None:
        tensors = list(tensors_in(list(inputs)))
        if len(tensors) == 1 and id(tensors[0]) in self.values:
            self.given[call] = self.values[id(tensors[0])]

    def left(self, call: Call, output: Any) -> None:
        if isinstance(output, Tensor) and id(output) in self.values:
            self.returned[call] = self.values[id(output)]

    def add(self, tensor: Tensor, node: Node) -> None:
        """Take a tensor as the next node."""
        for source in node.sources:
            self.nodes[source].readers.append(node.number)
        self.nodes.append(node)
        self.values[id(tensor)] = node.number
        self.alive.append(tensor)

    def watch(self, key: Key, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        given = list(tensors_in([args, kwargs]))
        versions = {id(tensor): tensor._version for tensor in given}
        result = func(*args, **kwargs)
        name = getattr(func, "__name__", str(func))
        sources = tuple(dict.fromkeys(self.values[id(one)] for one in given if id(one) in self.values))
        if not sources:
            return result
        width = next((one.shape[0] for one in given if id(one) in self.weights and one.dim() > 1), 0)
        self.joins += name in ("cat", "concat", "concatenate") and len(sources) > 1
        results = [args[0]] if name == "__setitem__" else list(tensors_in(result))
        for place, tensor in enumerate(results):
            if id(tensor) in versions and tensor._version == versions[id(tensor)]:
                continue  # an operation that returns its input as it is
            node = Node(len(self.nodes), name, key, tuple(self.stack), sources, width, place, tuple(tensor.shape))
            self.add(tensor, node)
            if name in ADDITIONS | POINTWISE | NORMS:
                self.copies[node.number] = tensor.clone()
        return result


@torch.no_grad()
def record(model: nn.Module, x: Tensor) -> Recorder:
    """Return what one pass over the input computes; weights, buffers and modes are left to the caller."""
    recorder = Recorder(model)
    recorder.add(x, Node(0, "input", None, shape=tuple(x.shape)))
    with recorder.following():
        model(x)
    return recorder


def dominators(nodes: Sequence[Node]) -> list[int]:
    """Return each node's immediate dominator; the model's input, the first node, is its own."""
    parents, depths = [0], [0]

    def common(one: int, other: int) -> int:
        while one != other:
            if depths[one] >= depths[other]:
                one = parents[one]
            else:
                other = parents[other]
        return one

    for node in nodes[1:]:
        parents.append(reduce(common, node.sources))
        depths.append(depths[parents[-1]] + 1)
    return parents


@dataclass(frozen=True)
class Addition:
    """A residual addition: nodes of x, of the shortcut's and the branch's output, of the sum, and of what follows it.

    inside: all nodes from x (without it) to the sum. out: after the activation, where one follows; else the sum.
    holder: the smallest module call that computes all of it.
    """

    x: int
    shortcut: int
    branch: int
    total: int
    out: int
    holder: Call
    inside: frozenset[int]
    branch_layers: int


@dataclass(frozen=True)
class Refusal:
    """An addition that is not a block: where it is, and why not."""

    where: str
    reason: str


def cone(nodes: Sequence[Node], end: int, start: int) -> set[int]:
    """Return the nodes on the ways from start (without it) to end (with it), where start dominates end."""
    inside: set[int] = set()
    waiting = [end]
    while waiting:
        node = waiting.pop()
        if node != start and node not in inside:
            inside.add(node)
            waiting.extend(nodes[node].sources)
    return inside


def residual_additions(recorder: Recorder) -> tuple[dict[str, Addition], list[Refusal]]:
    """Return the residual additions of a pass in order, by name, and other additions of two values, with reasons."""
    nodes, parents = recorder.nodes, dominators(recorder.nodes)
    accepted: list[Addition] = []
    refused: list[Refusal] = []
    for node in nodes:
        if node.function not in ADDITIONS or len(node.sources) != 2:
            continue
        where = f"{node.calls[-1][0] or 'the model'}, {' + '.join(nodes[one].function for one in node.sources)}"
        if any(nodes[one].shape != node.shape for one in node.sources):
            refused.append(Refusal(where, "its operands differ in shape"))
        elif addition := _distinguished(nodes, node, parents[node.number]):
            accepted.append(addition)
        else:
            refused.append(Refusal(where, "branch and shortcut cannot be distinguished: both compute equally much"))
    return _named(_not_nested(accepted, refused)), refused


def _distinguished(nodes: Sequence[Node], node: Node, x: int) -> Addition | None:
    """Return the addition with the operand that computes less as shortcut, x itself before all; None for a tie."""
    first, second = node.sources
    cones = {one: cone(nodes, one, x) for one in (first, second)}

    def effort(one: int) -> tuple[int, int]:
        weighted = sum(nodes[k].weighted for k in cones[one])
        return weighted, sum(nodes[k].function in NONLINEAR for k in cones[one])

    if x in (first, second):
        shortcut, branch = (first, second) if x == first else (second, first)
    elif effort(first) == effort(second):
        return None
    else:
        shortcut, branch = sorted((first, second), key=effort)
    inside = frozenset({*cones[first], *cones[second], node.number})
    shared = [nodes[k].calls for k in inside]
    depth = next((d for d, level in enumerate(zip(*shared, strict=False)) if len(set(level)) > 1), None)
    depth = min(map(len, shared)) if depth is None else depth
    holder = shared[0][depth - 1]
    layers = sum(nodes[k].weighted for k in cones[branch])
    return Addition(x, shortcut, branch, node.number, _out(nodes, node, holder), holder, inside, layers)


def _out(nodes: Sequence[Node], total: Node, holder: Call) -> int:
    """Return the last node of the activation (or normalisation) that alone reads the sum, inside the block."""
    last = total
    while len(last.readers) == 1:
        reader = nodes[last.readers[0]]
        if holder not in reader.calls or reader.function not in POINTWISE | NORMS or len(reader.sources) > 1:
            break
        last = reader
    return last.number


def _not_nested(additions: Sequence[Addition], refused: list[Refusal]) -> list[Addition]:
    """Leave out blocks that hold others, or that are held by one and have no identity as shortcut."""
    separate = []
    for one in additions:
        name = one.holder[0] or "the model"
        inner = [other for other in additions if other.total in one.inside and other is not one]
        outer = [other for other in additions if one.total in other.inside and other is not one]
        if any(other.shortcut == other.x for other in inner):
            refused.append(Refusal(name, f"it holds {len(inner)} other blocks, which are taken instead"))
        elif outer and one.shortcut != one.x:
            refused.append(Refusal(name, "it is a part of another block's branch"))
        else:
            separate.append(one)
    return separate


def _named(additions: Sequence[Addition]) -> dict[str, Addition]:
    """Name each block after its module, with a number where a module holds several: blocks.0:1, blocks.0:2."""
    holders = [one.holder for one in additions]
    calls = Counter(name for name, _ in set(holders))
    named = {}
    for place, one in enumerate(additions):
        name = one.holder[0] or "model"
        if calls[one.holder[0]] > 1:  # the same module, called several times
            name += f"@{one.holder[1] + 1}"
        if holders.count(one.holder) > 1:
            name += f":{holders[: place + 1].count(one.holder)}"
        named[name] = one
    return named
