"""Does residual learning transfer to other kinds of networks, and to other kinds of models?

Question. The depth × skip interaction of He et al. 2016 (figs. 1 and 6: plain networks get worse with depth, residual
ones do not) was found in convolutional networks on images. Is it there in other networks? And is an ensemble of trees
in which each fits what is left better than one of as many trees that all fit the same?

Method. Plain (shortcut none) and residual (identity) networks that share initial weights and batches, small and large:
a multilayer perceptron, a 1-D convolutional network, a vanilla RNN with the shortcut in depth, one with the shortcut in
time (where the sequence grows), and a Transformer encoder with and without its two shortcuts a layer. Each on a real
task (scikit-learn's digits, as images or as sequences) and on a synthetic one of long range (the temporal order of
Hochreiter & Schmidhuber 1997). Never pooled with them: gradient boosting against bagging, scikit-learn's own, with as
many trees of the same depth that see as much of the data, on the digits' ten outputs and on the diabetes data.

Primary outcome. log10 (final training loss, plain / residual), in which units cancel. Effect: the interaction, that
ratio at the greatest size minus that at the smallest, within a seed, with its 95 % interval over seeds; networks are
judged as one family by a joint sign-flip over seeds.

Residual learning transfers to a kind of network on a task if its interaction is above 0 and so is the ratio at the
greatest size: a shortcut that hurts the small network more than the large has a positive interaction, too. For trees:
the interaction is above 0 on both data sets.

Heterogeneity of the networks' interactions: range, Cochran's Q, I² and the p of Welch's analysis of variance, which
allows for few seeds; the mean is of these ten networks, not of networks at large.

Limits. One recipe for all (SGD, one learning rate), and sizes at which, in trials on one seed, the small plain network
and one of the large ones train; with each kind's own optimiser and normalisation plain networks may do better. Where
neither large network gets below the loss of guessing, the interaction only shows how the small ones differ; the table
of networks marks these. In time, sizes are different tasks: the same image in 8 or 64 steps, a longer temporal order.
Transformers are in the pre-activation order; both kinds of RNN read a shorter temporal order than the other kinds.
Unshrunk boosting overfits: the table of trees also has the test losses.

Trials. On seed 0 sizes were changed until networks trained (Transformers of 16 sublayers in the original order, an MLP
of 38 layers and longer temporal orders for RNNs had stayed at guessing), the second criterion was added when the
shortcut in time had a positive interaction only because it hurt less at the large size, and the trees' share of the
data was raised from 0.5 to 0.8 because unshrunk boosting was erratic, which raised its effect. Seed 0 is no test;
experiments/transfer-digits.toml uses other seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy
from pydantic import Field

from resx import stats
from resx.claims import Claim, contrast
from resx.probes import OF_IMAGES, Findings, Frames, Measure, Probe, Request, Settings
from resx.probes.tidy import diverged, kind_name, outcomes
from resx.spec import RunSpec, SpecError, parse_part

if TYPE_CHECKING:
    from resx.measurements.inputs import Specimen

KINDS = {
    "mlp": "MLP",
    "conv1d": "1-D convolutions",
    "rnn": "RNN, in depth",
    "rnn-time": "RNN, in time",
    "transformer": "Transformer",
}
TASKS = {"digits": "digits", "digits-sequence": "digits", "temporal-order": "long range"}
TREES = "boosting of trees"
SMALL, LARGE = {"network": "{network}", "at": "smallest"}, {"network": "{network}", "at": "greatest"}


@dataclass(frozen=True)
class Arm:
    """A kind of network on a task: data set and depth of the small and of the large one, width and order of both."""

    family: str
    width: int
    small: tuple[str, int]
    large: tuple[str, int]
    order: str | None = None


SEQUENCE, ORDER, SHORT_ORDER = "digits-sequence:steps=8", "temporal-order:steps=20", "temporal-order:steps=10"
ARMS = (
    Arm("mlp", 32, ("digits", 6), ("digits", 38)),
    Arm("mlp", 32, (ORDER, 6), (ORDER, 20)),
    Arm("conv1d", 16, (SEQUENCE, 6), (SEQUENCE, 38)),
    Arm("conv1d", 16, (ORDER, 6), (ORDER, 38)),
    Arm("rnn", 32, (SEQUENCE, 2), (SEQUENCE, 12)),
    Arm("rnn", 32, (SHORT_ORDER, 2), (SHORT_ORDER, 12)),
    Arm("rnn-time", 32, (SEQUENCE, 1), ("digits-sequence:steps=64", 1)),
    Arm("rnn-time", 32, (SHORT_ORDER, 1), ("temporal-order:steps=14", 1)),
    Arm("transformer", 32, (SEQUENCE, 2), (SEQUENCE, 12), "pre"),
    Arm("transformer", 32, (ORDER, 2), (ORDER, 12), "pre"),
)
RECIPE: dict[str, Any] = {
    "norm": None,
    "normalize": "symmetric",
    "steps": 300,
    "batch_size": 32,
    "lr": 0.02,
    "warmup": False,
    "eval_every": 150,
    "eval_images": 300,
    "subset": None,
    "image_size": None,
    "augment": None,
}
GUESSING = {
    "digits": math.log10(math.log(10)),
    "long range": math.log10(math.log(4)),
}  # log10 loss of equal probabilities
LEARNT = 0.02  # log10 below it
DIABETES_TEST = 100  # of 442 patients


class TransferSettings(Settings):
    """trees: how many. tree_depth: of each. shrinkage: of boosting; 1 fits all of what is left."""

    trees: int = Field(50, ge=2)
    tree_depth: int = Field(3, ge=1)
    shrinkage: float = Field(1.0, gt=0, le=1)


def plan(request: Request) -> list[RunSpec]:
    """Return the runs: every arm, small and large, plain and residual."""
    families = [str(family) for family in request.grid.get("family", KINDS)]
    unknown = [family for family in families if family not in KINDS]
    others = [key for key in request.grid if key != "family"]
    if unknown or others:
        raise SpecError(
            [f"[grid] family: no '{family}' here; there are {', '.join(KINDS)}" for family in unknown]
            + [f"[grid] {key}: this probe's grid is the kinds' own; give family, or fields in [run]" for key in others]
        )
    fields = []
    for arm in ARMS:
        for dataset, depth in (arm.small, arm.large) if arm.family in families else ():
            own = {"family": arm.family, "width": arm.width, "order": arm.order, "dataset": dataset, "depth": depth}
            for shortcut in ("none", "identity"):
                common = {**RECIPE, **request.base, **own, "shortcut": shortcut}
                fields += [{**common, "seed": seed} for seed in request.seeds]
    return request.resolve(fields)


def measure_trees(specimen: Specimen, settings: TransferSettings) -> pd.DataFrame:
    """Return boosting and bagging on the run's digits (ten outputs) and on the diabetes data, for the run's seed."""
    from sklearn.datasets import load_diabetes

    from resx.measurements.boosting import boosting

    tables, dataset = [], specimen.dataset
    outputs = np.eye(dataset.n_outputs)
    digits = tuple(
        (x.flatten(1).double().numpy(), outputs[y.numpy()])
        for x, y in ((dataset.train_x, dataset.train_y), (dataset.test_x, dataset.test_y))
    )
    x, y = load_diabetes(return_X_y=True)
    y = (y / y.std())[:, None]
    diabetes = (x[:-DIABETES_TEST], y[:-DIABETES_TEST]), (x[-DIABETES_TEST:], y[-DIABETES_TEST:])
    for task, (train, test) in (("digits", digits), ("diabetes", diabetes)):
        losses = boosting(train, test, **settings.model_dump(), seed=specimen.run.spec.seed)
        tables.append(losses.assign(task=task))
    return pd.concat(tables, ignore_index=True)


def has_trees(spec: RunSpec, settings: TransferSettings) -> bool:
    """Return whether the trees are measured with this run: once a seed, with the small plain MLP on digits."""
    model = spec.model
    return (model.family, spec.data.dataset, model.depth, model.shortcut) == ("mlp", *ARMS[0].small, "none")


def tables(frames: Frames, settings: TransferSettings) -> dict[str, pd.DataFrame]:
    """Return what the shortcut is worth at the smallest and greatest size, heterogeneity, and the losses behind it."""
    runs = _labelled(frames["runs"])
    ratios = [_ratios(runs).assign(model="network")]
    own = {"networks": _networks(runs)}
    if "boosting" in frames:
        ratios.append(_tree_ratios(frames["boosting"], frames["runs"]).assign(model="trees"))
        own["trees"] = _trees(frames["boosting"])
    ends = pd.concat([_ends(table) for table in ratios], ignore_index=True)
    effects = _interactions(ends[ends["model"] == "network"])
    return {**own, "ratios": ends, "heterogeneity": heterogeneity(effects), "pooled": _pooled(effects)}


def _labelled(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs with columns network, task, arm, size (layers; steps for the shortcut in time) and score.

    score: log10 of the final training loss, nan for a run that diverged. Raises SpecError where there is no such run.
    """
    names = runs["dataset"].map(lambda text: parse_part(text)[0])
    runs = outcomes(runs[runs["family"].isin(KINDS) & names.isin(TASKS)])
    if runs.empty:
        raise SpecError("no recorded run is of these kinds of networks; `resx probe transfer` makes some")
    parts = [parse_part(text) for text in runs["dataset"]]
    task = [TASKS[name] for name, _ in parts]
    steps = [int(arguments.get("steps", 0)) for _, arguments in parts]
    runs = runs.assign(
        task=task,
        network=[f"{KINDS[family]}, {name}" for family, name in zip(runs["family"], task, strict=True)],
        arm=runs["shortcut"].map(kind_name),
        size=np.where(runs["family"] == "rnn-time", steps, runs["depth"]),
        score=runs["log10_train_loss"],
    )
    order = runs["family"].map(list(KINDS).index)
    return runs.assign(order=order).sort_values(["order", "task", "size"], kind="stable", ignore_index=True)


def _ratios(runs: pd.DataFrame) -> pd.DataFrame:
    """Return log10(plain loss / residual loss), a row per network, size and seed."""
    cells = runs.groupby(["network", "size", "seed", "arm"], sort=False)["score"].first()
    table = cells.unstack("arm").reindex(columns=["plain", "residual"])
    return (table["plain"] - table["residual"]).rename("ratio").reset_index()


def _tree_ratios(measured: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Return log10(bagging's loss / boosting's loss) in the shape of `_ratios`; size is the number of trees."""
    seeds = runs.set_index("run_id")["seed"]
    named = measured.assign(seed=measured["run_id"].map(seeds), network=TREES + ", " + measured["task"])
    table = named.pivot_table(index=["network", "trees", "seed"], columns="kind", values="train_loss", sort=False)
    ratio = stats.log10_loss(table["bagging"]) - stats.log10_loss(table["boosting"])
    return pd.DataFrame({"ratio": ratio}, index=table.index).reset_index().rename(columns={"trees": "size"})


def _ends(ratios: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of each network's smallest and greatest size, distinguished by `at`; none of one size only."""
    sizes = ratios.groupby("network", sort=False)["size"]
    low, high = sizes.transform("min"), sizes.transform("max")
    small = ratios[(ratios["size"] == low) & (low < high)].assign(at="smallest")
    return pd.concat([small, ratios[ratios["size"] == high].assign(at="greatest")], ignore_index=True)


def _interactions(ends: pd.DataFrame) -> dict[str, pd.Series]:
    """Return, per network, the ratio at the greatest size minus that at the smallest, by seed."""
    table = ends.pivot(index=["network", "seed"], columns="at", values="ratio").reindex(
        columns=["smallest", "greatest"]
    )
    difference = (table["greatest"] - table["smallest"]).dropna()
    return {name: difference.loc[name] for name in dict.fromkeys(ends["network"]) if name in difference.index}


def _pooled(effects: Mapping[str, pd.Series]) -> pd.DataFrame:
    """Return the mean interaction of all networks by seed, of the seeds that have them all."""
    mean = pd.DataFrame(effects).mean(axis=1, skipna=False).dropna() if effects else pd.Series(dtype=float)
    return mean.rename("mean_interaction").rename_axis("seed").reset_index()


def heterogeneity(effects: Mapping[str, pd.Series]) -> pd.DataFrame:
    """Return one row: lowest, highest, q, df, i2 (%) and p of the effects' differences, from values by seed.

    q is Cochran's, with each effect's own variance of the mean; i2 = max(0, (q − df)/q) (Higgins & Thompson 2002). p
    is that of Welch's analysis of variance (Welch 1951), which corrects q for variances estimated from few
    seeds. With fewer than two seeds, or without any spread over seeds, q, i2 and p are nan.
    """
    table = pd.DataFrame([series.agg(["mean", "var", "count"]) for series in effects.values() if series.notna().any()])
    if table.empty:
        return pd.DataFrame(columns=["effects", "lowest", "highest", "df", "q", "i2", "p"])
    means, variances, counts = (table[name].to_numpy() for name in ("mean", "var", "count"))
    df = len(table) - 1
    row = {"effects": len(table), "lowest": means.min(), "highest": means.max(), "df": df}
    if not df or not (variances > 0).all():
        return pd.DataFrame([{**row, "q": np.nan, "i2": np.nan, "p": np.nan}])
    weights = counts / variances
    centre = (weights * means).sum() / weights.sum()
    q = float((weights * np.square(means - centre)).sum())
    spread = float((np.square(1 - weights / weights.sum()) / (counts - 1)).sum())
    statistic = (q / df) / (1 + 2 * (df - 1) / ((df + 1) ** 2 - 1) * spread)
    p = float(scipy.special.fdtrc(df, ((df + 1) ** 2 - 1) / (3 * spread), statistic))
    return pd.DataFrame([{**row, "q": q, "i2": 100 * max(0.0, q - df) / q if q else 0.0, "p": p}])


def _networks(runs: pd.DataFrame) -> pd.DataFrame:
    """Return mean log10 training losses, a row per network and size, and how many runs diverged.

    learnt: whether any of them, plain or residual, has a loss below that of guessing.
    """
    place = ["network", "size"]
    means = runs.groupby([*place, "arm"], sort=False)["score"].mean().unstack("arm")
    grouped = runs.groupby(place, sort=False)
    best = grouped["score"].min() - grouped["task"].first().map(GUESSING)
    return (
        means.reindex(columns=["plain", "residual"])
        .assign(learnt=best < -LEARNT, diverged=grouped["status"].agg(diverged))
        .rename_axis(columns=None)
        .reset_index()
    )


def _trees(measured: pd.DataFrame) -> pd.DataFrame:
    """Return mean squared errors by number of trees, a row per data set and number."""
    columns = ["train_loss", "test_loss"]
    table = measured.pivot_table(index=["task", "trees"], columns="kind", values=columns, sort=False)
    losses, kinds = (table.columns.get_level_values(level) for level in (0, 1))
    table.columns = kinds + " " + losses.str.removesuffix("_loss")
    return table.reset_index()


def comment(findings: Findings) -> list[str]:
    """Return how many networks gain and lose, how much they differ, and which learnt nothing."""
    lines = []
    verdict, spread = findings.verdict("worth-more-with-size"), findings.tables["heterogeneity"]
    if verdict and len(spread):
        above = [one.name for one in verdict.estimates if one.low > 0]
        below = [one.name for one in verdict.estimates if one.high < 0]
        row = spread.iloc[0]
        shown = f"I² {row['i2']:.0f} %, p {row['p']:.2g}" if np.isfinite(row["i2"]) else "no I² from one seed"
        lines.append(
            f"Of {len(verdict.estimates)} interactions the interval lies above 0 for {len(above)} and below 0 for "
            f"{len(below)}; they range from {row['lowest']:+.2f} to {row['highest']:+.2f} in log10 ({shown})."
        )
        if len(findings.tables["pooled"]):
            mean = stats.t_interval(findings.tables["pooled"]["mean_interaction"])
            lines.append(f"Their mean is {mean.with_interval}; it is of these networks, not of networks at large.")
    networks = findings.tables["networks"]
    stuck = networks.groupby("network", sort=False).tail(1)
    names = stuck.loc[~stuck["learnt"], "network"]
    if len(names):
        lines.append(f"At the greatest size neither network learnt anything in: {'; '.join(names)}.")
    if lost := int(networks["diverged"].sum()):
        lines.append(f"{lost} runs diverged; their effects leave them out.")
    return lines


CLAIMS = (
    Claim(
        key="worth-more-with-size",
        says="The shortcut is worth more at the greater size, in other kinds of networks",
        expected=+1,
        first=contrast("ratio", LARGE, SMALL, over=("network",), where={"model": "network"}),
        family="interactions",
    ),
    Claim(
        key="better-at-the-greatest-size",
        says="The large residual network trains better than the large plain one",
        expected=+1,
        first=contrast("ratio", LARGE, over=("network",), where={"model": "network"}),
        family="at the greatest size",
    ),
    Claim(
        key="trees",
        says="Trees that fit what is left gain more with their number than trees that all fit the same",
        expected=+1,
        first=contrast("ratio", LARGE, SMALL, over=("network",), where={"model": "trees"}),
        family="trees",
    ),
)

PROBE = Probe(
    plan=plan,
    tables=tables,
    claims=CLAIMS,
    settings=TransferSettings,
    figures=("transfer",),
    shown=("networks", "heterogeneity", "trees"),
    measures={
        "boosting": Measure(measure_trees, keys=("trees", "tree_depth", "shrinkage"), wants=has_trees, diverged=True)
    },
    labels={"ratio": "log10(plain/residual)", "plain": "plain: log10 loss", "residual": "residual: log10 loss"},
    comment=comment,
    limits=(
        "All kinds have one recipe, short training and small sizes; that a kind gains nothing here does not say that "
        "it would not with its own. Trees are no networks: boosting shares the idea, not the mechanism, and so stays "
        "apart."
    ),
    chooses=("family", "depth", "width", "shortcut", "dataset", *OF_IMAGES),
)
