"""Lesions: is a residual network an ensemble of many shallow ones (Veit et al. 2016)?

Question. A residual network of n blocks is a sum over 2^n paths. Veit et al. conclude that it behaves like an ensemble
of relatively shallow networks: removing a block hardly matters, while removing a layer from a plain network is fatal.

Method. From trained networks (plain and residual at `shallow` layers, residual at `deep`) blocks are removed, leaving
`activation(adapter(x))`: each one, random sets of `counts`, and `pairs` of two; and blocks of one stage exchange
places. A plain network passes x on, so only blocks that keep shapes can go; random lesions take these only, the same in
both kinds of network. Deep plain networks are left out: near chance level they say nothing. Every lesion is measured
with the running statistics of training and with statistics re-estimated after it on `reestimated` training images. Test
error and loss, on `images` test images.

Controls. `ensembles`: independent shallow networks trained for as many steps, which together cost as much as the deep
one, class probabilities averaged; with 3x20, seed s is given the networks of seeds s, 1000(s+1)+1 and 1000(s+1)+2. The
deep network is said to be like these. `active`: the deep network trained with this many random blocks active at each
step, so that no path is longer, tested with all its blocks and re-estimated statistics (those of training belong to
subsets and leave the whole network at chance level).

Primary outcome. The rise of the test error (points) when one block is removed, mean over blocks that keep shapes: plain
minus residual at `shallow` layers, running statistics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field, StringConstraints

from resx.claims import Cell, Claim, Contrast, Within, contrast
from resx.probes import Frames, Measure, Probe, Request, Settings, Tables
from resx.probes.tidy import arm, join, without_blocks
from resx.spec import ADOPTED, RunSpec, SpecError
from resx.store.files import StoreError

if TYPE_CHECKING:
    from resx.measurements.inputs import Specimen

MEMBER_SEEDS = 1000  # an ensemble's members have seeds from 1000·(seed + 1) on, which no probe uses otherwise
NETWORK = ("kind", "depth", "statistics", "seed")
FULL = "all blocks"  # the deep network as it was trained, among the controls
RUNNING, ESTIMATED = {"statistics": "running"}, {"statistics": "re-estimated"}
Ensemble = Annotated[str, StringConstraints(pattern=r"^([2-9]|[1-9]\d+)x[1-9]\d*$")]
Count = Annotated[int, Field(ge=1)]


class LesionsSettings(Settings):
    """shallow, deep: layers. counts: blocks removed or exchanged at a time. draws: random sets of each count. pairs: of
    blocks removed together. images: test images. reestimated: training images that statistics are re-estimated on;
    statistics: whether as they are (batch) or cropped and flipped as in training (augmented). ensembles: members x
    layers. active: blocks that train at each step. margin: of equivalence in test error (points). interaction:
    share of the summed damage within which two removals add up.
    """

    shallow: int = Field(20, ge=1)
    deep: int = Field(56, ge=1)
    counts: tuple[Count, ...] = (1, 2, 4, 8)
    draws: int = Field(4, ge=1)
    pairs: int = Field(40, ge=1)
    images: int = Field(1000, ge=1)
    reestimated: int = Field(250, ge=2)
    statistics: Literal["batch", "augmented"] = "batch"
    ensembles: tuple[Ensemble, ...] = ("3x20", "10x8")
    active: tuple[Count, ...] = (4, 12, 20)
    margin: float = Field(1.0, gt=0)
    interaction: float = Field(0.25, gt=0)


def ensemble_sizes(settings: LesionsSettings) -> list[tuple[int, int]]:
    """Return (members, depth) of each ensemble."""
    return [(int(count), int(depth)) for count, depth in (text.split("x") for text in settings.ensembles)]


def members(spec: RunSpec, count: int, depth: int) -> list[RunSpec]:
    """Return the networks of an ensemble to compare with a deep network: the same in all but depth, and other seeds."""
    from resx.model import complete

    network = complete(spec.model.model_copy(update={"depth": depth}))
    seeds = [spec.seed, *(MEMBER_SEEDS * (spec.seed + 1) + k for k in range(1, count))]
    return [spec.model_copy(update={"model": network, "seed": seed}) for seed in seeds]


def plan(request: Request) -> list[RunSpec]:
    """Return plain and residual networks at the shallow depth, residual ones at the deep one, and the controls' runs.

    Raises SpecError for depths that the family does not have, and for a depth that is not given as a setting.
    """
    from resx.model import FAMILIES

    settings = request.settings
    if "depth" in request.base or "depth" in request.grid:
        raise SpecError("lesions: choose its two depths with --set shallow=20 and --set deep=56")
    kind = request.base.get("shortcut", "identity")
    cells: list[dict[str, Any]] = [
        {"depth": settings.shallow, "shortcut": "none"},
        {"depth": settings.shallow, "shortcut": kind},
        {"depth": settings.deep, "shortcut": kind},
        *({"depth": settings.deep, "shortcut": kind, "active_blocks": count} for count in settings.active),
    ]
    specs = request.resolve([{**request.base, **cell, "seed": seed} for cell in cells for seed in request.seeds])
    for spec in [spec for spec in specs if is_deep(spec, settings)]:
        for count, depth in ensemble_sizes(settings):
            errors = FAMILIES[spec.model.family].check(spec.model.model_copy(update={"depth": depth}))
            if errors:
                raise SpecError([f"setting 'ensembles': {line}" for line in errors])
            specs += members(spec, count, depth)
    return specs


def is_deep(spec: RunSpec, settings: LesionsSettings) -> bool:
    """Return whether a run is the deep network that the controls are compared with."""
    return (
        not spec.foreign
        and is_lesioned(spec, settings)
        and spec.model.shortcut != "none"
        and spec.model.depth == settings.deep
    )


def is_lesioned(spec: RunSpec, settings: LesionsSettings) -> bool:
    """Return whether a run is one of the compared networks, not a control."""
    if spec.foreign:
        return True
    own = spec.seed < MEMBER_SEEDS and spec.train.active_blocks is None
    return own and spec.model.depth in (settings.shallow, settings.deep)


def refuses(spec: RunSpec) -> str | None:
    """Say why a network has nothing to delete, or return None: it has no blocks, or too few that keep shapes."""
    from resx.measurements.lesions import too_small
    from resx.model import Network
    from resx.model.construction import skeleton

    reason = without_blocks(spec)
    if reason or spec.model.family == ADOPTED:
        return reason
    network = skeleton(spec.model, (3, 32, 32), 10)
    assert isinstance(network, Network)
    return too_small(network.blocks)


def measure_lesions(specimen: Specimen, settings: LesionsSettings) -> pd.DataFrame:
    """Apply the lesions to a run's last weights, in eval mode."""
    from resx.measurements.lesions import lesions
    from resx.training.evaluate import EVAL_BATCH

    network, test = specimen.network(EVAL_BATCH).eval(), specimen.test_batches(settings.images)
    statistics = specimen.statistics_inputs(settings.reestimated, settings.statistics)
    sizes = {"draws": settings.draws, "pairs": settings.pairs}
    return lesions(network, test, statistics, specimen.dataset.task, counts=settings.counts, **sizes)


def measure_short_paths(specimen: Specimen, settings: LesionsSettings) -> pd.DataFrame:
    """Test a network that was trained with subsets of its blocks, in eval mode."""
    from resx.measurements.lesions import short_paths
    from resx.model import Network
    from resx.training.evaluate import EVAL_BATCH

    network, test = specimen.network(EVAL_BATCH).eval(), specimen.test_batches(settings.images)
    statistics = specimen.statistics_inputs(settings.reestimated, settings.statistics)
    active = specimen.run.spec.train.active_blocks
    assert active is not None and isinstance(network, Network)
    return short_paths(network, active, test, statistics, specimen.dataset.task, settings.draws)


def measure_ensembles(specimen: Specimen, settings: LesionsSettings) -> pd.DataFrame:
    """Compare a deep network with its ensembles on all test images, from recorded predictions.

    Returns rows (ensemble, members, loss, error, member_error, cost): cost is the multiply-adds of all members over
    those of the deep network. An ensemble that lost a member to divergence has no error. Raises StoreError where a
    member is not finished.
    """
    from resx.measurements.lesions import ensemble
    from resx.store.run import read_run

    rows = []
    run, own = specimen.run, specimen.run.result or {}
    for count, depth in ensemble_sizes(settings):
        logits, errors, cost, labels = [], [], 0.0, None
        for spec in members(run.spec, count, depth):
            member = read_run(run.path.parent / spec.run_id)
            result = member.result
            if result is None:
                raise StoreError(f"{spec.run_id}: is not finished; the same command goes on with it")
            cost += result["multiply_adds"] / own["multiply_adds"]
            if result["status"] == "finished":
                errors.append(result["test_error"])
                one, labels = member.load_predictions()
                logits.append(one)
        loss, error = ensemble(logits, labels) if labels is not None and len(logits) == count else (np.nan, np.nan)
        member_error = float(np.mean(errors)) if errors else np.nan
        rows.append([f"{count} × {depth}", count, loss, error, member_error, cost])
    return pd.DataFrame(rows, columns=["ensemble", "members", "loss", "error", "member_error", "cost"])


def tables(frames: Frames, settings: LesionsSettings) -> dict[str, pd.DataFrame]:
    """Return the damage of lesions and of pairs by seed, the controls' test errors, and the means of all."""
    runs = frames["runs"]
    rows = join(frames["lesions"], runs)
    rows = rows[rows["status"] == "finished"]
    pairs, errors = _pairs(rows), _control_errors(frames, settings)
    together = pairs[(pairs["kind"] != "plain") & (pairs["depth"] == settings.deep)]
    together = together.assign(together=(together["both"] - together["sum"]) / together["sum"])  # as a share of the sum
    columns = ["run_id", "network", *NETWORK, "lesion", "blocks", "count", "error"]
    return {
        "lesions": lesion_table(rows),
        "pairs": pairs.groupby(["statistics", "network"], sort=False)[["sum", "both"]].mean().reset_index(),
        "controls": _control_table(frames, errors),
        "damage": _damage(rows),
        "together": together[["statistics", "seed", "together"]],
        "errors": errors,
        "test_images": runs[["test_images"]].drop_duplicates(),
        "points": rows[columns],
    }


def _damage(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the mean rise of the error with one shape-keeping block removed, a row a network and seed.

    Blocks that keep shapes are those that random lesions took.
    """
    key = list(NETWORK)
    removals = rows.loc[rows["lesion"].isin(["random", "pair"]), "blocks"].dropna()
    movable = {name for text in removals for name in str(text).split("+")}
    intact = rows[rows["lesion"] == "none"].set_index(key)["error"]
    single = rows[(rows["lesion"] == "remove") & rows["blocks"].isin(movable)]
    return (single.groupby(key)["error"].mean() - intact).rename("rise").reset_index()


def _pairs(rows: pd.DataFrame) -> pd.DataFrame:
    """Return a row per network and seed: mean rises of the loss for pairs, both removed, and the single ones added."""
    from resx.measurements.lesions import interactions

    parts = []
    columns = ["network", "kind", "depth", "seed"]
    for _, group in rows.groupby(columns, sort=False):
        sums = interactions(group).groupby("statistics", sort=False)[["sum", "both"]].mean().reset_index()
        parts.append(sums.merge(group[columns].head(1), how="cross"))
    table = pd.concat(parts, ignore_index=True)
    return table[table["sum"] > 0]


def _control_errors(frames: Frames, settings: LesionsSettings) -> pd.DataFrame:
    """Return the test error by control and seed: the deep network, ensembles, networks trained with k active blocks."""
    runs = frames["runs"]
    full = runs[runs["active_blocks"].isna() & (runs["depth"] == settings.deep) & (runs["status"] == "finished")]
    full = full[(full["shortcut"] != "none") & (full["seed"] < MEMBER_SEEDS)]
    parts = [full.assign(control=FULL, control_error=full["test_error"])]
    if "ensembles" in frames:
        rows = frames["ensembles"].merge(runs[["run_id", "seed"]], on="run_id")
        parts.append(rows.assign(control="ensemble " + rows["ensemble"], control_error=rows["error"]))
    if "short_paths" in frames:
        rows = frames["short_paths"].merge(runs[["run_id", "seed", "active_blocks", "status"]], on="run_id")
        rows = rows.astype({"active_blocks": int}).sort_values("active_blocks", kind="stable")
        rows = rows[(rows["blocks"] == "all") & (rows["statistics"] == "re-estimated") & (rows["status"] == "finished")]
        parts.append(rows.assign(control=rows["active_blocks"].astype(str) + " active", control_error=rows["error"]))
    return pd.concat([part[["control", "seed", "control_error"]] for part in parts], ignore_index=True)


def lesion_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the mean test error over lesions and seeds: a row per statistics and lesion, a column per network."""
    words = {"none": "intact", "remove": "each removed", "random": "{} at random", "permute": "{} exchanges"}
    rows = rows[rows["lesion"].isin(words)]
    count = rows["count"].fillna(0).astype(int)
    rank = rows["lesion"].map({lesion: place for place, lesion in enumerate(words)})
    label = [words[lesion].format(number) for lesion, number in zip(rows["lesion"], count, strict=True)]
    ranked = rows.assign(lesion=label, count=count, rank=rank)
    table = ranked.pivot_table(index=["statistics", "rank", "count", "lesion"], columns="network", values="error")
    table = table.sort_index(level=["statistics", "rank", "count"], ascending=[False, True, True])
    return table.rename_axis(columns=None).reset_index().drop(columns=["rank", "count"])


def _control_table(frames: Frames, errors: pd.DataFrame) -> pd.DataFrame:
    """Return the mean test error of each control, with its cost relative to the deep network."""
    means = errors.groupby("control", sort=False).agg(test_error=("control_error", "mean"), seeds=("seed", "nunique"))
    if "ensembles" in frames:
        rows = frames["ensembles"].assign(control="ensemble " + frames["ensembles"]["ensemble"])
        means = means.join(rows.groupby("control")[["cost", "member_error"]].mean())
    return means.reset_index()


def symbols(tables: Tables, settings: LesionsSettings) -> dict[str, Any]:
    """Return the kind that is compared with plain networks, and the controls that were measured."""
    controls = [str(name) for name in tables["errors"]["control"].unique()]
    return {
        "residual": arm(tables["damage"]),
        "ensemble_controls": tuple(name for name in controls if name.startswith("ensemble")),
        "active_controls": tuple(name for name in controls if name.endswith("active")),
        "test_images": tables["test_images"]["test_images"].max(),
    }


def _rise(kind: str, depth: str, statistics: Cell) -> Contrast:
    """Return how much more an error rises than that of the shallow residual network."""
    shallow = {"kind": "{residual}", "depth": "{shallow}"}
    return contrast("rise", {"kind": kind, "depth": depth, **statistics}, {**shallow, **statistics})


def _against_full(controls: str) -> Contrast:
    where = {"control": controls}
    return contrast("control_error", {"control": "{control}"}, {"control": FULL}, over=("control",), where=where)


CLAIMS = (
    Claim(
        key="removal-hurts-plain-more",
        says="Removing a block hurts a plain network more than a {residual} one ({shallow} layers)",
        expected=+1,
        first=_rise("plain", "{shallow}", RUNNING),
    ),
    Claim(
        key="removal-hurts-plain-more-re-estimated",
        says="It still does when the statistics of batch normalisation are estimated anew after the removal",
        expected=+1,
        first=_rise("plain", "{shallow}", ESTIMATED),
    ),
    Claim(
        key="removal-hurts-deeper-less",
        says="Removing a block hurts a deeper {residual} network less",
        expected=-1,
        first=_rise("{residual}", "{deep}", RUNNING),
    ),
    Claim(
        key="removals-add-up",
        says="In a deep {residual} network ({deep} layers) two removals add up, as in an ensemble",
        expected=0,
        first=contrast("together", RUNNING),
        beside=(contrast("together", ESTIMATED),),
        rule=Within("{interaction}"),
    ),
    Claim(
        key="ensemble-equals-deep",
        says="An ensemble of shallow networks at equal compute is as good as one {residual}-{deep} ({control})",
        expected=0,
        first=_against_full("{ensemble_controls}"),
        rule=Within("{margin}", errors=True),
        each=True,
    ),
    Claim(
        key="short-paths-suffice",
        says="Long paths are not needed in training: so many blocks at each step are enough ({control})",
        expected=0,
        first=_against_full("{active_controls}"),
        rule=Within("{margin}", errors=True),
        each=True,
    ),
)

PROBE = Probe(
    adopts=True,
    plan=plan,
    tables=tables,
    claims=CLAIMS,
    settings=LesionsSettings,
    figures=("lesions",),
    shown=("lesions", "pairs", "controls"),
    drawn=("points",),
    measures={
        "lesions": Measure(
            measure_lesions,
            refuses,
            keys=("counts", "draws", "pairs", "images", "reestimated", "statistics"),
            wants=is_lesioned,
        ),
        "ensembles": Measure(measure_ensembles, keys=("ensembles",), wants=is_deep),
        "short_paths": Measure(
            measure_short_paths,
            without_blocks,
            keys=("draws", "images", "reestimated", "statistics"),
            wants=lambda spec, settings: spec.train.active_blocks is not None,
        ),
    },
    labels={
        "rise": "rise of the test error with one block removed (points)",
        "together": "two blocks removed, (both − sum) / sum of the rises in loss",
        "control_error": "test error (%)",
    },
    symbols=symbols,
    limits=(
        "Robustness to lesions shows that blocks do not depend on each other's presence in detail; so would a network "
        "whose blocks each refine one estimate a little, which is no ensemble. Only the controls compare the network "
        "with actual ensembles of shallow ones, and with training that has no long paths. Removing a block after "
        "training says nothing about why training succeeds."
    ),
    chooses=("depth",),
)
