"""Paths: through how many blocks does the gradient of a residual network come (Veit et al. 2016)?

Question. A residual network of n blocks is a sum over 2^n paths, which take the branch of k blocks and the shortcut of
the others. Veit et al. argue that it therefore behaves like an ensemble of many relatively shallow networks, since
almost all of the gradient comes through short paths (5 to 17 of 54 blocks). Their estimate multiplies the mean gradient
norm of one path by the number of paths, as if gradients of different paths never cancelled.

Method. At initialisation and after training, with the activation pattern of a forward pass over `inputs` training
images fixed (batch statistics, float64), one gradient per path length is carried back through the blocks to the stem's
output. Their sum is the whole gradient, up to rounding (`residue`). Per length k: the share ⟨g_k, Σg⟩/‖Σg‖², signed,
summing to 1; the norm ‖g_k‖; the estimate of Veit et al. from `samples` paths; and the binomial share of paths. 'half'
is the length at which the cumulative share crosses one half for the last time, interpolated, so that it is n/2 for all
paths together. Cancellation is Σ‖g_k‖/‖Σg‖, 1 where there is none. Plain networks, which have one path, are left out,
and so are shortcuts that are not linear in x alone, such as gates, which have no path lengths.

Primary outcome. half/n − 1/2 after training at the greatest depth: how far the gradient's middle lies below that of
all paths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd
from pydantic import Field

from resx import paper
from resx.claims import DEEP, SHALLOW, Claim, Contrast, contrast
from resx.probes import Findings, Frames, Measure, Probe, Request, Settings, Tables
from resx.probes.tidy import INITIAL, TRAINED, Statistics, arm_symbol, join, phases, summary, without_blocks
from resx.spec import RunSpec

if TYPE_CHECKING:
    from resx.measurements.inputs import Specimen

TRIAL_CHANNELS = 4  # of the shortcut that is tried out; linearity does not depend on them
NETWORKS = ("kind", "depth", "n", "phase")


class PathsSettings(Settings):
    """inputs: training images. samples: paths drawn per length for the estimate of Veit et al. statistics: what
    normalisations use."""

    inputs: int = Field(64, ge=2)
    samples: int = Field(16, ge=1)
    statistics: Statistics = "batch"


def plan(request: Request) -> list[RunSpec]:
    """Return residual networks of depths 20 and 56."""
    return request.runs(depth=[20, 56], shortcut=["identity"])


def refuses(spec: RunSpec) -> str | None:
    """Say why a run has no paths of different lengths, or return None."""
    import torch

    from resx.measurements.paths import unfit
    from resx.model import SHORTCUTS

    reason = without_blocks(spec)
    if reason:
        return reason
    with torch.random.fork_rng(devices=[]):
        return unfit(SHORTCUTS.create(spec.model.shortcut, TRIAL_CHANNELS), TRIAL_CHANNELS)


def measure(specimen: Specimen, settings: PathsSettings) -> pd.DataFrame:
    """Measure the first and the last weights; adds `step`."""
    import torch

    from resx.measurements.paths import paths

    task, seed = specimen.dataset.task, specimen.run.spec.seed
    measurement = partial(paths, task=task, samples=settings.samples, seed=seed)
    steps = specimen.first_and_last()
    return specimen.followed(measurement, steps, settings.inputs, settings.statistics, torch.float64)


def tables(frames: Frames, settings: PathsSettings) -> dict[str, pd.DataFrame]:
    """Return `outcomes`, what the lengths amount to in each run and phase, its `means`, and `shares` by length."""
    rows = phases(join(frames["paths"], frames["runs"]))
    outcomes = _outcomes(rows)
    shares = rows[["kind", "depth", "phase", "seed", "length", "share", "sampled", "binomial"]]
    quantities = ("half", "sampled_half", "sampled_from", "sampled_to", "paths", "cancellation")
    return {"means": summary(outcomes, NETWORKS, quantities), "outcomes": outcomes, "shares": shares}


def _outcomes(rows: pd.DataFrame) -> pd.DataFrame:
    """Return a row per run and phase: resx.measurements.paths.Lengths, with half/n as `middle`."""
    from resx.measurements.paths import summarise

    columns = ["kind", "depth", "seed", "phase"]
    groups = rows.groupby(columns, sort=False)
    table = pd.DataFrame([dict(zip(columns, key, strict=True)) | vars(summarise(group)) for key, group in groups])
    table = table.rename(columns={"middle": "sampled_half", "low": "sampled_from", "high": "sampled_to"})
    return table.assign(middle=table["half"] / table["n"])


def _at(depth: Any, phase: Mapping[str, Any]) -> dict[str, Any]:
    return {"kind": "{arm}", "depth": depth, **phase}


def extras(tables: Tables, settings: PathsSettings) -> Mapping[str, Sequence[Contrast]]:
    """Return the gradient's middle at every depth and phase, and what training does to it at the greatest depth."""
    every = contrast("middle", _at("{depth}", {"phase": "{phase}"}), 0.5, over=("depth", "phase"))
    return {"effects": (every, contrast("middle", _at(DEEP, TRAINED), _at(DEEP, INITIAL)))}


def comment(findings: Findings) -> list[str]:
    """Return where the middle lies in the deepest trained network, next to what Veit et al. report."""
    means = findings.tables["means"]
    trained = means[means["phase"] == "trained"]
    if trained.empty:
        return []
    own = trained.sort_values("depth").iloc[-1]
    low, high = paper.VEIT_EFFECTIVE_LENGTHS
    return [
        f"{own['kind']}-{own['depth']}, trained: half of the gradient comes through paths of at most {own['half']:.1f} "
        f"of {own['n']} blocks (middle of all paths: {own['n'] / 2:g}). In the sampled estimate 95 % of the weight is "
        f"on lengths {own['sampled_from']:.1f} to {own['sampled_to']:.1f}, and {own['paths']:.2g} % of all paths are "
        f"no longer. {paper.VEIT_MODULES.source} [{paper.VEIT_MODULES.mark}] report {low} to {high} of "
        f"{paper.VEIT_MODULES.value:.0f} blocks, {paper.VEIT_EFFECTIVE_SHARE.value} % of all paths, for a trained "
        "ResNet-110 on CIFAR-10."
    ]


CLAIMS = (
    Claim(
        key="short-paths",
        says=f"The gradient of {{arm}}-{DEEP} comes through paths shorter than the middle of all paths",
        expected=-1,
        first=contrast("middle", _at(DEEP, TRAINED), 0.5),
        beside=(contrast("middle", _at(DEEP, INITIAL), 0.5),),
    ),
    Claim(
        key="depth-adds-little",
        says="Depth adds paths that carry little of the gradient",
        expected=-1,
        first=contrast("middle", _at(DEEP, TRAINED), _at(SHALLOW, TRAINED)),
        beside=(contrast("middle", _at(DEEP, INITIAL), _at(SHALLOW, INITIAL)),),
    ),
)

PROBE = Probe(
    adopts=True,
    plan=plan,
    tables=tables,
    claims=CLAIMS,
    settings=PathsSettings,
    figures=("paths",),
    shown=("means",),
    drawn=("shares",),
    measures={"paths": Measure(measure, refuses, keys=("inputs", "samples", "statistics"))},
    labels={"middle": "half/n", "paths": "% of all paths", "n": "blocks"},
    extras=extras,
    symbols=arm_symbol,
    comment=comment,
    limits=(
        "This says through how many blocks the gradient comes. The paths share their weights and their activation "
        "pattern, so it does not by itself make the network an ensemble of shallow ones."
    ),
)
