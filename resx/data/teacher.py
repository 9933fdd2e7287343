"""A regression task whose true map is known: layers h(x) = R x + ε g(x), for residual blocks with a shortcut S.

He et al. 2016, section 3.1, suppose that the wanted map is near the identity; here it is near a map R that is
chosen, so that a shortcut can be right, wrong by an angle, or learned. g is even, g(−x) = g(x): R is then
exactly the odd part of every layer, and no part of g can pass for a linear map.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from resx.data.dataset import DATASETS, Dataset, check_sizes
from resx.seeding import generator

if TYPE_CHECKING:
    from torch import Tensor


@DATASETS.register("teacher")
def load_teacher(
    root: Path | None = None,
    *,
    map: str = "rotation-30",
    eps: float = 0.1,
    d: int = 16,
    layers: int = 1,
    train: int = 2048,
    test: int = 512,
) -> Dataset:
    """Regression on a teacher of layers h(x) = R x + ε·g(x), R known; inputs are standard normal.

    Inputs and targets are float32 [N, d]. All layers share R; each has its own g (`even_map`). No noise is
    added, so a student that holds the teacher can reach a loss of 0. Raises SpecError for impossible numbers.
    """
    import torch

    sizes = {"d": d, "layers": layers, "train": train, "test": test}
    least = {"d": 4, "layers": 1, "train": 2, "test": 1}
    more = ["eps must not be negative"] if eps < 0 else []
    check_sizes("teacher", sizes, least, (train + test) * d + layers * d * d, *more)

    def examples(split: str, count: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(count, d, generator=generator(0, "teacher", split, d), dtype=torch.float64)
        return x.float(), teach(x, map, eps, layers).float()

    train_x, train_y = examples("train", train)
    test_x, test_y = examples("test", test)
    return Dataset(train_x, train_y, test_x, test_y, label=f"teacher {map}, {layers} layers", task="regression")


def teach(x: Tensor, map: str, eps: float, layers: int) -> Tensor:
    """Return the teacher's targets for float64 inputs [N, d]. Raises SpecError for an unknown map."""
    from resx.data.maps import linear_map

    size = x.shape[1]
    matrix = linear_map(map, size)
    for layer in range(layers):
        inner, outer = even_map(size, layer)
        x = x @ matrix.T + eps * ((x @ inner.T).abs() @ outer.T)
    return x


def even_map(size: int, layer: int) -> tuple[Tensor, Tensor]:
    """Return W [size/2, size] and V [size, size/2] of g(x) = V·|W x|, float64.

    Rows of W have unit length, rows of V sum to zero (so that g has mean zero on standard normal inputs) and
    V is scaled so that g(x) is about as long as x: E|g(x)|² = size if the units were independent. A branch of
    `size` ReLUs without bias can hold it exactly, two for each |·|.
    """
    import torch

    half = size // 2
    stream = generator(0, "teacher", "g", size, layer)
    inner = torch.randn(half, size, generator=stream, dtype=torch.float64)
    inner /= inner.norm(dim=1, keepdim=True)
    outer = torch.randn(size, half, generator=stream, dtype=torch.float64)
    outer -= outer.mean(dim=1, keepdim=True)
    variance = 1 - 2 / torch.pi  # of |u| for a standard normal u
    return inner, outer * (size / (variance * outer.square().sum())) ** 0.5
