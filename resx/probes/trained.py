"""Trained: what the paper says of trained residual networks, looked at in finished ones, such as those of others.

Question. Do the sentences about trained networks hold at the paper's full size, which a small machine cannot train at:
that blocks add little and are near the identity, that deeper networks respond less (He et al. 2016, Fig. 7), that a
block can be removed, that the gradient comes through short paths (Veit et al. 2016) and does not vanish?

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

import numpy as np
import pandas as pd
from pydantic import Field

from resx import paper
from resx.claims import Claim, OneOfEach, Sign, contrast
from resx.probes import Frames, Measure, Probe, Request, Settings, tidy
from resx.probes.gradients import PROBE as GRADIENTS
from resx.probes.landscape import PROBE as LANDSCAPE
from resx.probes.landscape import measure_around
from resx.probes.lesions import lesion_table
from resx.probes.paths import PROBE as PATHS
from resx.probes.responses import PROBE as RESPONSES
from resx.probes.tidy import Statistics, join, phases, without_blocks
from resx.spec import RunSpec

if TYPE_CHECKING:
    from resx.measurements.inputs import Specimen

NETWORK = ("kind", "depth", "seed")
OVER = ("kind", "depth")
EACH = {"kind": "{kind}", "depth": "{depth}"}
# what is known of a network, in the order of its table
WORDS = {
    "test_error": "test error (%)",
    "published": "published test error (%)",
    "std": "mean response over layers",
    "ratio": "‖F(x)‖/‖x‖, mean over blocks",
    "cosine": "cosine of F(x) and x",
    "from_identity": "fitted map: distance from the identity",
    "from_zero": "fitted map: distance from zero",
    "linear": "share of y that the fitted map explains",
    "identity": "share of y that x explains",
    "n": "blocks",
    "half": "half of the gradient comes through paths of at most so many blocks",
    "middle": "half/n",
    "cancellation": "cancellation between paths",
    "growth": "growth of the gradient per layer towards the input (%)",
    "rise": "rise of the test error with one block removed (points)",
    "rise_again": "the same with re-estimated statistics",
    "more": "how much more it is for blocks that change shapes (points)",
    "more_again": "the same again, re-estimated",
    "not_convex": "loss around the weights: not convex (% of the plane)",
    "steepness": "log10 rise of the loss at half a filter norm",
}
CHANGES = {name: WORDS[name] for name in ("test_error", "std", "ratio", "rise", "rise_again")}


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


def measure_linear(specimen: Specimen, settings: TrainedSettings) -> pd.DataFrame:
    """Fit a linear map to each block of a run's last weights, in eval mode."""
    from resx.measurements.linear import linear_maps
    from resx.training.evaluate import EVAL_BATCH

    network = specimen.network(EVAL_BATCH, statistics="running")
    return linear_maps(network, specimen.statistics_inputs(settings.fitted))


def measure_lesions(specimen: Specimen, settings: TrainedSettings) -> pd.DataFrame:
    """Apply lesions to a run's last weights; adds `moves`, whether a removed block keeps the shape of what enters."""
    from resx.measurements.lesions import lesions, movable
    from resx.training.evaluate import EVAL_BATCH

    network = specimen.network(EVAL_BATCH, statistics="running")
    test = specimen.test_batches(settings.images)
    again = specimen.statistics_inputs(settings.reestimated, "augmented")
    sizes = {"draws": settings.draws, "pairs": 0}
    table = lesions(network, test, again, specimen.dataset.task, counts=settings.counts, **sizes)
    return table.assign(moves=table["blocks"].isin([block.name for block in movable(network)]))


def measure_landscape(specimen: Specimen, settings: TrainedSettings) -> pd.DataFrame:
    """Measure the loss around a run's last weights."""
    return measure_around(specimen, settings.surface, points=settings.points, grid=settings.grid, lines=1)


def tables(frames: Frames, settings: TrainedSettings) -> dict[str, pd.DataFrame]:
    """Return `outcomes`, a row a network and seed; what figures draw; and two tables to read: networks and lesions."""
    responses, paths = RESPONSES.tables(frames, settings), PATHS.tables(frames, settings)
    lesions = join(frames["lesions"], frames["runs"])
    gradients = _trained(phases(join(frames["gradients"], frames["runs"])))
    linear = join(frames["linear"], frames["runs"])
    surface = LANDSCAPE.tables(frames, settings)["outcomes"]
    surface = surface[surface["statistics"] == "batch"].rename(columns={"rise": "steepness"})
    parts = [
        _trained(responses["outcomes"])[[*NETWORK, "std", "ratio", "log10_ratio", "cosine"]],
        _maps(linear),
        _trained(paths["outcomes"])[[*NETWORK, "n", "half", "middle", "cancellation"]],
        _growth(gradients),
        _rises(lesions),
        surface[[*NETWORK, "not_convex", "steepness"]],
    ]
    outcomes = tidy.outcomes(frames["runs"])
    public = outcomes["foreign"].map(lambda foreign: paper.PUBLIC_NETWORKS.get(str(foreign)))
    outcomes = outcomes.assign(published=[one.value if one else np.nan for one in public])
    outcomes = outcomes[[*NETWORK, "test_error", "published"]].sort_values(list(NETWORK))
    for part in parts:
        outcomes = outcomes.merge(part, on=list(NETWORK))
    before = outcomes.groupby(["kind", "seed"])[list(CHANGES)]
    outcomes = outcomes.assign(**before.diff().add_suffix("_change"))
    return {
        "outcomes": outcomes,
        "networks": _words(outcomes),
        "lesions": lesion_table(lesions),
        "means": paths["means"],
        "layers": responses["layers"],
        "lines": _lines(lesions, linear, _trained(paths["shares"]), gradients),
    }


def _trained(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["phase"] == "trained"]


def _maps(rows: pd.DataFrame) -> pd.DataFrame:
    """Return, a row a network, means over blocks of how far the fitted map is from the identity and from zero."""
    means = rows.pivot_table(index=list(NETWORK), columns="quantity", values="value").reset_index()
    means = means.rename(columns=lambda name: str(name).replace(" ", "_")).rename_axis(columns=None)
    return means.assign(nearer=means["from_identity"] - means["from_zero"])


def _growth(rows: pd.DataFrame) -> pd.DataFrame:
    """Return, a row a network, the growth of the gradient's norm per layer towards the input (%)."""
    from resx.measurements.gradients import growth

    norms = rows[rows["quantity"] == "activation"]
    values = [[*key, 100 * (growth(group)[0] - 1)] for key, group in norms.groupby(list(NETWORK))]
    return pd.DataFrame(values, columns=[*NETWORK, "growth"])


def _rises(rows: pd.DataFrame) -> pd.DataFrame:
    """Return, a row a network, the mean rise of the test error with one block removed: of those that keep shapes, and
    by how much more it is of those that change them; _again with re-estimated statistics."""
    key = [*NETWORK, "statistics"]
    intact = rows[rows["lesion"] == "none"].set_index(key)["error"]
    single = rows[rows["lesion"] == "remove"]
    means = single.groupby([*key, "moves"])["error"].mean().unstack("moves").reindex(columns=[False, True])
    rises = pd.DataFrame({"rise": means[True] - intact, "more": means[False] - means[True]})
    running, again = (rises.xs(kind, level="statistics") for kind in ("running", "re-estimated"))
    return running.join(again.add_suffix("_again")).reset_index()


def _words(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Return a row a quantity, in words, and a column a network: means over seeds."""
    means = outcomes.groupby(["kind", "depth"], sort=False)[list(WORDS)].mean()
    means.index = pd.Index([f"{kind}-{depth}" for kind, depth in means.index])
    return means.rename(columns=WORDS).T.rename_axis("quantity").reset_index()


def _lines(lesions: pd.DataFrame, linear: pd.DataFrame, shares: pd.DataFrame, gradients: pd.DataFrame) -> pd.DataFrame:
    """Return what the figure draws: rows (panel, line, kind, depth, seed, x, value).

    Blocks and layers stand at 0 to 1 of a network's length, path lengths at 0 to 1 of its blocks.
    """
    single = lesions[lesions["lesion"] == "remove"]
    order = linear.drop_duplicates([*NETWORK, "name"])[[*NETWORK, "name", "layer"]]
    single = single.merge(order, left_on=[*NETWORK, "blocks"], right_on=[*NETWORK, "name"])
    several = lesions[lesions["lesion"].isin(["random", "permute"])]
    norms = gradients[gradients["quantity"] == "activation"]
    last = norms.groupby(list(NETWORK))["layer"].transform("max")
    ends = norms[norms["layer"] == last].set_index(list(NETWORK))["value"]
    parts = [
        single.assign(panel="remove", line=single["statistics"], x=_place(single, "layer"), value=single["error"]),
        several.assign(panel=several["lesion"], line=several["statistics"], x=several["count"], value=several["error"]),
        linear[linear["quantity"].str.startswith("from")].assign(
            panel="linear", line=lambda rows: rows["quantity"], x=lambda rows: _place(rows, "layer")
        ),
        shares.assign(panel="paths", line="exact", x=_place(shares, "length"), value=shares["share"]),
        shares.assign(panel="paths", line="all paths", x=_place(shares, "length"), value=shares["binomial"]),
        norms.assign(
            panel="gradients",
            line="norm",
            x=_place(norms, "layer"),
            value=norms["value"] / ends.loc[list(norms[list(NETWORK)].itertuples(index=False, name=None))].to_numpy(),
        ),
    ]
    columns = ["panel", "line", *NETWORK, "x", "value"]
    return pd.concat([part[columns] for part in parts], ignore_index=True)


def _place(rows: pd.DataFrame, column: str) -> pd.Series:
    by = [rows[name] for name in NETWORK]
    low, high = (rows[column].groupby(by).transform(end) for end in ("min", "max"))
    return (rows[column] - low) / (high - low).clip(lower=1)


def _each(key: str, says: str, quantity: str, expected: Sign, *beside: str, minus: float | None = None) -> Claim:
    """Return a claim on a quantity of every network."""
    effects = [
        contrast(name, EACH, value, over=OVER) for name, value in ((quantity, minus), *((b, None) for b in beside))
    ]
    return Claim(key, says, expected, effects[0], tuple(effects[1:]), rule=OneOfEach())


CLAIMS = (
    _each("adds-little", "What blocks add is smaller than their input", "log10_ratio", -1),
    _each("nearer-identity", "The map that fits a block best is nearer the identity than zero", "nearer", -1),
    _each("deeper-responds-less", "Deeper networks respond less (Fig. 7)", "std_change", -1, "ratio_change"),
    _each("deeper-is-better", "Deeper networks have the lower test error", "test_error_change", -1),
    _each("gradient-arrives", "The gradient does not vanish on its way to the first layers", "growth", +1),
    _each("short-paths", "The gradient comes through paths shorter than the middle of all", "middle", -1, minus=0.5),
    _each(
        "removal-hurts-deeper-less",
        "Removing a block hurts a deeper network less",
        "rise_change",
        -1,
        "rise_again_change",
    ),
    _each(
        "shape-changes-matter",
        "Removing a block that changes shapes hurts more than removing another",
        "more",
        +1,
        "more_again",
    ),
)

PROBE = Probe(
    adopts=True,
    plan=plan,
    tables=tables,
    claims=CLAIMS,
    settings=TrainedSettings,
    figures=("trained", "responses"),
    shown=("networks", "lesions"),
    drawn=("layers", "lines"),
    labels={
        **WORDS,
        **{f"{name}_change": f"{words}: change from the next shallower network" for name, words in CHANGES.items()},
        "log10_ratio": RESPONSES.labels["log10_ratio"],
        "nearer": "fitted map: distance from the identity − from zero",
    },
    comment=PATHS.comment,
    limits=(
        "One network of a depth shows what that network does; what differs between depths may differ between two "
        "trainings of one depth as well. There are no plain networks of this size here to compare with. Lesions and "
        "loss surfaces are measured on subsets of the images."
    ),
    measures={
        "responses": RESPONSES.measures["responses"],
        "gradients": GRADIENTS.measures["gradients"],
        "linear": Measure(measure_linear, without_blocks, keys=("fitted",)),
        "paths": PATHS.measures["paths"],
        "lesions": Measure(measure_lesions, without_blocks, keys=("counts", "draws", "images", "reestimated")),
        "landscape": Measure(measure_landscape, without_blocks, keys=("surface", "points", "grid")),
    },
)
