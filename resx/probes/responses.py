"""Responses: do residual branches respond less than plain layers, and is that learned (He et al. 2016, Fig. 7)?

Question. The paper argues that residual functions are generally closer to zero than non-residual ones, since the
responses of a ResNet's layers are smaller than a plain network's and get smaller with depth. Responses are the outputs
of the 3×3 layers after batch normalisation, before the ReLU or the addition. If they are small at initialisation
already, that is not learned.

Method. The weights at initialisation and after training, batch statistics on the same `inputs` training images. Per
layer the standard deviation of the response over images, channels and positions; per residual block the size of what it
adds, ‖F(x)‖ / ‖x‖, and the cosine between F(x) and x. Batch normalisation with gain 1 and bias 0 gives every response a
standard deviation of exactly 1, in both kinds of network: at initialisation Fig. 7 is flat by construction, so what it
shows after training is learned. Nothing makes ‖F(x)‖ / ‖x‖ equal in this way.

Primary outcome. The mean response over layers after training, residual minus plain, at the greatest depth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pydantic import Field

from resx.claims import DEEP, SHALLOW, Claim, contrast, plain, residual
from resx.probes import Findings, Frames, Measure, Probe, Request, Settings
from resx.probes.tidy import INITIAL, TRAINED, Statistics, join, phases, summary, without_blocks
from resx.spec import RunSpec

if TYPE_CHECKING:
    from resx.measurements.inputs import Specimen

NETWORKS = ("kind", "depth", "phase")


class ResponsesSettings(Settings):
    """inputs: how many training images are looked at. statistics: what normalisations use."""

    inputs: int = Field(64, ge=2)
    statistics: Statistics = "batch"


def plan(request: Request) -> list[RunSpec]:
    """Return plain and residual networks at depths 20 and 56."""
    return request.runs(depth=[20, 56], shortcut=["none", "identity"])


def measure(specimen: Specimen, settings: ResponsesSettings) -> pd.DataFrame:
    """Measure responses of a run's first and last weights; adds `step`."""
    from resx.measurements.responses import responses

    steps = specimen.first_and_last()
    return specimen.followed(lambda net, x, y: responses(net, x), steps, settings.inputs, settings.statistics)


def tables(frames: Frames, settings: ResponsesSettings) -> dict[str, pd.DataFrame]:
    """Return `outcomes`, a row a network, phase and seed, its `means`, and `layers`, a row a layer or block."""
    rows = phases(join(frames["responses"], frames["runs"]))
    means = rows.groupby([*NETWORKS, "seed", "quantity"], sort=False)["value"].mean()
    table = means.unstack("quantity").reindex(columns=["std", "ratio", "cosine"]).reset_index()
    table = table.rename_axis(columns=None).assign(log10_ratio=np.log10(table["ratio"]))
    layers = rows[[*NETWORKS, "seed", "quantity", "layer", "value"]]
    return {"means": summary(table, NETWORKS, ("std", "ratio", "cosine")), "outcomes": table, "layers": layers}


def comment(findings: Findings) -> list[str]:
    """Return the mean responses of each network before and after training."""
    lines = []
    for (kind, depth), group in findings.tables["means"].groupby(["kind", "depth"], sort=False):
        by_phase = group.set_index("phase")
        if {"initial", "trained"} <= set(by_phase.index):
            start, end = by_phase.loc["initial"], by_phase.loc["trained"]
            text = (
                f"{kind}-{depth}: mean response {start['std']:.2f} at initialisation, {end['std']:.2f} after training"
            )
            if np.isfinite(start["ratio"]):
                text += f"; what a block adds is {start['ratio']:.2f} and {end['ratio']:.2f} of its input"
            lines.append(f"{text}.")
    return lines


CLAIMS = (
    Claim(
        key="respond-less",
        says=f"Residual layers respond less than plain ones after training ({DEEP} layers; Fig. 7)",
        expected=-1,
        first=contrast("std", residual(DEEP, **TRAINED), plain(DEEP, **TRAINED)),
        beside=(
            contrast("std", residual(SHALLOW, **TRAINED), plain(SHALLOW, **TRAINED)),
            contrast("std", residual(DEEP, **INITIAL), plain(DEEP, **INITIAL)),
        ),
    ),
    Claim(
        key="deeper-respond-less",
        says="Layers of deeper residual networks respond less (Fig. 7)",
        expected=-1,
        first=contrast("std", residual(DEEP, **TRAINED), residual(SHALLOW, **TRAINED)),
        beside=(contrast("std", plain(DEEP, **TRAINED), plain(SHALLOW, **TRAINED)),),
    ),
    Claim(
        key="small-is-learned",
        says="That F(x) is small against x is learned",
        expected=-1,
        first=contrast("log10_ratio", residual(DEEP, **TRAINED), residual(DEEP, **INITIAL)),
        beside=(contrast("log10_ratio", residual(SHALLOW, **TRAINED), residual(SHALLOW, **INITIAL)),),
    ),
    Claim(
        key="small-from-the-start",
        says="F(x) is smaller against x in deeper networks at initialisation already (De & Smith 2020)",
        expected=-1,
        first=contrast("log10_ratio", residual(DEEP, **INITIAL), residual(SHALLOW, **INITIAL)),
    ),
)

PROBE = Probe(
    adopts=True,
    plan=plan,
    tables=tables,
    claims=CLAIMS,
    settings=ResponsesSettings,
    figures=("responses",),
    shown=("means",),
    drawn=("layers",),
    measures={"responses": Measure(measure, without_blocks, keys=("inputs", "statistics"))},
    labels={"std": "mean response over layers", "log10_ratio": "log10 ‖F(x)‖/‖x‖"},
    comment=comment,
    limits=(
        "At initialisation batch normalisation makes all responses 1, in plain and residual networks alike; this says "
        "nothing about the functions. A small response after training shows that blocks change their input little. It "
        "does not show that this is why they train well."
    ),
)
