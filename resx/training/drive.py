"""How the steps of some networks are run: one after the other on a CPU, as one replayed CUDA graph on a GPU.

Small networks on a GPU wait for kernels to start. A step draws nothing, reads nothing back and has static shapes, so
the steps of all networks are captured once, each as a branch of one graph, and a replay starts them together. Every
network's kernels, their order and their memory are those it would have alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from resx.spec import first_line
from resx.store.files import LOG
from resx.training.memory import is_out_of_memory

Step = Callable[[Tensor], None]  # one network's step on row k (int64 [1], on the device) of what is loaded
Run = Callable[[int, Callable[[], bool]], int]  # (number of steps, should_stop) -> number of steps that were run

WARMUP_STEPS = 3  # before a capture: libraries choose algorithms and take their workspaces
STREAMS = 32  # of a device: torch hands out the same ones in turns
ASK_EVERY = 16  # steps on a GPU, which are only started, not waited for


@dataclass(frozen=True)
class Driver:
    """What runs steps, and whether it replays a graph or starts every operation by itself."""

    run: Run
    mode: Literal["graph", "eager"]


def driver(steps: Sequence[Step], state: Iterable[Tensor], device: torch.device, *, can_capture: bool = True) -> Driver:
    """Return what runs the steps of all networks on rows 0, 1, … of what is loaded.

    state: every tensor that a step changes in place; a graph's warm-up leaves them as they were. can_capture: whether
    the steps are those of this process alone. Where a CUDA graph cannot be captured, the log says so and operations are
    started one by one. Raises the device's error where it is out of memory.
    """
    if can_capture and device.type == "cuda" and not _INVALIDATED:
        try:
            return Driver(_captured(steps, list(state), device), "graph")
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            line = "no CUDA graph could be captured (%s); steps are started one by one, which is slower"
            LOG.warning(line, first_line(error))
    return Driver(_eager(steps, device), "eager")


def _eager(steps: Sequence[Step], device: torch.device) -> Run:
    ask_every = 1 if device.type == "cpu" else ASK_EVERY  # a step on a CPU can take seconds

    def run(n_steps: int, should_stop: Callable[[], bool]) -> int:
        positions = torch.arange(n_steps, device=device)
        for k in range(n_steps):
            if k and k % ask_every == 0 and should_stop():
                return k
            for step in steps:
                step(positions[k : k + 1])
        return n_steps

    return run


def _captured(steps: Sequence[Step], state: Sequence[Tensor], device: torch.device) -> Run:
    with torch.cuda.device(device):
        trunk, branches = _streams(len(steps))
        position = torch.zeros(1, dtype=torch.int64, device=device).add_(0)  # loads that kernel before the capture
        with _restored(state):
            _warm_up(steps, position, branches)
            graph = _capture(steps, position, trunk, branches)

    def run(n_steps: int, should_stop: Callable[[], bool]) -> int:
        with torch.cuda.device(device):
            position.zero_()
            for _ in range(n_steps):
                graph.replay()
        return n_steps

    return run


_STREAMS: dict[int, list[Any]] = {}  # of each device; each has cached memory and workspaces of its own
_INVALIDATED: list[str] = []  # why a capture broke; torch's allocator and CUDA are then unfit for another one


def _streams(n: int) -> tuple[Any, list[Any]]:
    """Return the current device's stream for captures and n for branches, the same every time; more than 31 share."""
    streams = _STREAMS.setdefault(torch.cuda.current_device(), [])
    while len(streams) < min(n + 1, STREAMS):
        streams.append(torch.cuda.Stream())
    return streams[0], [streams[1 + k % (len(streams) - 1)] for k in range(n)]


@contextmanager
def _restored(state: Sequence[Tensor]) -> Iterator[None]:
    """Restore these tensors and the current stream, whatever happens inside."""
    current = torch.cuda.current_stream()
    with torch.no_grad():  # a clone with a history would keep the weights' AccumulateGrad nodes, and these their stream
        before = [tensor.clone() for tensor in state]
    try:
        yield
    finally:
        torch.cuda.set_stream(current)  # torch.cuda.graph leaves its own where the end of a capture fails
        torch.cuda.synchronize(current.device)
        with torch.no_grad():
            for tensor, values in zip(state, before, strict=True):
                tensor.copy_(values)


def _warm_up(steps: Sequence[Step], position: Tensor, branches: Sequence[Any]) -> None:
    current = torch.cuda.current_stream()
    for stream, step in zip(branches, steps, strict=True):
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            for _ in range(WARMUP_STEPS):
                step(position)
    torch.cuda.synchronize(current.device)


def _capture(steps: Sequence[Step], position: Tensor, trunk: Any, branches: Sequence[Any]) -> Any:
    """Return the graph of a step of every network, which also moves the position on.

    A capture is ended in order whatever happens in it: branches are joined, and the first error is raised afterwards.
    """
    graph = torch.cuda.CUDAGraph()
    errors: list[Exception] = []
    started: dict[Any, None] = {}
    try:
        with torch.cuda.graph(graph, stream=trunk):
            try:
                for stream, step in zip(branches, steps, strict=True):
                    stream.wait_stream(trunk)
                    started[stream] = None
                    with torch.cuda.stream(stream):
                        step(position)
                position.add_(1)
            except Exception as error:
                errors.append(error)
            for stream in started:
                trunk.wait_stream(stream)
    except RuntimeError as error:  # the end of the capture: the graph may only be too large
        errors.append(error)
        if not is_out_of_memory(error):
            _INVALIDATED.append(str(errors[0]))
    if errors:
        raise errors[0]
    return graph
