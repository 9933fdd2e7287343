"""Shortcuts: could another function than the identity be used, known beforehand or learned (question 2, on images)?

Question. A block computes x + F(x). What if M x + F(x), a gate, noise or a learned scale stands there instead; does it
help to know what blocks do to their input, and can the function be learned? Identity Mappings (He et al. 2016b,
table 1) compared eleven of them in the original order, one depth, CIFAR-10.

Method. The same network, seed and batches with each shortcut function of the registry: constants α with and without
scaling the branch by 1−α; fixed maps (negation, permutation, orthogonal, Gaussian of the identity's norm, low rank);
learned scalar, channel scale and 1×1 map, from the identity and from elsewhere; gates; dropout; and `fitted`: each
block's best linear map in a trained network of the same depth and seed, frozen, with the network trained anew from
the seed's own initial weights. `compute` states what a function costs in training, the donor included, in runs of the
identity network. All in two orders: after a ReLU x is not negative, so relu(−x + F) throws the shortcut away and a
rotation loses about half of it for that reason alone. The pre-activation order answers the question; the original one
is what table 1 used.

Primary outcome. log10 of the final training loss (eval mode, all training images), since most errors sit at 0 % on
small data; errors stand beside it. Differences from the identity are paired by seed. `same` is equivalence of test
errors (TOST) within `margin` percentage points.

Criteria, fixed beforehand. The family that is judged are the planned contrasts below, all by one joint sign-flip over
seeds, at 5 %, from 6 seeds on; the hypothesis is judged in the pre-activation order, the original one stands beside it.
The p-values of single functions in the rankings are a second family, one per order, for orientation.
(1) Fixed maps other than the identity train worse: mean over them, supported above 0, refuted below.
(2) A map fitted to what a trained residual network's blocks do beats the identity: supported below 0, refuted above.
(3) A learned shortcut that starts at the identity beats the fixed identity: supported below 0, refuted above.
(4) Where a learned shortcut starts matters: elsewhere minus identity, supported above 0, refuted below.
(5) In the original order the ReLU throws a negated or rotated shortcut away: their difference from the identity,
original minus pre-activation order, supported above 0, refuted below.
(6) The spectrum of the product of the shortcuts at initialisation explains which functions train: Spearman's
correlation over functions between its distance from an isometry and the outcome, minus 0.5; supported above 0,
refuted below.

Settings. primary: log10_train_loss, train_error or test_error. margin: of equivalence in test error, in percentage
points. donors: the networks that maps are fitted to (with ; between). depth: unless --depth says otherwise; with 20
layers the plain network of the pre-activation order still trains on digits, with 32 it no longer keeps up. `--shortcut
NAME`, also of a file given with `--plugin`, compares that one alone with the identity and with none; `--order` takes
one order only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch

from resx import stats
from resx.claims import estimates, verdict
from resx.data import Dataset
from resx.figures.parts import kind_name
from resx.figures.shortcuts import (
    ORDERS,
    PREDICTORS,
    correlations,
    differences,
    orders_of,
    published,
    spectra,
    variants,
)
from resx.measurements.inputs import network_at, sample, without_blocks
from resx.measurements.spectrum import spectrum
from resx.model import SHORTCUTS
from resx.probes.study import Findings, Frames, Measure, Order, Study, Verdict
from resx.spec import RunSpec, SpecError, did_you_mean
from resx.stats import Estimate
from resx.store.run import RunFolder

OUTCOMES = {
    "log10_train_loss": "log10 of the final training loss",
    "train_error": "final training error (%)",
    "test_error": "final test error (%)",
}
BASELINES = ("none", "identity")
IMAGES = 8  # whose shortcut paths are measured
# planned contrasts: learned functions by where they start, and isometries that a ReLU cuts
AT_IDENTITY = ("learned-scalar:start=1.0", "learned-channels:start=1.0", "conv:init=identity")
ELSEWHERE = ("learned-scalar:start=0.0", "learned-channels:start=0.0", "conv:init=he")
CUT = ("negation", "orthogonal")
KNOWN = "A map fitted to a trained residual network beats the identity"
LEARNED = "A learned shortcut that starts at the identity beats it"
EXPLAINS = 0.5  # a rank correlation from which on a predictor is said to explain the ranking


def registered() -> list[str]:
    """Return the texts of all shortcuts that state a kind, with each of their examples."""
    texts = []
    for name in SHORTCUTS:
        factory = SHORTCUTS[name]
        if hasattr(factory, "kind"):
            texts += [f"{name}:{example}".removesuffix(":") for example in getattr(factory, "examples", ("",))]
    return texts


def plan(order: Order) -> list[RunSpec]:
    """Every shortcut in both orders; one that comes from a trained network once per donor, whose run is planned too."""
    check(order.settings)
    grid = {key: list(values) for key, values in order.grid.items()}
    asked = grid.pop("shortcut", None) or ([order.base["shortcut"]] if "shortcut" in order.base else registered())
    orders = grid.pop("order", None) or ([order.base["order"]] if "order" in order.base else list(ORDERS))
    several = [key for key, values in grid.items() if len(values) > 1]
    if several:
        raise SpecError(f"[grid] {several[0]}: this study compares shortcuts at one {several[0]}; give one value")
    base = {"depth": order.settings["depth"], **order.base, **{key: values[0] for key, values in grid.items()}}
    donors = _listed(order.settings["donors"])
    from_donor = [text for text in asked if _transform(text)]
    own = dict.fromkeys(
        [*BASELINES, *(donors if from_donor else []), *(text for text in asked if text not in from_donor)]
    )
    specs: list[RunSpec] = []
    for seed in order.seeds:
        for chosen in orders:
            twins = order.resolve([{**base, "order": chosen, "seed": seed, "shortcut": text} for text in own])
            specs += twins
            ids = dict(zip(own, (twin.run_id for twin in twins), strict=True))
            specs += order.resolve(
                [
                    {**base, "order": chosen, "seed": seed, "shortcut": text, "init_from": start}
                    for text in from_donor
                    for start in ({"run": ids[donor], "transform": _transform(text)} for donor in donors)
                ]
            )
    return specs


def check(settings: Mapping[str, Any]) -> None:
    """Raise SpecError for settings of the right type that mean nothing."""
    errors = []
    if settings["primary"] not in OUTCOMES:
        known = ", ".join(OUTCOMES)
        near = did_you_mean(settings["primary"], OUTCOMES)
        errors.append(f"setting 'primary': no outcome '{settings['primary']}'{near}; there are {known}")
    for donor in _listed(settings["donors"]):
        errors += [f"setting 'donors': {line}" for line in SHORTCUTS.check(donor)]
        if not errors and _transform(donor):
            errors.append(f"setting 'donors': '{donor}' needs a donor itself")
    if errors:
        raise SpecError(errors)


def _listed(text: str) -> list[str]:
    return [item.strip() for item in text.split(";") if item.strip()]


def _transform(text: str) -> str | None:
    name = text.partition(":")[0].strip()
    return getattr(SHORTCUTS[name], "transform", None) if name in SHORTCUTS else None


def measure(run: RunFolder, dataset: Dataset, settings: Mapping[str, Any], device: torch.device) -> pd.DataFrame:
    """Measure the spectrum of a run's shortcut path at initialisation, in float64, with batch statistics."""
    x, _ = sample(run, dataset, device, IMAGES, torch.float64)
    return spectrum(network_at(run, dataset, device, 0, len(x), torch.float64), x)


def judge(frames: Frames, settings: Mapping[str, Any]) -> Findings:
    """Rank the functions in each order and judge the planned contrasts."""
    check(settings)
    primary = settings["primary"]
    runs = variants(frames["runs"])
    orders = orders_of(runs)
    found = {order: differences(runs[runs["order"] == order], primary) for order in orders}
    each = {order: _one_by_one(table) for order, table in found.items()}
    rankings = {order: _ranking(runs[runs["order"] == order], each[order]) for order in orders}
    costs = {
        order: _costs(runs[runs["order"] == order], list(rankings[order]["shortcut"]), settings["margin"])
        for order in orders
    }
    foretold = _foretold(spectra(frames["spectrum"], runs), primary) if "spectrum" in frames else {}
    planned = {**_contrasts(found, runs), **{f"{name} − {EXPLAINS}": rho - EXPLAINS for name, rho in foretold.items()}}
    judged = estimates(planned)
    verdicts = _verdicts(judged)
    tables = {f"ranking-{order}": table for order, table in rankings.items()}
    tables |= {f"errors-{order}": table for order, table in costs.items()}
    if foretold:
        rows = [
            stats.t_interval(rho.dropna().to_numpy(), name=name) for name, rho in foretold.items() if rho.notna().any()
        ]
        tables["predictor"] = pd.DataFrame(
            [
                {"Spearman's correlation": one.name, "mean": one.mean, "low": one.low, "high": one.high, "n": one.n}
                for one in rows
            ]
        )
    return Findings(tables, verdicts, _answer(runs, rankings, each, verdicts, primary))


def _one_by_one(table: pd.DataFrame) -> dict[str, Estimate]:
    """Return each function's difference; p for those that finished in every seed, as one family."""
    names = [str(name) for name in table]
    whole = [name for name in names if table[name].notna().all()]
    found = estimates({name: table[name] for name in whole})
    for name in [name for name in names if name not in whole]:
        values = table[name].dropna()
        if len(values):
            found[name] = stats.t_interval(values.to_numpy(), name=name)
    return found


def _ranking(runs: pd.DataFrame, each: Mapping[str, Estimate]) -> pd.DataFrame:
    """Return a row per function, the best first and those without a number last."""
    rows = []
    for variant, group in runs.groupby("variant", sort=False):
        estimate = each.get(str(variant))
        mean = estimate.mean if estimate else (0.0 if variant == "identity" else np.nan)
        rows.append(
            {
                "shortcut": variant,
                "Δ": round(mean, 4) + 0.0,  # no −0
                "95 % interval": estimate.interval if estimate else "–",
                "p": estimate.p if estimate and estimate.p is not None else np.nan,
                "seeds": len(group),
                "diverged": int((group["status"] == "diverged").sum()),
            }
        )
    table = pd.DataFrame(rows).sort_values("Δ", na_position="last", kind="stable").reset_index(drop=True)
    table.insert(0, "rank", np.arange(1, len(table) + 1))
    return table if table["diverged"].any() else table.drop(columns="diverged")


def _costs(runs: pd.DataFrame, names: Sequence[str], margin: float) -> pd.DataFrame:
    """Return what stands beside the outcome, a row per function: errors, published error, compute."""
    reference = runs[runs["variant"] == "identity"]
    errors = differences(runs, "test_error")
    cost = runs.set_index("run_id")["multiply_adds"].to_dict()
    rows = []
    for variant in names:
        group = runs[runs["variant"] == variant]
        donor = getattr(group["init_from"].iloc[0], "run", None)
        own = float(group["multiply_adds"].iloc[0])
        row: dict[str, Any] = {
            "shortcut": variant,
            "train %": group["train_error"].mean(),
            "test %": group["test_error"].mean(),
            "Δ test %": _paired(errors.get(variant)),
            "same": _same(group, reference, errors.get(variant), margin),
            "compute": (own + cost.get(donor, 0.0)) / float(reference["multiply_adds"].iloc[0]),
        }
        if runs["order"].iloc[0] == "post":
            row["table 1"] = published(variant) or "–"
        rows.append(row)
    return pd.DataFrame(rows)


def _paired(differing: pd.Series | None) -> str:
    known = pd.Series(dtype=float) if differing is None else differing.dropna()
    return stats.t_interval(known.to_numpy()).with_interval if len(known) else "–"


def _same(group: pd.DataFrame, reference: pd.DataFrame, differing: pd.Series | None, margin: float) -> str:
    if differing is None or differing.isna().any():
        return "–"
    arms = [group["test_error"], reference["test_error"]]
    images = int(group["test_images"].iloc[0])
    return stats.equivalence(differing.to_numpy(), margin, arms=arms, n_test=images).status


def _contrasts(found: Mapping[str, pd.DataFrame], runs: pd.DataFrame) -> dict[str, pd.Series]:
    """Return the planned contrasts by name, a value per seed; nan where one of their networks diverged."""
    kinds = dict(zip(runs["variant"], runs["kind"], strict=True))
    columns: dict[str, pd.Series] = {}

    def mean(order: str, names: Sequence[str]) -> pd.Series:
        table = found[order]
        there = [name for name in names if name in table]
        return table[there].mean(axis=1, skipna=False) if there else pd.Series(dtype=float)

    for order in found:
        fixed = [str(name) for name in found[order] if kinds[name] == "fixed"]
        pairs = [pair for pair in zip(AT_IDENTITY, ELSEWHERE, strict=True) if set(pair) <= set(found[order])]
        columns |= {
            f"fixed maps − identity ({order})": mean(order, fixed),
            f"fitted to residual − identity ({order})": mean(order, [f"fitted to {kind_name('identity')}"]),
            f"fitted to plain − identity ({order})": mean(order, [f"fitted to {kind_name('none')}"]),
            f"learned from identity − identity ({order})": mean(order, AT_IDENTITY),
            f"learned from elsewhere − from identity ({order})": mean(order, [pair[1] for pair in pairs])
            - mean(order, [pair[0] for pair in pairs]),
        }
    if set(ORDERS) <= set(found):
        columns["negated or rotated − identity, original − pre-activation"] = mean("post", CUT) - mean("pre", CUT)
    return columns


def _foretold(table: pd.DataFrame, primary: str) -> dict[str, pd.Series]:
    return {f"{PREDICTORS[name]} ({order})": rho for (name, order), rho in correlations(table, primary).items()}


def _verdicts(judged: Mapping[str, Estimate]) -> list[Verdict]:
    def both(text: str) -> list[str]:
        return [f"{text} ({order})" for order in ORDERS if f"{text} ({order})" in judged]

    spectral = [f"{predictor} ({order}) − {EXPLAINS}" for predictor in PREDICTORS.values() for order in ORDERS]
    cases: list[tuple[str, list[str], Literal[-1, 1]]] = [
        ("Fixed maps other than the identity train worse", both("fixed maps − identity"), 1),
        (
            KNOWN,
            [*both("fitted to residual − identity"), *both("fitted to plain − identity")],
            -1,
        ),
        (LEARNED, both("learned from identity − identity"), -1),
        ("Where a learned shortcut starts matters", both("learned from elsewhere − from identity"), 1),
        (
            "In the original order the ReLU throws a negated or rotated shortcut away",
            ["negated or rotated − identity, original − pre-activation"],
            1,
        ),
        (
            "The spectrum of the shortcuts at initialisation explains which functions train",
            [name for name in spectral if name in judged],
            1,
        ),
    ]
    found = []
    for hypothesis, names, expected in cases:
        sign = "above" if expected > 0 else "below"
        criterion = f"the first effect is {sign} 0: supported; on the other side: refuted (joint sign-flip, 5 %)"
        found += verdict(hypothesis, criterion, judged, names, expected) if names else []
    return found


def _answer(
    runs: pd.DataFrame,
    rankings: Mapping[str, pd.DataFrame],
    each: Mapping[str, Mapping[str, Estimate]],
    verdicts: Sequence[Verdict],
    primary: str,
) -> str:
    """Return the paragraph: ranks, what beats the identity, the verdicts, and what this does not settle."""
    seeds = runs["seed"].nunique()
    said = [
        f"Networks of {runs['depth'].iloc[0]} layers on {runs['data_label'].iloc[0]}, {_count(seeds, 'seed')}, "
        f"judged by the {OUTCOMES[primary]}."
    ]
    for order, ranking in rankings.items():
        found = each[order]
        place = int(ranking.loc[ranking["shortcut"] == "identity", "rank"].iloc[0])
        below = [str(text) for text in ranking.loc[ranking["rank"] < place, "shortcut"]]
        surely = [one for one in found.values() if one.p is not None and one.p <= 0.05]
        better = [one.name for one in surely if one.mean < 0]
        worse = sum(one.mean > 0 for one in surely)
        said.append(
            f"In the {ORDERS[order]} the identity ranks {place} of {len(ranking)}; "
            + (f"lower means have {', '.join(below)}. " if below else "none has a lower mean. ")
            + f"After the adjustment for the whole family {', '.join(better) or 'none'} trained better and "
            f"{worse} of {len(found)} trained worse."
        )
        diverged = [str(text) for text in ranking.loc[ranking.get("diverged", 0 * ranking["rank"]) > 0, "shortcut"]]
        if diverged:
            said.append(f"Diverged in some seed: {', '.join(diverged)}.")
        if order == "post":
            said.append(_against_table_1(ranking))
    said += [f"{item.hypothesis}: {item.word} ({item.estimates[0]})." for item in verdicts]
    if seeds < stats.MIN_SEEDS:
        said.append(f"With fewer than {stats.MIN_SEEDS} seeds all of this is screening.")
    said.append(
        "It does not settle other depths, data or recipes; the recipe was chosen for the identity, and a function that "
        "needs another rate or more steps is not given them."
    )
    return " ".join(filter(None, said))


def _against_table_1(ranking: pd.DataFrame) -> str:
    rows = ranking[ranking["shortcut"].map(lambda name: bool(published(name)) and name != "identity")]
    if rows.empty:
        return ""
    agree = rows["Δ"].isna() | (rows["Δ"] > 0)
    others = ", ".join(rows.loc[~agree, "shortcut"])
    return (
        f"Identity Mappings (table 1) has {len(rows)} of these functions, all worse than the identity in test error; "
        f"here {int(agree.sum())} have the worse mean too{f', but not {others}' if others else ''}."
    )


def _count(n: int, word: str) -> str:
    return f"{n} {word}" if n == 1 else f"{n} {word}s"


STUDY = Study(
    plan=plan,
    judge=judge,
    figures=("shortcuts", "shortcut-spectrum"),
    measures={"spectrum": Measure(measure, without_blocks, diverged=True)},
    defaults={"primary": "log10_train_loss", "margin": 1.0, "donors": "identity;none", "depth": 32},
)
