"""One network over several processes, each with its share of every batch: DistributedDataParallel (Li et al. 2020).

The first process leads: it alone reads and writes the run, evaluates and reports. Before each chunk it announces the
steps; the others draw the same tables, take their share of each batch and do the same steps. Losses are weighted by
the size of a share, so that the mean over processes is the mean over the batch even where shares are unequal.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.nn.modules.batchnorm import _BatchNorm

from resx.spec import RunSpec, SpecError
from resx.store.files import StoreError

PATIENCE = timedelta(days=30)  # of processes that wait for the first one, which may have much to measure
LOST = "another of torchrun's processes is gone; the same command goes on from the last checkpoint"
WAY = "torchrun --standalone --nproc-per-node={} -m resx …"


@dataclass(eq=False)
class Ranks:
    """The processes that train one network: `size` of them, of which this is number `rank`. Alone by default.

    control: the group for messages. is_whole: no process has been lost in the middle of a step.
    """

    rank: int = 0
    size: int = 1
    control: Any = None
    is_whole: bool = True

    def part(self, values: Tensor) -> Tensor:
        """Return this process's share of [batch, …]; of unequal shares the first are larger by one."""
        return values.tensor_split(self.size)[self.rank] if self.size > 1 else values

    def spread(self, network: nn.Module, parts: int | None) -> nn.Module:
        """Return the network for training in all processes: its backward pass leaves the mean of their gradients.

        parts: into which batch normalisation divides a batch, one a process; None: statistics are the whole batch's.
        """
        if self.size == 1:
            return network
        if parts is None:
            for module in network.modules():
                if isinstance(module, _BatchNorm):
                    module.forward = partial(_normalised, module, self.size)  # type: ignore[method-assign]
        device = next(network.parameters()).device
        cards = [device.index] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(network, device_ids=cards, broadcast_buffers=False)

    def backward(self, loss: Tensor, images: int, batch: int) -> None:
        """Compute the gradients of the batch's mean loss from the mean loss of this process's share."""
        (loss * (self.size * images / batch) if self.size > 1 else loss).backward()

    def mean(self, values: Tensor, images: int, batch: int) -> Tensor:
        """Return the means over a batch, from those over its shares."""
        if self.size == 1:
            return values
        weighted = values * (images / batch)
        torch.distributed.all_reduce(weighted)
        return weighted

    def agreed(self, ask: Callable[[], bool]) -> Callable[[], bool]:
        """Return a question that all processes ask at the same step; it is true for all where it is for one."""
        if self.size == 1:
            return ask

        def one_of_all() -> bool:
            answer = torch.tensor(int(ask()))
            torch.distributed.all_reduce(answer, torch.distributed.ReduceOp.MAX, group=self.control)
            return bool(answer)

        return one_of_all

    def say(self, message: Any) -> None:
        """Let the others `hear` this, where this is the first process."""
        if self.size > 1 and self.rank == 0:
            torch.distributed.broadcast_object_list([message], src=0, group=self.control)

    def hear(self) -> Any:
        """Return what the first process says next, as soon as it does. Raises RuntimeError where it is gone."""
        box = [None]
        torch.distributed.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def dismiss(self) -> None:
        """Let the others end their work, unless one of them may be in the middle of a step."""
        if self.is_whole:
            with suppress(RuntimeError):  # one is gone, and torchrun ends all
                self.say(None)

    @contextmanager
    def training(self, spec: RunSpec, work: Any) -> Iterator[None]:
        """Let the others train a run along with this process; `work` tells them which.

        Raises SpecError where the run is for another number of processes, StoreError where one of them is gone.
        """
        parts = spec.train.norm_parts
        if parts not in (None, self.size):
            here = "is one" if self.size == 1 else f"are {self.size}"
            raise SpecError(f"{spec.run_id}: norm_parts {parts} is for torchrun with {parts} processes; here {here}")
        if not self.is_whole:
            raise StoreError(f"{spec.run_id}: {LOST}")
        self.say(work)
        try:
            yield
        except RuntimeError as error:
            if any(library in str(error) for library in ("gloo", "NCCL")):
                raise StoreError(f"{spec.run_id}: {LOST}") from error
            raise
        finally:
            self.dismiss()


def packed(state: Mapping[str, Any]) -> bytes:
    """Return tensors, on any device, as bytes for `unpacked`."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()


def unpacked(data: bytes) -> dict[str, Any]:
    """Return what `packed` was given, on the CPU."""
    state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return state


def is_torchrun() -> bool:
    """Whether torchrun has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def world_size() -> int:
    """Return how many processes train together: those that torchrun has started, or 1."""
    return int(os.environ["WORLD_SIZE"]) if is_torchrun() else 1


@cache
def join() -> Ranks:
    """Return the processes that torchrun started, once they have met. Raises SpecError without torchrun."""
    if not is_torchrun():
        raise SpecError(f"--engine torchrun: start it with {WAY.format(4)}")
    if world_size() == 1:
        return Ranks()
    store, rank, size = next(rendezvous("env://"))
    # torchrun's store outlives a restart, with the addresses of the processes that were lost
    store = PrefixStore(f"{os.environ.get('TORCHELASTIC_RESTART_COUNT')}/{size}", store)
    torch.distributed.init_process_group(store=store, rank=rank, world_size=size)
    return Ranks(rank, size, torch.distributed.new_group(backend="gloo", timeout=PATIENCE))


class _Sum(torch.autograd.Function):
    """The sum of a tensor over all processes. Its gradient is the sum of theirs: each one's loss depends on it."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        total = values.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        torch.distributed.all_reduce(total)
        return total


def _normalised(norm: _BatchNorm, processes: int, x: Tensor) -> Tensor:
    """Batch normalisation of [share, channels, …] with the whole batch's statistics, as `norm` alone would take them.

    In place of torch.nn.SyncBatchNorm, which needs a GPU.
    """
    if not norm.training or norm.momentum is None:
        return type(norm).forward(norm, x)
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    channels, shape = (0, *range(2, x.dim())), (1, -1, *[1] * (x.dim() - 2))
    values = x.float()
    sums = _Sum.apply(torch.cat([values.sum(channels), values.new_full((1,), x.numel() / x.shape[1])]))
    count = sums[-1].detach()
    mean = sums[:-1] / count
    centred = values - mean.view(shape)
    variance = _Sum.apply(centred.square().sum(channels)) / count
    if norm.running_mean is not None and norm.running_var is not None:
        with torch.no_grad():
            norm.running_mean.lerp_(mean, norm.momentum)
            norm.running_var.lerp_(variance * count / (count - 1), norm.momentum)
    output = centred * (variance + norm.eps).rsqrt().view(shape)
    if norm.affine:
        output = output * norm.weight.view(shape) + norm.bias.view(shape)
    return output.to(x.dtype)
