"""Gradients: do they vanish in deep plain networks, and do they shatter (He et al. 2016, section 4.1)?

Question. Vanishing gradients are the usual explanation of why deep plain networks train badly. The paper doubts it:
with batch normalisation its plain networks had gradients with healthy norms. Yang et al. 2019 find that they then
explode at initialisation, by about ×1.21 a layer. Balduzzi et al. 2017 blame something else: in deep plain networks the
gradients of nearby inputs are unrelated ('shattered'), with shortcuts much less so.

Method. Plain and residual networks at two depths, with batch normalisation and without, on the same `inputs` training
images with batch statistics. At initialisation and every kept step: the norm of the loss gradient with respect to the
stem's and each block's output, and its growth per layer towards the input, from a log-linear fit. At the first and the
last of them also how the gradients of two inputs (of one output, with respect to the input) correlate, by their
distance along a line from one image towards another, over `lines` lines. The summary is the distance, as a fraction of
that between the images, at which the correlation falls below one half.

Networks without normalisation may diverge at this learning rate. They stay in the tables, measured at initialisation. A
grid over `padding` and `image_size` shows the effect of the border: a 3×3 kernel on a 2×2 map sees 4 of its 9 taps, and
with zeros beyond the edge every layer shrinks the gradient.

Primary outcomes. Growth per layer (%) of the deepest plain network with batch normalisation at initialisation. The
interaction of log10 half-distance: what depth does to it in plain networks minus what it does in residual ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pydantic import Field

from resx import paper
from resx.claims import DEEP, SHALLOW, Claim, Contrast, contrast, interaction, plain, residual
from resx.probes import Findings, Frames, Measure, Probe, Request, Settings, Tables
from resx.probes.tidy import INITIAL, TRAINED, Statistics, diverged, join, phases, summary, without_blocks
from resx.spec import RunSpec

if TYPE_CHECKING:
    from resx.measurements.inputs import Specimen

DISTANCES = [4.0**-power for power in range(12, -1, -1)]  # of the way from one image to another
NETWORK = ("kind", "depth", "norm", "padding", "images")
VARIANT = {"padding": "{padding}", "images": "{images}"}  # a claim is judged in each
OVER = tuple(VARIANT)
CIRCULAR, FULL = "circular padding", "full size"
BATCH, TRAINING = {"norm": "batch"}, {"phase": "training"}


class GradientsSettings(Settings):
    """inputs: training images. lines: of them, how many lines start from. statistics: what normalisations use."""

    inputs: int = Field(64, ge=2)
    lines: int = Field(32, ge=1)
    statistics: Statistics = "batch"


def plan(request: Request) -> list[RunSpec]:
    """Return plain and residual networks, with batch normalisation and without, at depths 20 and 56."""
    return request.runs(depth=[20, 56], shortcut=["none", "identity"], norm=["batch", "none"])


def measure_gradients(specimen: Specimen, settings: GradientsSettings) -> pd.DataFrame:
    """Measure every kept step; adds `step`."""
    from resx.measurements.gradients import gradients

    measurement = partial(gradients, task=specimen.dataset.task)
    return specimen.followed(measurement, specimen.kept_steps(), settings.inputs, settings.statistics)


def measure_shattering(specimen: Specimen, settings: GradientsSettings) -> pd.DataFrame:
    """Measure the first and the last kept step; adds `step`. float64, for the smallest distances."""
    import torch

    from resx.measurements.gradients import shattering

    return specimen.followed(
        lambda network, x, y: shattering(network, x, DISTANCES, settings.lines),
        specimen.first_and_last(),
        settings.inputs,
        settings.statistics,
        torch.float64,
    )


def tables(frames: Frames, settings: GradientsSettings) -> dict[str, pd.DataFrame]:
    """Return growth per layer (by step, by phase, and its means), norms by layer, and correlations by distance.

    padding: '' for zeros; images: '' at their own size, such as '8×8' where they were averaged down.
    """
    runs = variants(frames["runs"])
    sizes = list(runs["images"].unique())
    rows = join(frames["gradients"], runs, *OVER)
    norms = rows[rows["quantity"] == "activation"]
    alike = phases(join(frames["shattering"], runs, *OVER))
    steps = _growth_by_step(norms)
    growth = _growth_by_phase(steps)
    half = _half_distances(alike)
    by = [*NETWORK, "phase"]
    shown = growth[(growth["phase"] != "trained") | ~_followed(growth, growth["phase"] == "initial")]
    shown = summary(shown, by, ("growth", "within", "first_over_last"))
    lost = growth[growth["phase"] == "initial"].groupby(list(NETWORK))["status"].agg(diverged)
    shown = shown.merge(lost.rename("diverged").reset_index(), how="left", on=list(NETWORK))
    return {
        "growth": _by_size(shown, sizes),
        "shattering": _by_size(summary(half, by, ("log10_half",)), sizes),
        "growth_by_phase": growth,
        "growth_by_step": steps,
        "half_distances": half,
        "norms": phases(norms)[[*by, "seed", "layer", "value"]],
        "correlations": alike[[*by, "seed", "distance", "correlation"]],
    }


def variants(runs: pd.DataFrame) -> pd.DataFrame:
    """Return runs with `padding` and `images` in words, empty where they are as usual, the smallest images first."""
    runs = runs.sort_values("image_size", kind="stable")  # full size, which is null, comes last
    sizes = runs["image_size"].map(lambda size: FULL if pd.isna(size) else f"{size:g}×{size:g}")
    padding = runs["padding"].map(lambda padding: CIRCULAR if padding == "circular" else "")
    return runs.assign(padding=padding, images=sizes if sizes.nunique() > 1 else "")


def _by_size(table: pd.DataFrame, sizes: list[str]) -> pd.DataFrame:
    """Return the rows in the order of sizes, and of what else they were in."""
    return table.sort_values("images", key=lambda names: names.map(sizes.index), kind="stable", ignore_index=True)


def _followed(table: pd.DataFrame, initial: pd.Series) -> pd.Series:
    """Return whether the run of each row was followed from its initial weights on; what others trained was not."""
    return initial.groupby([table[column] for column in (*NETWORK, "seed")]).transform("any")


def _growth_by_step(rows: pd.DataFrame) -> pd.DataFrame:
    """Return, by run and kept step, growth and growth within stages (% per layer), and the first norm over the last."""
    from resx.measurements.gradients import growth

    columns = [*NETWORK, "seed", "status", "step"]
    fits = []
    for key, group in rows.groupby(columns, sort=False):
        factor, within = growth(group)
        norms = group.sort_values("layer")["value"]
        first, last = norms.iloc[0], norms.iloc[-1]
        fits.append([*key, 100 * (factor - 1), 100 * (within - 1), first / last if last else np.nan])
    return pd.DataFrame(fits, columns=[*columns, "growth", "within", "first_over_last"])


def _growth_by_phase(steps: pd.DataFrame) -> pd.DataFrame:
    """Return the growth at initialisation, as the mean over the kept steps of training, and after it."""
    columns = [*NETWORK, "seed", "status"]
    last = steps.groupby(columns, sort=False)["step"].transform("max")
    finished = (steps["step"] > 0) & (steps["status"] == "finished")
    followed = finished & _followed(steps, steps["step"] == 0)
    means = steps[followed].groupby(columns, sort=False)[["growth", "within", "first_over_last"]].mean().reset_index()
    ends = (
        steps[steps["step"] == 0].assign(phase="initial"),
        means.assign(phase="training"),
        steps[finished & (steps["step"] == last)].assign(phase="trained"),
    )
    return pd.concat(ends, ignore_index=True).drop(columns="step")


def _half_distances(rows: pd.DataFrame) -> pd.DataFrame:
    """Return, per run and phase, log10 of the distance at which the correlation falls below one half."""
    from resx.measurements.gradients import half_distance

    columns = [*NETWORK, "seed", "phase"]
    values = [[*key, np.log10(half_distance(group))] for key, group in rows.groupby(columns, sort=False)]
    return pd.DataFrame(values, columns=[*columns, "log10_half"])


def extras(tables: Tables, settings: GradientsSettings) -> Mapping[str, Sequence[Contrast]]:
    """Return the growth of every kind of network at the greatest depth, at initialisation and in training."""
    cell = {"kind": "{kind}", "depth": DEEP, "norm": "{norm}", "phase": "{phase}", **VARIANT}
    where = {"phase": ("initial", "training")}
    return {"effects": (contrast("growth", cell, over=("kind", "norm", "phase", *OVER), where=where),)}


def symbols(tables: Tables, settings: GradientsSettings) -> Mapping[str, Any]:
    """Return the size of the smallest images."""
    return {"smallest": tables["growth"]["images"].iloc[0]}


def comment(findings: Findings) -> list[str]:
    """Return the published growth next to the one measured here."""
    growth = findings.tables["growth"]
    own = growth[(growth["kind"] == "plain") & (growth["norm"] == "batch") & (growth["phase"] == "initial")]
    if own.empty:
        return []
    published = paper.PLAIN_GRADIENT_FACTOR
    here = [
        f"{row['growth']:+.1f} %" + "".join(f", {row[column]}" for column in OVER if row[column])
        for row in own[own["depth"] == own["depth"].max()].to_dict("records")
    ]
    return [
        f"{published.source} [{published.mark}] report a growth of about {100 * (published.value - 1):.0f} % a layer "
        f"for plain networks with batch normalisation at initialisation (very wide ones); here it is {'; '.join(here)}."
    ]


def _vanish(key: str, when: str, phase: dict[str, Any]) -> Claim:
    return Claim(
        key=key,
        says=f"Gradients of plain-{DEEP} vanish {when}",
        expected=-1,
        first=contrast("growth", plain(DEEP, **BATCH, **phase, **VARIANT), over=OVER),
        beside=(
            contrast("growth", residual(DEEP, **BATCH, **phase, **VARIANT), over=OVER),
            contrast("growth", plain(DEEP, norm="none", **phase, **VARIANT), over=OVER),
        ),
    )


def _shatter(key: str, when: str, phase: dict[str, Any]) -> Claim:
    at = {**BATCH, **phase, **VARIANT}
    deep, shallow = plain(DEEP, **at), plain(SHALLOW, **at)
    others = residual(DEEP, **at), residual(SHALLOW, **at)
    return Claim(
        key=key,
        says=f"Depth shatters gradients of plain networks more than those of residual ones {when}",
        expected=-1,
        first=interaction("log10_half", (deep, shallow), others, over=OVER),
        beside=(contrast("log10_half", deep, others[0], over=OVER),),
    )


def _border() -> Claim:
    """Return the claim that circular padding removes three quarters of the shrinking on the smallest maps."""
    bare = {"norm": "none", **INITIAL}
    wrapped, zeros = plain(DEEP, **bare, padding=CIRCULAR), plain(DEEP, **bare, padding="")
    return Claim(
        key="border-not-depth",
        says=f"Without normalisation gradients of plain-{DEEP} shrink at the border of small maps, not with depth",
        expected=+1,
        first=Contrast(
            "growth", ((1, {**wrapped, "images": "{smallest}"}), (-0.25, {**zeros, "images": "{smallest}"}))
        ),
        beside=(
            contrast("growth", {**wrapped, "images": "{images}"}, over=("images",)),
            contrast("growth", {**wrapped, "images": "{images}"}, {**zeros, "images": "{images}"}, over=("images",)),
        ),
    )


CLAIMS = (
    _vanish("vanish-initially", "at initialisation", INITIAL),
    _vanish("vanish-in-training", "in training", TRAINING),
    _shatter("shatter-initially", "at initialisation", INITIAL),
    _shatter("shatter-after-training", "after training", TRAINED),
    _border(),
)

PROBE = Probe(
    adopts=True,
    plan=plan,
    tables=tables,
    claims=CLAIMS,
    settings=GradientsSettings,
    figures=("gradients",),
    shown=("growth", "shattering"),
    drawn=("norms", "correlations", "growth_by_step"),
    measures={
        "gradients": Measure(measure_gradients, without_blocks, keys=("inputs", "statistics"), diverged=True),
        "shattering": Measure(
            measure_shattering, without_blocks, keys=("inputs", "lines", "statistics"), diverged=True
        ),
    },
    labels={
        "growth": "growth per layer towards the input (%)",
        "log10_half": "log10 of the distance at which gradients are half alike",
    },
    extras=extras,
    symbols=symbols,
    comment=comment,
    limits=(
        "Norms that do not vanish rule out one explanation, for these networks and this initialisation. That gradients "
        "shatter more goes together with depth and with missing shortcuts; whether it makes training bad is what the "
        "probe interventions asks."
    ),
)
