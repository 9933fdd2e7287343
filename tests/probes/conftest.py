"""Tables like those of recorded runs, made up, for probes to judge."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import product
from typing import Any

import pandas as pd
import pytest

from resx.probes import Request, load_probe, parse_settings
from resx.spec import RunSpec, build_spec
from resx.training.machine import Machine
from resx.training.resolve import resolve


def runs_of(
    depths: Sequence[int] = (20, 56),
    shortcuts: Sequence[str] = ("none", "identity"),
    norms: Sequence[str] = ("batch",),
    seeds: Sequence[int] = range(6),
    diverged: Collection[tuple[str, int, str, int]] = (),
) -> pd.DataFrame:
    """Return a table of runs. diverged: (shortcut, depth, norm, seed) of those that ended early."""
    rows = []
    for depth, shortcut, norm, seed in product(depths, shortcuts, norms, seeds):
        spec = build_spec({"depth": depth, "shortcut": shortcut, "norm": norm, "seed": seed})
        status = "diverged" if (shortcut, depth, norm, seed) in diverged else "finished"
        rows.append({**spec.flat(), "run_id": spec.run_id, "status": status, "data_label": "made-up"})
    return pd.DataFrame(rows)


def request_of(
    name: str, seeds: Sequence[int] = (0, 1), base: Any = None, grid: Any = None, **settings: Any
) -> Request:
    """Return what a probe is asked for on the digits preset; nothing is trained."""
    chosen = parse_settings(load_probe(name), settings)
    return Request(base or {"preset": "digits"}, seeds, chosen, lambda cells: resolve(cells, Machine()), [grid or {}])


@pytest.fixture(name="runs_of")
def runs_of_fixture() -> Callable[..., pd.DataFrame]:
    return runs_of


@pytest.fixture(name="request_of")
def request_of_fixture() -> Callable[..., Request]:
    return request_of


@pytest.fixture(name="specs_of")
def specs_of_fixture() -> Callable[..., list[RunSpec]]:
    """Return a function from a probe's name and what `request_of` takes to the runs that it plans."""
    return lambda name, **asked: load_probe(name).plan(request_of(name, **asked))
