"""How the steps of some networks are driven: one after the other on a CPU, as one replayed CUDA graph on a GPU.

Small networks on a GPU wait for kernel launches. A step draws nothing, reads nothing back and has static shapes, so the
steps of all networks are captured once, each as a branch of one graph, and a replay launches them together. Every
network's kernels, their order and their memory are those it would have alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

Step = Callable[[Tensor], None]  # one network's step on row k (int64 [1], on the device) of what is loaded
Run = Callable[[int, Callable[[], bool]], int]  # (number of steps, should_stop) -> number of steps that were run

WARMUP_STEPS = 3  # before a capture: libraries choose algorithms and take their workspaces
LOG = logging.getLogger("resx")


def driver(steps: Sequence[Step], state: Iterable[Tensor], device: torch.device) -> Run:
    """Return what runs the steps of all networks on rows 0, 1, … of what is loaded.

    state: every tensor that a step changes in place; a graph's warm-up leaves them as they were. Where a CUDA graph
    cannot be captured, the log says so and steps are launched one by one. Raises torch.OutOfMemoryError.
    """
    if device.type != "cuda":
        return _eager(steps, device)
    try:
        return _captured(steps, list(state), device)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        LOG.warning("no CUDA graph could be captured (%s); steps are launched one by one, which is slower", reason)
        return _eager(steps, device)


def _eager(steps: Sequence[Step], device: torch.device) -> Run:
    def run(n_steps: int, should_stop: Callable[[], bool]) -> int:
        positions = torch.arange(n_steps, device=device)
        for k in range(n_steps):
            if k and device.type == "cpu" and should_stop():  # a step on a CPU can take seconds
                return k
            for step in steps:
                step(positions[k : k + 1])
        return n_steps

    return run


def _captured(steps: Sequence[Step], state: Sequence[Tensor], device: torch.device) -> Run:
    with torch.cuda.device(device):
        position = torch.zeros(1, dtype=torch.int64, device=device)
        streams = [torch.cuda.Stream() for _ in steps]  # a network's own: its memory is shared with no other branch
        before = [tensor.clone() for tensor in state]
        try:
            for stream, step in zip(streams, steps, strict=True):
                stream.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(stream):
                    for _ in range(WARMUP_STEPS):
                        step(position)
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                trunk = torch.cuda.current_stream()
                for stream, step in zip(streams, steps, strict=True):
                    stream.wait_stream(trunk)
                    with torch.cuda.stream(stream):
                        step(position)
                for stream in streams:
                    trunk.wait_stream(stream)
                position.add_(1)
        finally:
            torch.cuda.synchronize()
            with torch.no_grad():
                for tensor, values in zip(state, before, strict=True):
                    tensor.copy_(values)

    def run(n_steps: int, should_stop: Callable[[], bool]) -> int:
        with torch.cuda.device(device):
            position.zero_()
            for _ in range(n_steps):
                graph.replay()
        return n_steps

    return run
