"""A pretended machine with CUDA cards, so that the path to a GPU runs in every test run.

Its tensors say `cuda:0` and hold their values in ordinary memory. It keeps the rules of CUDA that training depends on:
devices do not mix; a stream that waits for a capturing one joins the capture, and has to be joined again before its
end; a capture records operations without doing them and leaves rubbish in their outputs, and a replay does them on the
same memory; in a capture nothing may be read by or copied from the host; a gradient that was accumulated on another
stream before is synchronised with that stream. A capture that breaks a rule is invalid: its end raises another error
and leaves the current stream and the allocator as they are in a capture, as torch does. Autograd is torch's own.

Not modelled: time, what cuDNN chooses, the allocator's cache, errors that come later than their cause.
"""

from __future__ import annotations

import contextlib
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

CARDS, POOL = 2, 32  # devices of the machine; streams of a device that torch hands out in turns
READS = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal", "is_nonzero"}
MIXES = {"copy_", "_to_copy", "index", "index_put_"}  # operations that take tensors of the host as well
LOWER = "conv1d conv2d conv3d linear mm matmul addmm addbmm baddbmm bmm scaled_dot_product_attention".split()
NOT_IN_CAPTURE = "CUDA error: operation not permitted when stream is capturing"
PRETENDED = "pretended"  # torch's name for the kind of device behind the tensors that say `cuda`


class _Backend:
    """What torch asks a kind of device that is written in Python."""

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return True

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return CARDS

    def _is_in_bad_fork(self) -> bool:
        return False

    def _lazy_init(self) -> None:
        pass

    def manual_seed_all(self, seed: int) -> None:
        pass

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


class Stream:
    """A stream of a device; number 0 is the default one."""

    def __init__(self, device: Any = None, number: int | None = None) -> None:
        self.device = MACHINE.device_of(device)
        self.number = 1 + MACHINE.streams[self.device.index] % POOL if number is None else number
        MACHINE.streams[self.device.index] += number is None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and (self.device, self.number) == (other.device, other.number)

    def __hash__(self) -> int:
        return hash((self.device, self.number))

    def wait_stream(self, other: Stream) -> None:
        capture = MACHINE.capture
        if capture is None or self == other:
            return
        if other in capture.streams:
            if self.number == 0:
                capture.fail("CUDA error: operation would make the legacy stream depend on a capturing blocking stream")
            capture.streams.add(self)
            capture.unjoined.discard(other)
            if self != capture.stream:
                capture.unjoined.add(self)
        elif self in capture.streams:
            capture.fail("CUDA error: dependency created on uncaptured work in another stream")


class Capture:
    """A capture under way. It is invalid from the first broken rule on."""

    def __init__(self, graph: Graph, stream: Stream) -> None:
        self.graph, self.stream = graph, stream
        self.streams, self.unjoined, self.invalid = {stream}, set[Stream](), False

    def fail(self, message: str) -> None:
        self.invalid = True
        raise torch.AcceleratorError(message) if hasattr(torch, "AcceleratorError") else RuntimeError(message)


class Graph:
    """torch.cuda.CUDAGraph: the operations of a capture, with the memory that they read and write."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.launches: Counter[Stream] = Counter()  # operations of every stream
        MACHINE.graphs.add(self)

    def capture_begin(self, *pool: Any, capture_error_mode: str = "global") -> None:
        stream = MACHINE.current_stream()
        if stream.number == 0:
            raise RuntimeError("CUDA graphs must be captured on a non-default stream.")
        if MACHINE.allocator_captures:
            raise RuntimeError("the allocator still serves a capture that did not end well")
        MACHINE.captures.append(len([graph for graph in MACHINE.graphs if graph is not self]))
        MACHINE.capture, MACHINE.allocator_captures = Capture(self, stream), True

    def capture_end(self) -> None:
        capture, MACHINE.capture = MACHINE.capture, None
        if capture is None or MACHINE.current_stream() != capture.stream:
            raise RuntimeError("Capture must end on the same stream it began on.")
        if capture.invalid:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
        if capture.unjoined:
            raise RuntimeError("CUDA error: capturing stream has unjoined work")
        MACHINE.allocator_captures = False
        if MACHINE.end_error is not None:
            raise MACHINE.end_error

    def replay(self) -> None:
        for function, args, kwargs, results in self.calls:
            for old, new in zip(_tensors(results), _tensors(function(*args, **kwargs)), strict=True):
                if old is not new:
                    old.copy_(new)


class Machine:
    """The state of the pretended machine, and what tests look at or set."""

    def __init__(self) -> None:
        self.streams = [0] * CARDS  # streams that were handed out
        self.current = [0] * CARDS
        self.device = 0
        self.capture: Capture | None = None
        self.allocator_captures = False
        self.graphs: weakref.WeakSet[Graph] = weakref.WeakSet()
        self.captures: list[int] = []  # for every capture: graphs that were alive when it began
        self.synchronized: list[int] = []  # devices that were waited for
        self.error: Exception | None = None  # raised by every operation
        self.end_error: Exception | None = None  # raised when a capture ends
        self.free = [2**36] * CARDS
        self.reserved, self.allocated = [0] * CARDS, [0] * CARDS
        self.capability = (9, 0)

    def device_of(self, device: Any) -> torch.device:
        index = device if isinstance(device, int) else torch.device(device).index if device is not None else None
        index = self.device if index is None else index
        if not 0 <= index < CARDS:
            raise RuntimeError("CUDA error: invalid device ordinal")
        return torch.device("cuda", index)

    def current_stream(self, device: Any = None) -> Stream:
        device = self.device_of(device)
        return Stream(device, self.current[device.index])

    def set_stream(self, stream: Stream) -> None:
        self.device = stream.device.index
        self.current[stream.device.index] = stream.number

    @contextlib.contextmanager
    def on_device(self, device: Any) -> Iterator[None]:
        before, self.device = self.device, self.device_of(device).index
        try:
            yield
        finally:
            self.device = before

    def synchronize(self, device: Any = None) -> None:
        self.forbid("synchronize")
        self.synchronized.append(self.device_of(device).index)

    def forbid(self, what: str) -> None:
        if self.capture is not None:
            self.capture.fail(f"{NOT_IN_CAPTURE} ({what})")


MACHINE = Machine()


class _OnStream:
    """torch.cuda.stream; left only through __exit__, which torch's capture does not call where its end raises."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def __enter__(self) -> None:
        self.before = MACHINE.device, MACHINE.current_stream(self.stream.device)
        MACHINE.set_stream(self.stream)

    def __exit__(self, *error: object) -> None:
        device, stream = self.before
        MACHINE.set_stream(stream)
        MACHINE.device = device


class OnCard(Tensor):
    """A tensor on a card; `host` holds its values."""

    host: Tensor
    card: int

    @staticmethod
    def __new__(cls, host: Tensor, card: int) -> OnCard:
        layout = {"strides": host.stride(), "storage_offset": host.storage_offset(), "dtype": host.dtype}
        new = Tensor._make_wrapper_subclass(cls, host.size(), device=torch.device(PRETENDED, card), **layout)
        new.host, new.card = host, card
        return new

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _launch(func, args, kwargs or {})

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cuda", self.card)

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    def tolist(self) -> Any:
        return self.detach().cpu().tolist()

    def data_ptr(self) -> int:
        return self.host.data_ptr()

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copied: Tensor = self.detach().clone().requires_grad_(self.requires_grad)
        memo[id(self)] = nn.Parameter(copied, self.requires_grad) if isinstance(self, nn.Parameter) else copied
        return memo[id(self)]

    def __reduce_ex__(self, protocol: Any) -> Any:  # as torch.load(map_location="cpu") gives it
        return self.detach().cpu().__reduce_ex__(protocol)


class _Everywhere(TorchDispatchMode):
    """Sees the operations that make tensors on a card from nothing, too."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _launch(func, args, kwargs or {})


def _mapped(act: Callable[[Any], Any], value: Any) -> Any:
    """Apply `act` to everything in lists, tuples and dictionaries; torch's own tree_map takes most of a test's time."""
    if isinstance(value, list | tuple):
        return (list if isinstance(value, list) else tuple)([_mapped(act, item) for item in value])
    if isinstance(value, dict):
        return {key: _mapped(act, item) for key, item in value.items()}
    return act(value)


def _tensors(value: Any) -> list[Tensor]:
    """Return the tensors in lists, tuples and dictionaries."""
    if isinstance(value, Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [tensor for item in items for tensor in _tensors(item)]


def _is_card(device: Any) -> bool:
    return device is not None and torch.device(device).type in ("cuda", PRETENDED)


def _host(value: Any) -> Any:
    return value.host if isinstance(value, OnCard) else value


def _launch(func: Any, args: Any, kwargs: Any) -> Any:
    """Do an operation on the host's memory, or record it."""
    name = func._schema.name.removeprefix("aten::")
    tensors = _tensors((args, kwargs))
    ours = [tensor for tensor in tensors if isinstance(tensor, OnCard)]
    asked = kwargs.get("device")
    if not ours and not _is_card(asked):
        return func(*args, **kwargs)
    if asked is None:
        card: int | None = ours[0].card
    else:
        card = MACHINE.device_of(asked).index if _is_card(asked) else None
    _check_devices(name, tensors, ours)
    host_args, host_kwargs = _mapped(_host, args), _mapped(_host, kwargs)
    if asked is not None:
        host_kwargs["device"] = torch.device("cpu")
    host_kwargs.pop("pin_memory", None)
    host_kwargs.pop("non_blocking", None)
    crosses = name == "copy_" and isinstance(args[0], OnCard) != isinstance(args[1], OnCard)
    if crosses or (name == "_to_copy" and isinstance(args[0], OnCard) != (card is not None)):
        MACHINE.forbid(f"{name} between host and device")
        result = func(*host_args, **host_kwargs)
        if name == "copy_":
            return args[0]
        result = result.clone() if result is host_args[0] else result
        return result if card is None else OnCard(result, card)
    if name in READS:
        MACHINE.forbid(name)
    assert card is not None
    if MACHINE.error is not None:
        raise MACHINE.error
    if not func.is_view and name not in ("detach", "alias"):
        _check_stream(ours, card)
    result = _record(func, name, host_args, host_kwargs, card)
    held = {id(tensor.host): tensor for tensor in ours}

    def placed(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return held[id(value)] if id(value) in held else OnCard(value, card)

    return _mapped(placed, result)


def _check_devices(name: str, tensors: list[Tensor], ours: list[OnCard]) -> None:
    strangers = any(tensor.dim() for tensor in tensors if not isinstance(tensor, OnCard))
    if name not in MIXES and (strangers or len({tensor.card for tensor in ours}) > 1):
        raise RuntimeError(f"Expected all tensors to be on the same device ({name})")


def _check_stream(ours: list[OnCard], card: int) -> None:
    """Refuse work outside the capture, and gradients that are accumulated on a stream from before it."""
    stream, capture = MACHINE.current_stream(card), MACHINE.capture
    if capture is not None and stream not in capture.streams:
        capture.fail("CUDA error: work on a stream that takes no part in the capture")
    if capture is not None and stream != capture.stream:
        capture.unjoined.add(stream)
    if not torch.is_grad_enabled():
        return
    for tensor in ours:
        if tensor.is_leaf and tensor.requires_grad:  # its AccumulateGrad node lives as long as a graph that holds it
            with torch._C._SetExcludeDispatchKeyGuard(torch._C.DispatchKey.AutogradFunctionality, False):
                made_on = get_gradient_edge(tensor).node.metadata.setdefault("stream", stream)
            if capture is not None and made_on not in capture.streams:
                capture.fail("CUDA error: operation would make the legacy stream depend on a capturing blocking stream")


def _record(func: Any, name: str, args: Any, kwargs: Any, card: int) -> Any:
    """Do an operation; in a capture find out its outputs' shapes, put rubbish into them, and keep it for replays."""
    if MACHINE.capture is None or func.is_view or name in ("detach", "alias"):
        return func(*args, **kwargs)
    written = _tensors(
        [
            args[place] if place < len(args) else kwargs.get(argument.name)
            for place, argument in enumerate(func._schema.arguments)
            if argument.alias_info is not None and argument.alias_info.is_write
        ]
    )
    if name == "native_batch_norm":  # its schema does not say that it writes to the running statistics
        written += list(args[3:5])
    spare = {id(tensor): tensor.clone(memory_format=torch.preserve_format) for tensor in written}
    originals = {id(spare[id(tensor)]): tensor for tensor in written}
    tried_args, tried_kwargs = _mapped(lambda value: spare.get(id(value), value), (args, kwargs))

    def rubbish(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if id(value) in originals:
            return originals[id(value)]
        return value.fill_(float("nan") if value.dtype.is_floating_point else 1) if value.numel() else value

    result = _mapped(rubbish, func(*tried_args, **tried_kwargs))
    graph = MACHINE.capture.graph
    graph.calls.append((func, args, kwargs, result))
    graph.launches[MACHINE.current_stream(card)] += 1
    return result


def _properties(device: Any = None) -> Any:
    major, minor = MACHINE.capability
    return SimpleNamespace(name=_name(device), major=major, minor=minor, total_memory=2**36, multi_processor_count=1)


def _name(device: Any = None) -> str:
    return f"Pretended Card {MACHINE.device_of(device).index}"


def _memory(amounts: str) -> Any:
    return lambda device=None: getattr(MACHINE, amounts)[MACHINE.device_of(device).index]


def _patches() -> dict[str, Any]:
    """Everything of torch.cuda that is stood in for."""
    nothing: Any = lambda *args: None  # noqa: E731
    return {
        "_lazy_init": nothing,
        "init": nothing,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: CARDS,
        "current_device": lambda: MACHINE.device,
        "get_device_name": _name,
        "get_device_capability": lambda device=None: MACHINE.device_of(device) and MACHINE.capability,
        "get_device_properties": _properties,
        "get_arch_list": lambda: ["sm_75", "sm_80", "sm_90"],
        "mem_get_info": lambda device=None: (_memory("free")(device), 2**36),
        "memory_reserved": _memory("reserved"),
        "memory_allocated": _memory("allocated"),
        "max_memory_reserved": _memory("reserved"),
        "empty_cache": nothing,
        "synchronize": MACHINE.synchronize,
        "device": MACHINE.on_device,
        "Stream": Stream,
        "stream": _OnStream,
        "current_stream": MACHINE.current_stream,
        "set_stream": MACHINE.set_stream,
        "is_current_stream_capturing": lambda: MACHINE.capture is not None,
        "CUDAGraph": Graph,
        "default_generators": tuple(torch.Generator() for _ in range(CARDS)),
    }


def _once() -> None:
    """Make the kind of device known to torch, which lasts as long as the process."""
    if torch._C._get_privateuse1_backend_name() == PRETENDED:
        return
    torch._C._ensureCUDADeviceGuardSet()  # a driver is not asked for the number of a device
    _setup_privateuseone_for_python_backend(PRETENDED, backend_module=_Backend())
    _LIBRARIES.extend(torch.library.Library(name, "IMPL", "AutocastPrivateUse1") for name in ("_", "aten"))
    _LIBRARIES[0].fallback(torch.library.fallthrough_kernel)
    for operation in LOWER:
        _LIBRARIES[1].impl(operation, _lowered(operation))


_LIBRARIES: list[torch.library.Library] = []  # what they registered lasts as long as they do


def _lowered(operation: str) -> Any:
    """Return what CUDA's autocast makes of an operation: it takes floating-point tensors in the lower type."""

    def lowered(*args: Any, **kwargs: Any) -> Any:
        kind = torch.get_autocast_dtype(PRETENDED)
        with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)):
            args, kwargs = _mapped(lambda t: t.to(kind) if _is_lowered(t) else t, (args, kwargs))
            return getattr(torch.ops.aten, operation)(*args, **kwargs)

    return lowered


def _is_lowered(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.float32


@contextlib.contextmanager
def pretended(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """Run what is inside on a machine with pretended cards, and let tests look at its state."""
    _once()
    MACHINE.__init__()  # type: ignore[misc]  # the same object, which streams and patches refer to
    for name, stand_in in _patches().items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(torch._C, "_host_emptyCache", lambda: None, raising=False)
    monkeypatch.setattr(torch, "inference_mode", torch.no_grad)  # it has no views of tensors written in Python
    autocast = torch.autocast
    monkeypatch.setattr(torch, "autocast", lambda kind, **o: autocast(PRETENDED if kind == "cuda" else kind, **o))
    group = torch.optim.Optimizer._group_tensors_by_device_and_dtype
    monkeypatch.setattr(torch.optim.Optimizer, "_group_tensors_by_device_and_dtype", staticmethod(_renamed(group)))
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(…, device=…) goes through the mode
    try:
        with _Everywhere(), torch.autograd.set_multithreading_enabled(False):
            yield MACHINE
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)
        torch._C._set_only_lift_cpu_tensors(False)


def _renamed(group: Any) -> Any:
    """Give the groups of an optimizer the devices that its tensors say, so that it copies nothing between them."""

    def grouped(*args: Any, **kwargs: Any) -> Any:
        return {
            (torch.device("cuda", device.index) if _is_card(device) else device, kind): tensors
            for (device, kind), tensors in group(*args, **kwargs).items()
        }

    return grouped
