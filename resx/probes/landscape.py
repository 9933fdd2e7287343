"""Landscape: do shortcuts keep the loss surface from turning chaotic (Li et al. 2018)?

Question. Li et al. find the loss around a trained deep plain network chaotic and far from convex, and smooth around a
residual one, and take this for the reason that the latter trains. Is it so around these networks?

Method. The weights of a trained network are moved along random directions, each filter by a vector of its own norm
(filter normalisation); biases, gains and shifts stay. Up to this scaling all networks share the directions. The mean
loss on `images` training images is measured at `points` places along each of `lines` directions, and on a `grid` ×
`grid` lattice in the plane of the first two, up to `radius` times the filters' norms. Batch normalisation has two
modes, never mixed: `batch` computes its statistics from the same images at every place, so the loss is a function of
the weights alone; `running` keeps those of training, which fit the middle only. Secondary: how far the loss rises half
a filter norm away along lines (log10 of the ratio, which depends on the loss in the middle).

Primary outcome. The share of the plane (%) where the loss is clearly not convex: its Hessian within the plane, by
second differences, has λ_min < −0.1·|λ_max| (statistics `batch`); plain minus residual at the greatest depth.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pydantic import Field

from resx.claims import DEEP, Claim, Contrast, contrast, plain
from resx.probes import Findings, Frames, Measure, Probe, Request, Settings, Tables
from resx.probes.tidy import arm_symbol, join, summary, without_blocks
from resx.spec import RunSpec

if TYPE_CHECKING:
    from resx.measurements.inputs import Specimen

NOT_CONVEX = -0.1  # λ_min / |λ_max| below which a place counts as not convex
HALF = 0.5  # of the filters' norms: where the rise is read
NETWORK = ("kind", "depth", "statistics")
QUANTITIES = ("not_convex", "rise", "middle")


class LandscapeSettings(Settings):
    """images: training images. points: places along each of `lines` directions. grid: places along a side of the
    plane. radius: how far the weights are moved, in filter norms."""

    images: int = Field(250, ge=1)
    points: int = Field(21, ge=3)
    grid: int = Field(11, ge=3)
    radius: float = Field(1.0, gt=0)
    lines: int = Field(2, ge=1)


def plan(request: Request) -> list[RunSpec]:
    """Return plain and residual networks of depth 56."""
    return request.runs(depth=[56], shortcut=["none", "identity"])


def measure(specimen: Specimen, settings: LandscapeSettings) -> pd.DataFrame:
    """Measure the loss around a run's last weights."""
    return measure_around(specimen, settings.images, **settings.model_dump(exclude={"images"}))


def measure_around(specimen: Specimen, images: int, **sizes: Any) -> pd.DataFrame:
    """Measure the loss on training images around a run's last weights; sizes: of the lines and the plane."""
    from resx.measurements.landscape import landscape
    from resx.training.evaluate import EVAL_BATCH

    x, y = specimen.sample(images)
    batches = list(zip(x.split(EVAL_BATCH), y.split(EVAL_BATCH), strict=True))
    network = specimen.network(min(images, EVAL_BATCH))
    return landscape(network, batches, specimen.dataset.task, **sizes, progress=_quarters(specimen.run.run_id))


def _quarters(run_id: str) -> Callable[[int, int], None]:
    """Return a function that writes a line to a terminal at each quarter of the way."""

    def report(done: int, total: int) -> None:
        if sys.stderr.isatty() and done * 4 // total > (done - 1) * 4 // total:
            print(f"{run_id}: {done} of {total} places", file=sys.stderr, flush=True)

    return report


def tables(frames: Frames, settings: LandscapeSettings) -> dict[str, pd.DataFrame]:
    """Return `outcomes`, a row per network, kind of statistics and seed, and its `means`."""
    rows = join(frames["landscape"], frames["runs"])
    columns = [*NETWORK, "seed"]
    groups = rows.groupby(columns)
    outcomes = pd.DataFrame([dict(zip(columns, key, strict=True)) | _outcome(group) for key, group in groups])
    return {"means": summary(outcomes, NETWORK, QUANTITIES), "outcomes": outcomes}


def _outcome(rows: pd.DataFrame) -> dict[str, float]:
    """Return one network's loss in the middle, its rise half a norm away, and the share that is not convex."""
    from resx.measurements.landscape import curvature

    lines = rows[rows["shape"] == "line"].groupby(["direction", "a"])["loss"].first().unstack("direction")
    axis = lines.index.to_numpy(float)
    middle = float(lines.iloc[int(np.abs(axis).argmin())].mean())
    at_half = [int(np.abs(axis - side).argmin()) for side in (-HALF, HALF)]
    rise = float(np.log10(lines.iloc[at_half] / middle).mean().mean())
    ratio = curvature(rows[rows["shape"] == "plane"])
    finite = ratio[np.isfinite(ratio)]
    return {
        "not_convex": 100 * float((finite < NOT_CONVEX).mean()) if finite.size else np.nan,
        "rise": rise if np.isfinite(rise) else np.nan,
        "middle": middle,
    }


def extras(tables: Tables, settings: LandscapeSettings) -> Mapping[str, Sequence[Contrast]]:
    """Return what plain networks have more than every other kind."""
    return {"effects": [_more(quantity, "{statistics}", "{kind}") for quantity in ("not_convex", "rise")]}


def _more(quantity: str, statistics: str, kind: str) -> Contrast:
    cells = plain(DEEP, statistics=statistics), {"kind": kind, "depth": DEEP, "statistics": statistics}
    return contrast(quantity, *cells, over=("kind", "statistics") if kind == "{kind}" else ())


def comment(findings: Findings) -> list[str]:
    """Return the loss in the middle, without which the shares cannot be read."""
    means = findings.tables["means"]
    own = means[means["statistics"] == "batch"]
    losses = [f"{row['middle']:.2g} around {row['kind']}-{row['depth']}" for row in own.to_dict("records")]
    return [f"The loss in the middle is {', '.join(losses)} (batch statistics)."]


CLAIMS = (
    Claim(
        key="plain-less-convex",
        says=f"The loss around a plain network is less convex than around a {{arm}} one ({DEEP} layers)",
        expected=+1,
        first=_more("not_convex", "batch", "{arm}"),
        beside=(
            _more("rise", "batch", "{arm}"),
            _more("not_convex", "running", "{arm}"),
            _more("rise", "running", "{arm}"),
        ),
    ),
)

PROBE = Probe(
    plan=plan,
    tables=tables,
    claims=CLAIMS,
    settings=LandscapeSettings,
    figures=("landscape",),
    shown=("means",),
    measures={"landscape": Measure(measure, without_blocks, keys=("images", "points", "grid", "radius", "lines"))},
    labels={
        "not_convex": "not convex (% of the plane)",
        "rise": "log10 rise at half a norm",
        "middle": "loss in the middle",
    },
    extras=extras,
    symbols=arm_symbol,
    comment=comment,
    limits=(
        "This is the neighbourhood of where training ended; it does not say why training got there: a plain network "
        "that trained badly ends in another place altogether. Near chance level a network stands on a plateau, where "
        "there is hardly any curvature and the ratio says little. A plane through one point says nothing about the "
        "rest of a space of hundreds of thousands of dimensions, and a coarse lattice sees no fine structure."
    ),
)
