"""The loss around a trained network's weights, along filter-normalised random directions (Li et al. 2018).

Weights may be scaled without changing a network that has normalisations, so a step of one size means different things
in different networks. Li et al. (section 4) therefore scale a random direction, filter by filter, to the norm of the
filter that it moves.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import product

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from resx.measurements.taps import reestimated
from resx.seeding import generator
from resx.training.evaluate import evaluate

Direction = dict[str, Tensor]
Batch = tuple[Tensor, Tensor]


@torch.no_grad()
def direction(network: nn.Module, number: int) -> Direction:
    """Return a random direction: a tensor for each weight of more than one dimension; biases and gains stay.

    Drawn from (number, name) alone, so networks that share names share directions until they are scaled: each filter
    (an output's weights) is given the norm that the network's own filter has.
    """
    vectors = {}
    for name, weight in network.named_parameters():
        if weight.dim() < 2:
            continue
        draw = torch.randn(weight.shape, generator=generator(0, "landscape", number, name)).to(weight)
        axes = tuple(range(1, weight.dim()))
        own, drawn = (torch.linalg.vector_norm(values, dim=axes, keepdim=True) for values in (weight, draw))
        vectors[name] = draw * (own / drawn)
    return vectors


@contextmanager
def moved(network: nn.Module, steps: Sequence[tuple[float, Direction]]) -> Iterator[None]:
    """Add multiples of directions to a network's weights; the weights come back at the end, bit for bit."""
    parameters = dict(network.named_parameters())
    start = {name: parameters[name].detach().clone() for _, way in steps for name in way}
    try:
        with torch.no_grad():
            for size, way in steps:
                for name, change in way.items():
                    parameters[name].add_(change, alpha=size)
        yield
    finally:
        with torch.no_grad():
            for name, value in start.items():
                parameters[name].copy_(value)


def landscape(
    network: nn.Module,
    batches: Sequence[Batch],
    task: str,
    *,
    points: int = 21,
    grid: int = 11,
    radius: float = 1.0,
    lines: int = 2,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> pd.DataFrame:
    """Measure the mean loss on batches (x, y) around the network's weights.

    Along `lines` directions at `points` places from −radius to radius, and in the plane of the first two directions on
    a grid × grid lattice; radius is in units of the filters' norms. Returns rows (shape, direction, statistics, a, b,
    loss). statistics: `running`, those of training, which fit the weights in the middle only; and `batch`, re-estimated
    at every place on the same inputs, which makes the loss a function of the weights alone. A loss that is not
    finite is recorded as such. progress(done, total) is called after every place.
    """
    network = copy.deepcopy(network).eval()
    ways = [direction(network, number) for number in range(max(lines, 2))]
    axis, lattice = np.linspace(-radius, radius, points), np.linspace(-radius, radius, grid)
    places: list[tuple[str, int, float, float]] = [
        ("line", number, float(a), 0.0) for number in range(lines) for a in axis
    ]
    places += [("plane", 0, float(a), float(b)) for a, b in product(lattice, lattice)]
    inputs = [x for x, _ in batches]
    rows = []
    for done, (shape, number, a, b) in enumerate(places, 1):
        steps = [(a, ways[number])] if shape == "line" else [(a, ways[0]), (b, ways[1])]
        with moved(network, steps):
            rows.append((shape, number, "running", a, b, evaluate(network, batches, task).loss))
            with reestimated(network, inputs):
                rows.append((shape, number, "batch", a, b, evaluate(network, batches, task).loss))
        progress(done, len(places))
    return pd.DataFrame(rows, columns=["shape", "direction", "statistics", "a", "b", "loss"])


def curvature(plane: pd.DataFrame) -> NDArray[np.float64]:
    """Return λ_min / |λ_max| of the loss's Hessian within the plane, at the inner places of the lattice: [g−2, g−2].

    plane: rows (a, b, loss) of one network and one kind of statistics. Second differences at the lattice's spacing, so
    only what is as coarse as the lattice is seen. λ_max is the eigenvalue of the larger size: the ratio lies between
    −1 and 1, and is negative where the loss curves down along some direction of the plane. nan where a loss is not
    finite.
    """
    loss = plane.pivot(index="a", columns="b", values="loss").to_numpy(float)
    with np.errstate(invalid="ignore", over="ignore"):
        aa = loss[2:, 1:-1] - 2 * loss[1:-1, 1:-1] + loss[:-2, 1:-1]
        bb = loss[1:-1, 2:] - 2 * loss[1:-1, 1:-1] + loss[1:-1, :-2]
        ab = (loss[2:, 2:] - loss[2:, :-2] - loss[:-2, 2:] + loss[:-2, :-2]) / 4
        mean, spread = (aa + bb) / 2, np.sqrt(((aa - bb) / 2) ** 2 + ab**2)
        low, size = mean - spread, np.abs(mean) + spread
        ratio = np.divide(low, size, out=np.zeros_like(low), where=size > 0)
    return np.where(np.isfinite(aa + bb + ab), ratio, np.nan)
