"""Trained: what the paper says of trained residual networks, looked at in finished ones, such as those of others.

Question. Do the sentences about trained networks hold at the paper's full size, which a small machine cannot train at:
that blocks add little and are near the identity, that deeper networks respond less (He et al. 2016, Fig. 7), that a
block can be missed, that the gradient comes through short paths (Veit et al. 2016) and does not vanish?

Method. Networks whose weights exist, by --network and --weights or in an experiment's file; otherwise residual ones are
trained here. Everything is measured at the last weights. Test error: all test images. Responses, ‖F(x)‖ / ‖x‖, gradient
norms and exact path shares: `inputs` training images, `statistics` of normalisation. The linear map that fits each
block best, and its distance from the identity and from zero: `fitted` training images, eval mode. Lesions, as in the
probe lesions: each block removed, `draws` random sets of `counts` blocks, and as many exchanges, on `images` test
images, with the running statistics of training and with those re-estimated on `reestimated` training images, augmented
as in training. The loss around the weights, as in the probe landscape: `surface` training images.

Primary outcome. ‖F(x)‖ / ‖x‖, mean over blocks (log10), against 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import pandas as pd
from pydantic import Field

from resx.claims import Claim, contrast
from resx.probes import Frames, Measure, Probe, Request, Settings
from resx.probes.gradients import PROBE as GRADIENTS
from resx.probes.paths import PROBE as PATHS
from resx.probes.responses import PROBE as RESPONSES
from resx.probes.responses import refuses
from resx.probes.tidy import Statistics
from resx.spec import RunSpec

if TYPE_CHECKING:
    import torch

    from resx.data import Dataset
    from resx.store.run import RunFolder


class TrainedSettings(Settings):
    """inputs: training images for responses, gradients and paths. statistics: what normalisations use there. samples:
    paths drawn per length for the estimate of Veit et al. fitted: training images for linear maps. counts: blocks
    removed or exchanged at a time. draws: random sets of each count. images: test images of lesions. reestimated:
    training images for statistics after a lesion. surface: training images of the landscape. points: places along its
    line. grid: places along a side of its plane, up to one filter norm away.
    """

    inputs: int = Field(100, ge=2)
    statistics: Statistics = "running"
    samples: int = Field(4, ge=1)
    fitted: int = Field(1000, ge=1)
    counts: tuple[Annotated[int, Field(ge=1)], ...] = (2, 4, 8, 16)
    draws: int = Field(3, ge=1)
    images: int = Field(1000, ge=1)
    reestimated: int = Field(500, ge=2)
    surface: int = Field(200, ge=1)
    points: int = Field(11, ge=3)
    grid: int = Field(7, ge=3)


def plan(request: Request) -> list[RunSpec]:
    """Return residual networks at depths 20, 32 and 56, for a request that names no networks of others."""
    return request.runs(depth=[20, 32, 56], shortcut=["identity"])


def measure_linear(run: RunFolder, dataset: Dataset, settings: TrainedSettings, device: torch.device) -> pd.DataFrame:
    """Fit a linear map to each block of a run's last weights, in eval mode."""
    from resx.measurements.inputs import network_at, statistics_inputs
    from resx.measurements.linear import linear_maps
    from resx.training.evaluate import EVAL_BATCH

    network = network_at(run, dataset, device, max(run.snapshots()), EVAL_BATCH, statistics="running")
    return linear_maps(network, statistics_inputs(run, dataset, device, settings.fitted))


def measure_lesions(run: RunFolder, dataset: Dataset, settings: TrainedSettings, device: torch.device) -> pd.DataFrame:
    """Apply lesions to a run's last weights; adds `moves`, whether a removed block keeps the shape of what enters."""
    from resx.data.batches import Batches
    from resx.measurements.inputs import network_at, statistics_inputs
    from resx.measurements.lesions import lesions, movable
    from resx.training.evaluate import EVAL_BATCH

    network = network_at(run, dataset, device, max(run.snapshots()), EVAL_BATCH, statistics="running")
    batches = Batches(dataset, run.spec.data, EVAL_BATCH, run.spec.seed, device)
    test = list(batches.evaluation("test", settings.images, EVAL_BATCH))
    again = statistics_inputs(run, dataset, device, settings.reestimated, "augmented")
    table = lesions(network, test, again, dataset.task, counts=settings.counts, draws=settings.draws, pairs=0)
    return table.assign(moves=table["blocks"].isin([block.name for block in movable(network)]))


def measure_landscape(
    run: RunFolder, dataset: Dataset, settings: TrainedSettings, device: torch.device
) -> pd.DataFrame:
    """Measure the loss around a run's last weights."""
    from resx.measurements.inputs import network_at, sample
    from resx.measurements.landscape import landscape
    from resx.training.evaluate import EVAL_BATCH

    x, y = sample(run, dataset, device, settings.surface)
    network = network_at(run, dataset, device, max(run.snapshots()), EVAL_BATCH)
    batches = list(zip(x.split(EVAL_BATCH), y.split(EVAL_BATCH), strict=True))
    return landscape(network, batches, dataset.task, points=settings.points, grid=settings.grid, lines=1)


def tables(frames: Frames, settings: TrainedSettings) -> dict[str, pd.DataFrame]:
    """Return `outcomes`, a row a network and seed."""
    responses = RESPONSES.tables(frames, settings)["outcomes"]
    return {"outcomes": responses[responses["phase"] == "trained"]}


OVER = ("kind", "depth")
EACH = {"kind": "{kind}", "depth": "{depth}"}
CLAIMS = (
    Claim(
        key="adds-little",
        says="What blocks add is smaller than their input, in each of these networks",
        expected=-1,
        first=contrast("log10_ratio", EACH, over=OVER),
    ),
)

PROBE = Probe(
    adopts=True,
    plan=plan,
    tables=tables,
    claims=CLAIMS,
    labels=dict(RESPONSES.labels),
    settings=TrainedSettings,
    measures={
        "responses": RESPONSES.measures["responses"],
        "gradients": GRADIENTS.measures["gradients"],
        "linear": Measure(measure_linear, refuses, keys=("fitted",)),
        "paths": PATHS.measures["paths"],
        "lesions": Measure(measure_lesions, refuses, keys=("counts", "draws", "images", "reestimated")),
        "landscape": Measure(measure_landscape, refuses, keys=("surface", "points", "grid")),
    },
)
