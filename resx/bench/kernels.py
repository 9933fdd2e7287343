"""Kernels of a training step, counted from its operations, so that no GPU is needed to know them.

A small network on a GPU waits for kernels to start, even inside a CUDA graph, so their number decides how fast it
trains (He et al. 2016, section 4.2: networks of 0.3 to 1.7 million parameters on 32×32 images). A view starts no
kernel, most other operations one; `kernels_of` has the exceptions. Kernels that cuDNN adds inside a convolution
(changes of layout, reductions) are not counted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from resx import data
from resx.bench.plan import Plan
from resx.probes.page import markdown
from resx.store.environment import describe_environment
from resx.store.files import read_json, write_atomic
from resx.training.step import load_chunk, make_feeds, make_learner, train_step

DEPTHS, PRECISIONS = (20, 56, 110), ("fp32", "bf16")
NO_KERNEL = ("detach", "alias", "_unsafe_view")
TWO_KERNELS = ("constant_pad_nd", "slice_backward", "select_backward")  # zeros, then a copy into a part of them
TENSORS_A_KERNEL = {1: 110, 2: 64, 3: 48, 4: 36}  # of an operation on lists: by how many lists it reads or writes


def kernels_of(operation: Any, arguments: Sequence[Any]) -> int:
    """Return how many kernels an operation (an OpOverload with its positional arguments) starts on a GPU."""
    namespace, _, name = operation._schema.name.partition("::")
    if namespace != "aten" or operation.is_view or name in NO_KERNEL or "empty" in name:
        return 0
    if name == "convolution_backward":
        return sum(arguments[-1])  # one for each gradient that is wanted
    if name.startswith(("_foreach", "_fused")):
        lists = [item for item in arguments if isinstance(item, list | tuple) and item and isinstance(item[0], Tensor)]
        return -(-len(lists[0]) // TENSORS_A_KERNEL[len(lists)])
    return 2 if name in TWO_KERNELS else 1


class Launches(TorchDispatchMode):
    """Adds up the kernels that operations inside the context start; `kernels` is their number."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.kernels += kernels_of(func, args)
        return func(*args, **(kwargs or {}))


def count_kernels(depth: int, precision: str, device: str = "cpu") -> int:
    """Return the kernels of one training step of a residual CIFAR network with option A; the batch does not matter."""
    spec = Plan(batch_size=2, precision=precision, device=device).spec(depth)
    dataset = data.load(spec.data, None)
    [feed] = make_feeds([spec], dataset, torch.device(device))
    learner = make_learner(spec, dataset, feed, Path())
    load_chunk([learner], 0, 2)
    steps = torch.arange(2, device=device)
    train_step(learner, steps[:1])  # the first step may make what later ones keep
    with Launches() as launches:
        train_step(learner, steps[1:])
    return launches.kernels


def count_all() -> dict[str, Any]:
    """Return the counts of every precision and depth, with the commit and torch that they belong to."""
    environment = describe_environment("cpu", torch.get_num_threads())
    counts = {precision: {str(depth): count_kernels(depth, precision) for depth in DEPTHS} for precision in PRECISIONS}
    return {**{key: environment[key] for key in ("commit", "torch", "started")}, "kernels": counts}


def publish(count: dict[str, Any], folder: Path) -> list[Path]:
    """Add a count to the folder's history, in kernels.json, where it differs from the last, and write kernels.md."""
    numbers, table = folder / "kernels.json", folder / "kernels.md"
    history: list[dict[str, Any]] = read_json(numbers) if numbers.exists() else []
    if not history or history[-1]["kernels"] != count["kernels"]:
        history.append(count)
    write_atomic(numbers, json.dumps(history, indent=1) + "\n")
    columns = [(precision, depth) for precision, depths in count["kernels"].items() for depth in depths]
    rows = []
    for entry in history:
        kernels = (entry["kernels"].get(precision, {}).get(depth, "–") for precision, depth in columns)
        rows.append([str(cell) for cell in (entry["commit"], entry["torch"], *kernels)])
    lines = [
        "# Kernels of a training step",
        "",
        "Counted from the step's operations by `resx bench --kernels`, without a GPU; a line is a change. Residual",
        "CIFAR networks with option A, crops and flips.",
        "",
        *markdown(["commit", "torch", *(f"{precision}, {depth} layers" for precision, depth in columns)], rows),
    ]
    write_atomic(table, "\n".join(lines) + "\n")
    return [table, numbers]
