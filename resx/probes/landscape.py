"""Landscape: do shortcuts keep the loss surface from turning chaotic (Li et al. 2018)?

Question. Li et al. find the loss around a trained deep plain network chaotic and far from convex, and smooth around a
residual one, and take this for the reason that the latter trains. Is it so around these networks?

Method. The weights of a trained network are moved along random directions, each filter by a vector as long as the
filter itself (filter normalisation); biases, gains and shifts stay. Directions are the same for all networks until they
are scaled. The mean loss on `images` training images is measured along `lines` directions at `points` places, and in
the plane of the first two on a lattice of `grid` × `grid`, up to `radius` times the filters' norms. Batch normalisation
is used in two ways, told apart everywhere: `batch` takes its statistics anew, from the same images, at every place, so
the loss is a function of the weights alone; `running` keeps those of training, which fit the middle only.

Primary outcome. The share of the plane (%) where the loss is clearly not convex: its Hessian within the plane, by
second differences on the lattice, has λ_min < −0.1·|λ_max| (statistics `batch`); plain minus residual at the
greatest depth.

Criteria, fixed beforehand; t intervals over seeds, one joint sign-flip over all effects, at least 6 seeds. Shortcuts
keep the surface smooth: supported above 0, refuted below. Beside it the same with running statistics, and by how much
the loss rises half a filter's norm away, along lines (log10 of the ratio, which depends on the loss in the middle).

What it cannot show. A network near chance level stands on a plateau, where the ratio says little, for there is hardly
any curvature; the figure shows whether that is so. A plane through one point says nothing about the rest of a space of
hundreds of thousands of dimensions, a coarse lattice sees no fine structure, and the surface around where training
ended does not say why it got there: a plain network that trained badly ends in another place altogether.

Settings. images, points, grid, radius, lines.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

from resx.claims import estimates, table_of, verdict, with_runs
from resx.data import Dataset
from resx.measurements.inputs import network_at, sample, without_blocks
from resx.measurements.landscape import curvature, landscape
from resx.probes.study import Findings, Frames, Measure, Order, Study, Verdict
from resx.spec import RunSpec, SpecError
from resx.store.run import RunFolder
from resx.training.evaluate import EVAL_BATCH

NOT_CONVEX = -0.1  # λ_min / |λ_max| below which a place counts as not convex
HALF = 0.5  # of the filters' norms: where the rise is read


def plan(order: Order) -> list[RunSpec]:
    """Plain and residual at depth 56. Raises SpecError for settings that leave nothing to measure."""
    settings = order.settings
    if settings["grid"] < 3 or settings["points"] < 3 or settings["lines"] < 1 or settings["radius"] <= 0:
        raise SpecError("landscape: grid and points must be at least 3, lines at least 1, radius above 0")
    return order.runs(depth=[56], shortcut=["none", "identity"])


def measure(run: RunFolder, dataset: Dataset, settings: Mapping[str, Any], device: torch.device) -> pd.DataFrame:
    """Apply the probe to a run's last weights."""
    images = settings["images"]
    x, y = sample(run, dataset, device, images)
    network = network_at(run, dataset, device, max(run.snapshots()), min(images, EVAL_BATCH))
    batches = list(zip(x.split(EVAL_BATCH), y.split(EVAL_BATCH), strict=True))
    sizes = {key: settings[key] for key in ("points", "grid", "radius", "lines")}
    return landscape(network, batches, dataset.task, **sizes, progress=_teller(run.run_id))


def _teller(run_id: str) -> Callable[[int, int], None]:
    """Return what tells a terminal each quarter of the way; runs that are measured at a time do so side by side."""

    def tell(done: int, total: int) -> None:
        if sys.stderr.isatty() and done * 4 // total > (done - 1) * 4 // total:
            print(f"{run_id}: {done} of {total} places", file=sys.stderr, flush=True)

    return tell


def judge(frames: Frames, settings: Mapping[str, Any]) -> Findings:
    """Compare planes and lines of plain and residual networks, paired by seed."""
    rows = with_runs(frames["landscape"], frames["runs"])
    rows = rows[rows["status"] == "finished"]
    table = _outcomes(rows)
    depth = int(rows["depth"].max())
    others = [kind for kind in table["kind"].unique() if kind != "plain"]
    columns: dict[str, pd.Series] = {}
    first: dict[str, list[str]] = {}
    for kind in others:
        for statistics in ("batch", "running"):
            for quantity, words in (
                ("not_convex", "not convex (% of the plane)"),
                ("rise", "log10 rise at half a norm"),
            ):
                name = f"{words}, {statistics}, plain-{depth} − {kind}-{depth}"
                of = table[(table["depth"] == depth) & (table["statistics"] == statistics)]
                by_kind = {key: group.set_index("seed")[quantity] for key, group in of.groupby("kind")}
                if {"plain", kind} <= set(by_kind):
                    columns[name] = by_kind["plain"] - by_kind[kind]
                    first.setdefault(kind, []).append(name)
    found = estimates(columns)
    verdicts: list[Verdict] = []
    for kind, names in first.items():
        verdicts += verdict(
            f"The loss around a plain network is less convex than around a {kind} one ({depth} layers)",
            "share of the plane that is not convex, statistics of the images at every place, plain minus the other: "
            "supported above 0, refuted below",
            found,
            names,
            +1,
        )
    return Findings({"landscape": table, "effects": table_of(found)}, verdicts, _answer(table, verdicts))


def _outcomes(rows: pd.DataFrame) -> pd.DataFrame:
    """Return a row per network, seed and kind of statistics: loss in the middle, rise, share that is not convex."""
    found = []
    for (kind, depth, statistics, seed), group in rows.groupby(["kind", "depth", "statistics", "seed"], sort=False):
        lines = group[group["shape"] == "line"].groupby(["direction", "a"])["loss"].first().unstack("direction")
        axis = lines.index.to_numpy(float)
        middle = float(lines.iloc[int(np.abs(axis).argmin())].mean())
        at_half = [int(np.abs(axis - side).argmin()) for side in (-HALF, HALF)]
        rise = float(np.log10(lines.iloc[at_half] / middle).mean().mean())
        ratio = curvature(group[group["shape"] == "plane"])
        known = ratio[np.isfinite(ratio)]
        found.append(
            {
                "kind": kind,
                "depth": depth,
                "statistics": statistics,
                "seed": seed,
                "middle": middle,
                "rise": rise if np.isfinite(rise) else np.nan,
                "not_convex": 100 * float((known < NOT_CONVEX).mean()) if known.size else np.nan,
            }
        )
    return pd.DataFrame(found).sort_values(["statistics", "kind", "depth", "seed"], ignore_index=True)


def _answer(table: pd.DataFrame, verdicts: list[Verdict]) -> str:
    lines = []
    for (kind, depth, statistics), group in table.groupby(["kind", "depth", "statistics"], sort=False):
        lines.append(
            f"{kind}-{depth} with {statistics} statistics: not convex in {group['not_convex'].mean():.0f} % of the "
            f"plane, loss {group['middle'].mean():.2g} in the middle"
        )
    words = " ".join(f"{item.hypothesis}: {item.word}." for item in verdicts)
    return (
        f"{'; '.join(lines)}. {words} This is the neighbourhood of where training ended, in one plane and on a coarse "
        "lattice; it does not say why training got there."
    )


STUDY = Study(
    plan=plan,
    judge=judge,
    figures=("landscape",),
    measures={
        "landscape": Measure(measure, without_blocks, keys=("images", "points", "grid", "radius", "lines")),
    },
    defaults={"images": 250, "points": 21, "grid": 11, "radius": 1.0, "lines": 2},
)
