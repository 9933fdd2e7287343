"""Memory of training: activations that are recomputed instead of kept, and how much a run needs.

With checkpointing (Chen et al. 2016, arXiv:1604.06174) a block keeps only its input and computes its branch a second
time when the backward pass reaches it: the same numbers from about a third more arithmetic. The second time running
statistics of normalisations are left alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from resx.data import Dataset
from resx.data.batches import ASSEMBLED, chunk_rows
from resx.model import Block
from resx.model.construction import skeleton
from resx.spec import RunSpec, SpecError
from resx.training.evaluate import evaluation_batch

OPTION = "--checkpoint-activations"
COPIES = 4  # of every weight: itself, gradient, momentum, and the copy that a graph's warm-up restores
BATCH_TYPES = {"fp32": 1.0, "tf32": 1.0, "bf16": 0.5}  # size of a kept activation, relative to float32
# cudaErrorMemoryAllocation; CUBLAS_STATUS_ALLOC_FAILED; CUDNN_STATUS_…_ALLOCATION_FAILED; the CPU's allocator
OUT_OF_MEMORY = ("out of memory", "ALLOC_FAILED", "ALLOCATION_FAILED", "DefaultCPUAllocator")
EVALUATED = 4  # of the largest output of a layer: a block's input, two in its branch, and their sum
ASSEMBLED_COPIES = 4  # of the batches that are assembled at a time: padded images and the places of their pixels
SLACK = 1.3  # workspaces of convolutions, temporaries of the backward pass, fragmentation


def checkpoint_activations(network: nn.Module) -> None:
    """Make the branches of a network's blocks keep no activations in training; parameters and names stay the same.

    Raises SpecError for a network without blocks.
    """
    branches = [module.branch for module in network.modules() if isinstance(module, Block)]
    if not branches:
        raise SpecError(f"{OPTION}: this family has no blocks that could be computed again; leave it out")
    for branch in branches:
        branch.forward = partial(_recomputed, branch, branch.forward)


def _recomputed(branch: nn.Module, forward: Any, x: Tensor) -> Tensor:
    if not (branch.training and torch.is_grad_enabled()):
        return forward(x)
    return checkpoint(
        forward,
        x,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: (nullcontext(), _statistics_kept(branch)),  # of the forward pass, and of the second
    )


@contextmanager
def _statistics_kept(branch: nn.Module) -> Iterator[None]:
    """Let normalisations update copies of their running statistics, and discard these."""
    norms = [module for module in branch.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    before = [dict(norm.named_buffers()) for norm in norms]
    try:
        for norm, buffers in zip(norms, before, strict=True):
            norm._buffers.update({name: values.clone() for name, values in buffers.items()})
        yield
    finally:
        for norm, buffers in zip(norms, before, strict=True):
            norm._buffers.update(buffers)


def memory_needed(spec: RunSpec, input_shape: tuple[int, ...], n_outputs: int, checkpointed: bool = False) -> int:
    """Estimate the bytes that a network takes in training, from a forward pass on the meta device.

    Counted: every tensor that autograd keeps for the backward pass, and the copies of the weights; not images and
    batches. SLACK is for what libraries take.
    """
    network = skeleton(spec.model, input_shape, n_outputs).train()
    if checkpointed:
        checkpoint_activations(network)
    weights = {tensor.untyped_storage()._cdata: tensor for tensor in [*network.parameters(), *network.buffers()]}
    stored: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        stored.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    inputs = torch.empty(spec.train.batch_size, *input_shape, device="meta")
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network(inputs)
    activations = sum(tensor.untyped_storage().nbytes() for key, tensor in stored.items() if key not in weights)
    states = sum(tensor.untyped_storage().nbytes() for tensor in weights.values())
    kind = BATCH_TYPES[spec.train.precision]
    copies = COPIES + 2 * kind if kind < 1 else COPIES  # rounded weights and their gradients
    return round(SLACK * (copies * states + kind * activations))


def evaluation_memory(spec: RunSpec, input_shape: tuple[int, ...], n_outputs: int, device: torch.device) -> int:
    """Estimate the bytes that an evaluation takes on top of the network: its largest layers, a batch at a time."""
    network = skeleton(spec.model, input_shape, n_outputs).eval()
    sizes: list[int] = []

    def measure(module: nn.Module, inputs: Any, output: Any) -> None:
        sizes.append(output.nbytes if isinstance(output, Tensor) else 0)

    for module in network.modules():
        module.register_forward_hook(measure)
    with torch.no_grad():
        network(torch.empty(1, *input_shape, device="meta"))
    batch = evaluation_batch(spec.train.batch_size, input_shape, device)
    return round(SLACK * EVALUATED * max(sizes) * batch * BATCH_TYPES[spec.train.precision])


def cohort_memory(
    specs: Sequence[RunSpec], dataset: Dataset, device: torch.device, needs: Mapping[RunSpec, int], evaluation: int
) -> int:
    """Estimate the bytes that runs of one data set take side by side on a GPU.

    needs: `memory_needed` of each network. evaluation: `evaluation_memory` of the largest. Images are held once, and
    batches once for each seed; networks are evaluated one after the other, while the graph keeps its memory.
    """
    batch = specs[0].train.batch_size * dataset.train_x[0].numel() * 4
    chunk = batch * (chunk_rows(batch, device.type) + ASSEMBLED_COPIES * ASSEMBLED)
    images = dataset.train_x.nbytes + dataset.test_x.nbytes
    return images + len({spec.seed for spec in specs}) * chunk + evaluation + sum(needs[spec] for spec in specs)


def free_memory(device: torch.device) -> int:
    """Return the bytes that a GPU has left; torch's cache counts as free."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that a device or this machine is out of memory.

    Not only torch's own error: cuDNN, cuBLAS, the instantiation of a CUDA graph and the CPU's allocator have theirs.
    """
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)
    )


def refuse_too_large(spec: RunSpec, input_shape: tuple[int, ...], n_outputs: int, checkpointed: bool) -> None:
    """Raise SpecError, with what would fit, for a run that needs more memory than this machine has for its CPU.

    A network that is small by a rough count is not examined.
    """
    available = available_memory()
    if available is None or _roughly(spec, input_shape) < available / 4:
        return
    need = _needed(spec, input_shape, n_outputs, checkpointed)
    if need <= available:
        return
    train = spec.train.model_copy(update={"batch_size": 1})
    one = _needed(spec.model_copy(update={"train": train}), input_shape, n_outputs, checkpointed)
    each = (need - one) / max(1, spec.train.batch_size - 1)
    fits = int((available - one) / each) + 1 if each and one < available else 0
    advice = f"a --batch-size up to {fits:,} fits" if fits else "make the network smaller (--width, --depth)"
    raise SpecError(
        f"batch_size: {spec.train.batch_size:,} images a step in a network of {spec.model.depth} layers take about "
        f"{need / 2**30:.1f} GiB to train, and {available / 2**30:.1f} GiB are available; {advice}"
        + ("" if checkpointed or not fits else f", and {OPTION} needs less")
    )


def _roughly(spec: RunSpec, input_shape: tuple[int, ...]) -> float:
    """Return an upper bound, in bytes, for a network of the CIFAR family."""
    width, depth = spec.model.width or 64, spec.model.depth
    positions = math.prod(input_shape[1:]) if len(input_shape) > 1 else 1
    return 4.0 * depth * width * (6 * spec.train.batch_size * positions + COPIES * 9 * 16 * width)


@cache
def _needed(spec: RunSpec, input_shape: tuple[int, ...], n_outputs: int, checkpointed: bool) -> int:
    with suppress(ValueError):  # batch normalisation of one value
        return memory_needed(spec, input_shape, n_outputs, checkpointed)
    return 0


def available_memory() -> int | None:
    """Return the bytes that this process can still take, of the machine and its control group; None if unknown."""
    free = []
    with suppress(OSError, ValueError, IndexError):
        [line] = [line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable")]
        free.append(int(line.split()[1]) * 1024)
    for limit, usage in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with suppress(OSError, ValueError):
            root = Path("/sys/fs/cgroup")
            free.append(max(0, int((root / limit).read_text()) - int((root / usage).read_text())))
    return min(free) if free else None


def memory_advice(checkpointed: bool) -> str:
    """Return what to do on a device with too little memory."""
    return "use a smaller --batch-size" if checkpointed else f"use {OPTION} (the same numbers, about a third slower)"


def memory_warning(need: int, free: int, checkpointed: bool) -> str | None:
    """Return a line for a run that will not fit into the device's free memory (bytes), or None."""
    if need <= free:
        return None
    return (
        f"training needs about {need / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are free on the device, "
        f"so it will probably run out of memory; {memory_advice(checkpointed)}"
    )
