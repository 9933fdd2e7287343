"""Does residual learning transfer to other kinds of networks, and to other kinds of models?

Question: the depth × skip interaction of He et al. 2016 (figs. 1 and 6: plain networks get worse with depth, residual
ones do not) was found in convolutional networks on images. Is it there in other networks? And is an ensemble
of trees in which each fits what is left better than one of as many trees that all fit the same?

Method: plain (shortcut none) and residual (identity) networks that share initial weights and batches, small and
large: a multilayer perceptron, a 1-D convolutional network, a vanilla RNN with the shortcut in depth, one with the
shortcut in time (where what grows is the sequence), and a Transformer encoder with and without its two shortcuts a
layer. Each on a real task (scikit-learn's digits, as images or as sequences) and on a synthetic one of long range
(the temporal order of Hochreiter & Schmidhuber 1997). Apart from them, never pooled with them: gradient boosting
against bagging, scikit-learn's own, with as many trees of the same depth that see as much of the data, on the digits'
ten outputs and on the diabetes data.

Primary outcome: log10 (final training loss, plain / residual), of which units cancel. Effect: the interaction,
that ratio at the greatest size minus that at the smallest, within a seed, with its 95 % interval over seeds;
networks are judged as one family by a joint sign-flip over seeds.

Criteria, written down before the runs of experiments/transfer-digits.toml, whose seeds are not the trials':
residual learning transfers to a kind of network on a task if its interaction is above 0 and, since one above 0 may
also come of a shortcut that hurts the small network more than the large, so is the ratio at the greatest size.
Either is supported in general if it is above 0 for all, and refuted if it is significantly below 0 for one. For
trees: the interaction is above 0 on both data sets.

Heterogeneity of the networks' interactions: range, Cochran's Q, I² and the p of Welch's analysis of variance, which
allows for few seeds; the mean over kinds is of these ten and not of networks at large.

Limits: one recipe for all (SGD, one learning rate), and sizes at which, in trials on one seed, the small plain network
and one of the large ones train; with each kind's own optimiser and normalisation plain networks may do better. Where
neither large network gets below the loss of guessing, the interaction only says what the small ones differ by;
the table of networks marks these. In time, sizes are different tasks: the same image in 8 or 64 steps, a longer
temporal order. Transformers are in the pre-activation order; both kinds of RNN read a shorter temporal order
than the other kinds. Unshrunk boosting overfits: the table of trees has test losses beside.

Trials: on seed 0 sizes were changed until networks trained (Transformers of 16 sublayers in the original order, an
MLP of 38 layers and longer temporal orders for RNNs had stayed at guessing), the second criterion was added when
the shortcut in time had a positive interaction only because it hurt less at the large size, and the trees' share of
the data was raised from 0.5 to 0.8 because unshrunk boosting was erratic, which raised its effect. Seed 0 is no
test.

Settings (--set): trees, tree_depth, shrinkage (of boosting: 1 fits all of what is left). Kinds: grid family.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import f as f_distribution

from resx import stats
from resx.claims import estimates
from resx.data import Dataset
from resx.figures.parts import kind_name
from resx.figures.transfer import KEYS, KINDS, interactions, labelled, largest, ratios, tree_ratios
from resx.measurements.boosting import boosting
from resx.probes.study import Findings, Frames, Measure, Order, Study, Verdict
from resx.spec import RunSpec, SpecError
from resx.stats import Estimate
from resx.store.run import RunFolder


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
GUESSING = {"digits": np.log10(np.log(10)), "long range": np.log10(np.log(4))}  # log10 loss of equal probabilities
LEARNT = 0.02  # log10 below it
DIABETES_TEST = 100  # of 442 patients


def plan(order: Order) -> list[RunSpec]:
    """Return the runs: every arm, small and large, plain and residual."""
    wanted = [str(family) for family in order.grid.get("family", KINDS)]
    unknown = [family for family in wanted if family not in KINDS]
    others = [key for key in order.grid if key != "family"]
    if unknown or others:
        raise SpecError(
            [f"[grid] family: no '{family}' here; there are {', '.join(KINDS)}" for family in unknown]
            + [f"[grid] {key}: this study's grid is the kinds' own; give family, or fields in [run]" for key in others]
        )
    fields = []
    for arm in ARMS:
        for dataset, depth in (arm.small, arm.large) if arm.family in wanted else ():
            own = {"family": arm.family, "width": arm.width, "order": arm.order, "dataset": dataset, "depth": depth}
            for shortcut in ("none", "identity"):
                common = {**RECIPE, **order.base, **own, "shortcut": shortcut}
                fields += [{**common, "seed": seed} for seed in order.seeds]
    return order.resolve(fields)


def measure_trees(run: RunFolder, dataset: Dataset, settings: Mapping[str, Any], device: torch.device) -> pd.DataFrame:
    """Return boosting and bagging on the run's digits (ten outputs) and on the diabetes data, for the run's seed."""
    from sklearn.datasets import load_diabetes

    tables = []
    outputs = np.eye(dataset.n_outputs)
    digits = tuple(
        (x.flatten(1).double().numpy(), outputs[y.numpy()])
        for x, y in ((dataset.train_x, dataset.train_y), (dataset.test_x, dataset.test_y))
    )
    x, y = load_diabetes(return_X_y=True)
    y = (y / y.std())[:, None]
    diabetes = (x[:-DIABETES_TEST], y[:-DIABETES_TEST]), (x[-DIABETES_TEST:], y[-DIABETES_TEST:])
    for task, (train, test) in (("digits", digits), ("diabetes", diabetes)):
        found = boosting(
            train,
            test,
            trees=settings["trees"],
            tree_depth=settings["tree_depth"],
            shrinkage=settings["shrinkage"],
            seed=run.spec.seed,
        )
        tables.append(found.assign(task=task))
    return pd.concat(tables, ignore_index=True)


def has_trees(spec: RunSpec, settings: Mapping[str, Any]) -> bool:
    """Return whether the trees are measured beside this run: once a seed, beside the small plain MLP on digits."""
    model = spec.model
    return (model.family, spec.data.dataset, model.depth, model.shortcut) == ("mlp", *ARMS[0].small, "none")


def judge(frames: Frames, settings: Mapping[str, Any]) -> Findings:
    """Judge the criterion of this module's docstring on the frames runs and boosting."""
    runs = labelled(frames)
    network_ratios = ratios(runs)
    effects = interactions(network_ratios)
    found = estimates(effects)
    tables = {"networks": _networks(runs), "interactions": _interactions(network_ratios, found)}
    verdicts = []
    if found:
        mean = pd.DataFrame(effects).mean(axis=1, skipna=False).dropna()
        pooled = [stats.t_interval(mean.to_numpy(), name="mean of these networks")] if len(mean) else []
        verdicts.append(
            Verdict(
                "The shortcut is worth more at the greater size, in other kinds of networks",
                "log10(plain/residual), large − small, above 0 for every kind and task",
                [*found.values(), *pooled],
                _all(found),
            )
        )
        at_large = estimates(largest(network_ratios))
        verdicts.append(
            Verdict(
                "The large residual network trains better than the large plain one",
                "log10(plain/residual) at the greatest size above 0 for every kind and task",
                list(at_large.values()),
                _all(at_large),
            )
        )
        tables["heterogeneity"] = heterogeneity(effects)
    trees: dict[str, Estimate] = {}
    if "boosting" in frames:
        tree_ratio = tree_ratios(frames["boosting"], frames["runs"])
        trees = estimates(interactions(tree_ratio))
        tables["trees"] = _trees(frames["boosting"])
        verdicts.append(
            Verdict(
                "Trees that fit what is left gain more with their number than trees that all fit the same",
                "log10(bagging/boosting), all trees − 1 tree, above 0 on both data sets",
                list(trees.values()),
                _all(trees),
            )
        )
    return Findings(tables, verdicts, _answer(found, verdicts, tables, runs))


def _all(found: Mapping[str, Estimate]) -> stats.Word:
    """Return the word for 'all of them are above 0': refuted where one is significantly below."""
    words = {stats.word(estimate, 1) for estimate in found.values()}
    if "refuted" in words:
        return "refuted"
    return words.pop() if len(words) == 1 else "inconclusive"


def heterogeneity(effects: Mapping[str, pd.Series]) -> pd.DataFrame:
    """Return one row: lowest, highest, q, df, i2 (%) and p of the effects' differences, from values by seed.

    q is Cochran's, with each effect's own variance of the mean; i2 = max(0, (q − df)/q) (Higgins & Thompson 2002). p
    is that of Welch's analysis of variance (Welch 1951), which corrects q for variances estimated from few
    seeds. With fewer than two seeds, or without any spread over seeds, q, i2 and p are nan.
    """
    values = [series.dropna().to_numpy() for series in effects.values()]
    values = [own for own in values if len(own)]
    means = np.array([own.mean() for own in values])
    counts = np.array([len(own) for own in values])
    row = {"effects": len(values), "lowest": means.min(), "highest": means.max(), "df": len(values) - 1}
    variances = np.array([own.var(ddof=1) if len(own) > 1 else np.nan for own in values])
    if len(values) < 2 or not (variances > 0).all():
        return pd.DataFrame([{**row, "q": np.nan, "i2": np.nan, "p": np.nan}])
    weights = counts / variances
    centre = (weights * means).sum() / weights.sum()
    q = float((weights * np.square(means - centre)).sum())
    df = len(values) - 1
    spread = float((np.square(1 - weights / weights.sum()) / (counts - 1)).sum())
    statistic = (q / df) / (1 + 2 * (df - 1) / ((df + 1) ** 2 - 1) * spread)
    p = float(f_distribution.sf(statistic, df, ((df + 1) ** 2 - 1) / (3 * spread)))
    return pd.DataFrame([{**row, "q": q, "i2": 100 * max(0.0, q - df) / q if q else 0.0, "p": p}])


def _networks(runs: pd.DataFrame) -> pd.DataFrame:
    """Return mean log10 training losses, a row per kind, task and size, and how many runs diverged.

    learnt: whether any of the networks, plain or residual, has a loss below that of guessing.
    """
    runs = runs.sort_values("size", kind="stable").assign(
        diverged=runs["status"] == "diverged", arm=runs["shortcut"].map(kind_name)
    )
    place = [*KEYS, "size"]
    table = runs.groupby([*place, "arm"], sort=False)["score"].mean().unstack("arm")
    lost = runs.groupby(place)["diverged"].sum()
    table = table.reindex(columns=["plain", "residual"]).round(2)
    best = runs.groupby(place)["score"].min() - runs.groupby(place)["task"].first().map(GUESSING)
    return table.assign(learnt=(best < -LEARNT).map({True: "yes", False: "no"}), diverged=lost).reset_index()


def _interactions(ratio: pd.DataFrame, found: Mapping[str, Estimate]) -> pd.DataFrame:
    """Return a row per kind and task: mean ratio at the smallest and the greatest size, and the interaction."""
    rows = []
    for (kind, task), group in ratio.groupby(KEYS, sort=False):
        estimate = found.get(f"{kind}, {task}")
        means = group.groupby("size")["ratio"].mean().sort_index()
        if estimate is None:
            continue
        rows.append(
            {
                "kind": kind,
                "task": task,
                "small": means.iloc[0],
                "large": means.iloc[-1],
                "interaction": estimate.mean,
                "low": estimate.low,
                "high": estimate.high,
                "seeds": estimate.n,
                "p": np.nan if estimate.p is None else estimate.p,
            }
        )
    return pd.DataFrame(rows)


def _trees(measured: pd.DataFrame) -> pd.DataFrame:
    """Return mean squared errors by number of trees, a row per data set and number."""
    columns = ["train_loss", "test_loss"]
    table = measured.pivot_table(index=["task", "trees"], columns="kind", values=columns, sort=False)
    losses, kinds = (table.columns.get_level_values(level) for level in (0, 1))
    table.columns = kinds + " " + losses.str.removesuffix("_loss")
    return table.reset_index()


def _answer(
    found: Mapping[str, Estimate], verdicts: list[Verdict], tables: Mapping[str, pd.DataFrame], runs: pd.DataFrame
) -> str:
    sentences = [f"{verdict.hypothesis}: {verdict.word}." for verdict in verdicts]
    if found:
        above = [name for name, estimate in found.items() if estimate.low > 0]
        below = [name for name, estimate in found.items() if estimate.high < 0]
        worse = [estimate.name for estimate in verdicts[1].estimates if estimate.mean < 0]
        spread = tables["heterogeneity"].iloc[0]
        measured = (
            f"I² {spread['i2']:.0f} %, p {spread['p']:.2g}" if np.isfinite(spread["i2"]) else "no I² from one seed"
        )
        sentences.append(
            f"Of {len(found)} interactions the interval lies above 0 for {len(above)}"
            + (f" ({'; '.join(above)})" if above else "")
            + f" and below 0 for {len(below)}"
            + (f" ({'; '.join(below)})" if below else "")
            + f"; they range from {spread['lowest']:+.2f} to {spread['highest']:+.2f} in log10 ({measured})."
        )
        if worse:
            sentences.append(
                f"Even at the greatest size the residual network is on average the worse in: {'; '.join(worse)}."
            )
    large = tables["networks"].groupby(KEYS, sort=False).last().reset_index()
    stuck = [f"{row.kind}, {row.task}" for row in large[large["learnt"] == "no"].itertuples()]
    if stuck:
        sentences.append(f"Neither large network learnt anything in: {'; '.join(stuck)}.")
    lost = int((runs["status"] == "diverged").sum())
    if lost:
        sentences.append(f"{lost} of {len(runs)} runs diverged, which their effects leave out.")
    sentences.append(
        "All kinds have one recipe, short training and small sizes; that a kind gains nothing here does not say that "
        "it would not at its own. Trees are no networks: boosting shares the idea, not the mechanism, and stays apart."
    )
    return " ".join(sentences)


STUDY = Study(
    plan=plan,
    judge=judge,
    figures=["transfer"],
    measures={
        "boosting": Measure(measure_trees, keys=("trees", "tree_depth", "shrinkage"), wants=has_trees, diverged=True)
    },
    defaults={
        "title": "Residual learning in other networks and models",
        "primary": "log10_train_loss",
        "trees": 50,
        "tree_depth": 3,
        "shrinkage": 1.0,
    },
)
