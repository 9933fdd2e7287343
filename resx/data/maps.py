"""Linear maps R that are known by name: what a teacher is made of, and what a student may know of it.

Written `name` or `name-number` (`rotation-30`, `scaling-0.8`, `lowrank-8`). The random ones are drawn from a
stream that depends on nothing but their name and size, so the teacher's R and the student's are the same
matrix. The question is He et al. 2016b's, section 3 (which shortcut functions work?), under control.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from resx.registry import Registry
from resx.seeding import generator
from resx.spec import SpecError

# factories (size, number) -> float64 [size, size]
MAPS: Registry[Callable[[int, float], Tensor]] = Registry("map")
NUMBERS = {"scaling": "factor", "rotation": "angle in degrees", "lowrank": "rank"}  # of maps that need one


@MAPS.register("identity")
def identity(size: int, number: float = 0.0) -> Tensor:
    """The identity: what an identity shortcut knows already."""
    return torch.eye(size, dtype=torch.float64)


@MAPS.register("negation")
def negation(size: int, number: float = 0.0) -> Tensor:
    """The negative of the identity."""
    return -torch.eye(size, dtype=torch.float64)


@MAPS.register("scaling")
def scaling(size: int, number: float) -> Tensor:
    """The identity times a factor."""
    return number * torch.eye(size, dtype=torch.float64)


@MAPS.register("permutation")
def permutation(size: int, number: float = 0.0) -> Tensor:
    """A fixed random permutation that is one cycle, so that no coordinate stays where it is."""
    order = torch.randperm(size, generator=generator(0, "map", "permutation", size))
    matrix = torch.zeros(size, size, dtype=torch.float64)
    matrix[order, order.roll(1)] = 1.0
    return matrix


@MAPS.register("rotation")
def rotation(size: int, number: float) -> Tensor:
    """A rotation by the angle in every one of size/2 fixed random planes; an odd direction stays."""
    return _rotation(size, number, "rotation")


@MAPS.register("lowrank")
def lowrank(size: int, number: float) -> Tensor:
    """The orthogonal projection onto a fixed random subspace of the rank."""
    rank = int(number)
    if rank != number or not 1 <= rank <= size:
        raise SpecError(f"map 'lowrank': the rank must be a whole number from 1 to {size}, not {number:g}")
    basis = _orthogonal(size, "lowrank")[:, :rank]
    return basis @ basis.T


def linear_map(text: str, size: int, away: float = 0.0) -> Tensor:
    """Return the map of `name` or `name-number`, turned away from it by an angle: float64 [size, size].

    away: degrees by which every vector of the map's image is rotated, in planes of their own. For even sizes
    the result is at the relative Frobenius distance 2·sin(away/2) from the map. Raises SpecError.
    """
    name, number = parse_map(text)
    matrix = MAPS[name](size, number)
    return _rotation(size, away, "away") @ matrix if away else matrix


def parse_map(text: str) -> tuple[str, float]:
    """Split `rotation-30` into the name and the number (0 for a map without). Raises SpecError."""
    name, dash, written = text.partition("-")
    if name not in NUMBERS:
        if dash and name in MAPS:
            raise SpecError(f"map '{text}': {name} takes no number")
        MAPS[name]  # raises for an unknown name
        return name, 0.0
    try:
        number = float(written)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise SpecError(f"map '{text}': write its {NUMBERS[name]} as {name}-NUMBER")
    return name, number


def _orthogonal(size: int, purpose: str) -> Tensor:
    draw = torch.randn(size, size, generator=generator(0, "map", purpose, size), dtype=torch.float64)
    return torch.linalg.qr(draw).Q


def _rotation(size: int, degrees: float, purpose: str) -> Tensor:
    angle = math.radians(degrees)
    turn = torch.eye(size, dtype=torch.float64)
    for first in range(0, size - 1, 2):
        turn[first, first] = turn[first + 1, first + 1] = math.cos(angle)
        turn[first, first + 1], turn[first + 1, first] = -math.sin(angle), math.sin(angle)
    basis = _orthogonal(size, purpose)
    return basis @ turn @ basis.T
