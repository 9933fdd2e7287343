"""Mismatch: where input and output differ in size, can the input be modified to make a shortcut (question 3)?

Question. x + F(x) needs x and F(x) of one shape. If they differ, can x be copied, chopped off, padded or summed until
it fits, and does it matter how? He et al. 2016, section 3.3, pad with zeros (option A) or project (B), in ImageNet
networks.

Method. Default design: a network whose widths alternate (16↔24, then 32↔48 and 64↔96 channels), so that EVERY shortcut
mismatches, growing and shrinking in turn. One part at a time is changed against the reference, which subsamples maps,
pads channels with zeros and chops them off: every registered part, and a few pairs (copy then fold-sum, which doubles
what was copied every two blocks; copy-scaled then fold-scaled, which keeps its norm; option B). The part `zero` leaves
the shortcut out. Always beside: the plain network of the same widths, and a residual network of constant width whose
multiply-adds at 32×32 come nearest. All share seed, batches and the initial weights that they have in common.
Parameters and multiply-adds stand in the table, since a projection pays with both. The gain is the length of the
signal after all shortcuts, every branch silent, relative to the stem's output, after training.

Primary outcome. log10 of the final training loss (at the paper's size, set primary=test_error), as a difference from
the reference within a seed, averaged over depths within the seed. Lower is better.

Criteria, fixed beforehand; t intervals over seeds, one joint sign-flip (5 %) over all differences, at least 6 seeds.
Modifying the input works: the reference is better than the plain twin (supported), worse (refuted). The way matters,
for each part: supported if any way but `zero` differs from the reference; refuted if none does and all are equivalent
to it in test error (two one-sided tests); else inconclusive. Learned adapters are better: their mean difference is
below 0 (refuted: above). Leaving out the shortcut costs: the mean difference of all ways of gain 0 is above 0.
Constant width is better: its difference is below 0. Gains away from 1 cost: the rank correlation over all ways, of
|log gain| with the difference, is above 0 (by itself, outside the family).

Settings. design: alternating, or standard (constant widths, in which two shortcuts mismatch). primary:
log10_train_loss, train_error or test_error. margin: for equivalence, in points of test error; 0 stands for 0.3 where
the data is a whole published set at full size and for 1.0 elsewhere. images: how many the gain is measured on. In the
grid of an experiment's file, adapter and depth replace the defaults; `--adapter TEXT`, also of a file given with
`--plugin`, compares that one alone with the reference and the networks beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr

from resx import stats
from resx.claims import estimates
from resx.data import DATASETS, FACTS, Dataset
from resx.figures.mismatch import ALTERNATING, CONSTANT, DESIGNS, OUTCOMES, PLAIN, REFERENCE, arms, differences
from resx.measurements.composed import composed_gain
from resx.measurements.inputs import network_at, sample, without_blocks
from resx.model import GROW, SHRINK, SPATIAL, count
from resx.model.complexity import CIFAR_CLASSES, CIFAR_INPUT
from resx.probes.study import Findings, Frames, Measure, Order, Study, Verdict
from resx.spec import AdapterSpec, ModelSpec, RunSpec, SpecError, did_you_mean
from resx.stats import Equivalence, Estimate
from resx.store.run import RunFolder

# beside every registered part: other arguments of a part, and parts that only matter together
ALSO = (
    "space-to-depth:then=fold-sum+pad+chop",
    "space-to-depth:then=fold-average+pad+chop",
    "subsample+project:norm=false+chop",
    "subsample+pad+project:norm=false",
    "subsample+copy+fold-sum",
    "subsample+copy-scaled+fold-scaled",
    "B",
)
LEARNED, LEFT_OUT, GAIN = "learned adapters, mean", "shortcut left out, mean", "rank correlation with |log gain|"
SHORT = {"log10_train_loss": "Δ log10 loss", "train_error": "Δ train %", "test_error": "Δ test %"}  # columns
MARGIN_WHOLE, MARGIN = 0.3, 1.0  # points of test error


def plan(order: Order) -> list[RunSpec]:
    """Every way of making shapes match, the plain twin, and a network of constant width and as many multiply-adds."""
    _check(order.settings)
    asked = order.grid.get("adapter") or ([order.base["adapter"]] if "adapter" in order.base else ways())
    specs: list[RunSpec] = []
    for depth in order.grid.get("depth", [order.base.get("depth", 20)]):
        base = {**order.base, "depth": depth}
        alternating = order.settings["design"] == ALTERNATING
        if alternating and depth == 8:
            raise SpecError("depth: with alternating widths, 8 layers have no shrinking shortcut; use 14 or more")
        twins = {**base, "widths": ALTERNATING if alternating else None}
        cells = [{**twins, "shortcut": "identity", "adapter": text} for text in [str(AdapterSpec()), *asked]]
        cells.append({**twins, "shortcut": "none"})
        if alternating:
            [reference] = order.resolve([cells[0]])
            cells.append({**base, "width": matched_width(reference.model), "shortcut": "identity", "adapter": "A"})
        specs += order.resolve([{**cell, "seed": seed} for cell in cells for seed in order.seeds])
    _check_margin(order.settings["margin"], specs)
    return list(dict.fromkeys(specs))


def ways() -> list[str]:
    """Return every adapter that differs from the reference in one registered part, and those of ALSO."""
    base = AdapterSpec()
    changed = [
        base.model_copy(update={key: name})
        for key, registry in (("spatial", SPATIAL), ("grow", GROW), ("shrink", SHRINK))
        for name in registry
    ]
    return list(dict.fromkeys([*map(str, changed), *ALSO]))


@cache
def matched_width(spec: ModelSpec) -> int:
    """Return the constant width whose network has as many multiply-adds, as nearly as can be, as this one at 32×32."""
    width = spec.width or 16
    wanted = count(spec, CIFAR_INPUT, CIFAR_CLASSES).multiply_adds

    def miss(candidate: int) -> int:
        constant = spec.model_copy(update={"width": candidate, "widths": None})
        return abs(count(constant, CIFAR_INPUT, CIFAR_CLASSES).multiply_adds - wanted)

    return min(range(width + 1, 3 * width // 2 + 1), key=miss)


def _check(settings: Mapping[str, Any]) -> None:
    for key, known in (("design", DESIGNS), ("primary", OUTCOMES)):
        if settings[key] not in known:
            near = did_you_mean(settings[key], known)
            raise SpecError(f"setting '{key}': no '{settings[key]}'{near}; there are {', '.join(known)}")


def _check_margin(margin: float, specs: Iterable[RunSpec]) -> None:
    """Refuse a margin of less than two test images before anything is trained, where their number is known."""
    for data in {spec.data for spec in specs}:
        name, _ = DATASETS.arguments(data.dataset)
        if margin and name in FACTS:
            stats.check_margin(margin, data.test_subset or FACTS[name].test)


def measure_gain(run: RunFolder, dataset: Dataset, settings: Mapping[str, Any], device: torch.device) -> pd.DataFrame:
    """Apply the probe to the trained network, with the statistics that it normalises with when it is used."""
    x, _ = sample(run, dataset, device, settings["images"])
    return composed_gain(network_at(run, dataset, device, max(run.snapshots()), len(x)).eval(), x)


def no_shortcut(spec: RunSpec) -> str | None:
    """Say why a run has no composed shortcut, or return None."""
    return "it has no shortcuts" if spec.model.adapter is None else without_blocks(spec)


def judge(frames: Frames, settings: Mapping[str, Any]) -> Findings:
    """Judge one design: each way against the reference and against the plain twin, paired by seed."""
    _check(settings)
    named = arms(frames["runs"])
    named = named[named["design"] == settings["design"]].reset_index(drop=True)
    if REFERENCE not in set(named["group"]):
        raise SpecError(f"no run of the design {settings['design']} has the adapter {AdapterSpec()}")
    gains = _gains(named, frames.get("composed"))
    found = effects(named, gains, settings["primary"])
    errors = effects(named, gains, "test_error")
    margin = settings["margin"] or default_margin(named)
    alike = equivalences(named, margin)
    verdicts = _verdicts(named, found, alike, gains, settings["primary"], margin)
    tables = {
        "costs": costs_table(named, gains),
        "outcomes": outcomes_table(named),
        "differences": differences_table(found, errors, alike, settings["primary"]),
    }
    return Findings(tables, verdicts, _answer(verdicts, named, found, gains, settings, margin, alike))


def default_margin(named: pd.DataFrame) -> float:
    """Return the margin (points of test error) that is fixed for this data."""
    return MARGIN_WHOLE if named["reference"].notna().all() else MARGIN


def _gains(named: pd.DataFrame, measured: pd.DataFrame | None) -> pd.Series:
    """Return, by arm, the gain of the composed shortcut after the last block, the geometric mean over its runs."""
    if measured is None:
        return pd.Series(dtype=float)
    last = measured.sort_values("block").groupby("run_id")["gain"].last().rename("gain")
    with np.errstate(divide="ignore"):
        logs = np.log(last)
    by_arm = named[["run_id", "arm"]].merge(logs, left_on="run_id", right_index=True)
    return np.exp(by_arm.groupby("arm", sort=False)["gain"].mean())


def learned(named: pd.DataFrame) -> list[str]:
    """Return the arms whose adapters have parameters."""
    counts = named.groupby(["depth", "arm"])["parameters"].first().unstack("arm")
    extra = counts.sub(counts[_reference(named)], axis=0).max() > 0
    return [arm for arm in _adapted(named) if extra[arm]]


def left_out(named: pd.DataFrame, gains: pd.Series) -> list[str]:
    """Return the arms whose composed shortcut lets nothing through: the control."""
    return [arm for arm in _adapted(named) if gains.get(arm) == 0]


def _adapted(named: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(named.loc[~named["group"].isin(["beside", REFERENCE]), "arm"]))


def _reference(named: pd.DataFrame) -> str:
    return str(named.loc[named["group"] == REFERENCE, "arm"].iloc[0])


def effects(named: pd.DataFrame, gains: pd.Series, outcome: str) -> dict[str, Estimate]:
    """Return each arm's difference from the reference in one family, the two means, and the correlation with the gain.

    An arm that lacks a seed (diverged, say) is no member of the family: it has an interval of the others, and no p.
    """
    table = differences(named, outcome)
    means = {LEARNED: learned(named), LEFT_OUT: left_out(named, gains)}
    for name, members in means.items():
        if members:
            table[name] = table[members].mean(axis=1, skipna=False)
    known = {str(arm): values.dropna() for arm, values in table.items() if values.notna().any()}
    whole = [arm for arm, values in known.items() if len(values) == len(table)]
    found = estimates({arm: known[arm] for arm in whole})
    found |= {arm: stats.t_interval(known[arm].to_numpy(), name=arm) for arm in known if arm not in whole}
    ranked = [arm for arm in _adapted(named) if arm in whole and arm in gains.index]
    if len(ranked) > 2 and gains[ranked].nunique() > 1:
        with np.errstate(divide="ignore"):
            distance = np.abs(np.log(gains[ranked]))
        rows = {seed: spearmanr(distance, row[ranked]).statistic for seed, row in table.iterrows()}
        found |= estimates({GAIN: pd.Series(rows)})
    return found


def against_plain(named: pd.DataFrame, outcome: str) -> dict[str, Estimate]:
    """Return each arm's difference from the plain network, in one family of those without a missing seed."""
    table = differences(named, outcome, PLAIN)
    return estimates({str(arm): values for arm, values in table.items() if values.notna().all()})


def equivalences(named: pd.DataFrame, margin: float) -> dict[str, Equivalence]:
    """Return two one-sided tests of every arm's test error (mean over depths) against the reference's."""
    errors = named.pivot_table(index="seed", columns="arm", values="test_error", aggfunc="mean", dropna=False)
    table, reference = differences(named, "test_error"), _reference(named)
    images = int(named["test_images"].dropna().min()) if named["test_images"].notna().any() else 0
    return {
        str(arm): stats.equivalence(
            values.dropna().to_numpy(), margin, arms=[errors[arm].dropna(), errors[reference].dropna()], n_test=images
        )
        for arm, values in table.items()
        if values.notna().any()
    }


def costs_table(named: pd.DataFrame, gains: pd.Series) -> pd.DataFrame:
    """Return a row per arm and depth: parameters, multiply-adds and the gain of the composed shortcut."""
    rows = [
        {
            "network": f"{arm} ({runs['width'].iloc[0]:.0f})" if arm == CONSTANT else arm,
            "depth": depth,
            "parameters": runs["parameters"].max(),
            "multiply-adds (M)": round(runs["multiply_adds"].max() / 1e6, 3),
            "gain": round(gains.get(arm, np.nan), 3),
        }
        for (arm, depth), runs in named.groupby(["arm", "depth"], sort=False)
    ]
    return pd.DataFrame(rows)


def outcomes_table(named: pd.DataFrame) -> pd.DataFrame:
    """Return a row per arm and depth: the means of its outcomes over the seeds that finished, and how many diverged."""
    rows = [
        {
            "network": arm,
            "depth": depth,
            "seeds": len(runs),
            "diverged": int((runs["status"] == "diverged").sum()),
            "log10 loss": round(runs["log10_train_loss"].mean(), 3),
            "train %": round(runs["train_error"].mean(), 2),
            "test %": round(runs["test_error"].mean(), 2),
        }
        for (arm, depth), runs in named.groupby(["arm", "depth"], sort=False)
    ]
    return pd.DataFrame(rows)


def differences_table(
    found: Mapping[str, Estimate], errors: Mapping[str, Estimate], alike: Mapping[str, Equivalence], primary: str
) -> pd.DataFrame:
    """Return a row per arm: its difference from the reference in the primary outcome and in test error."""
    rows = []
    for arm, one in sorted(found.items(), key=lambda item: item[1].mean):
        if arm in alike:
            row: dict[str, Any] = {"network": arm, SHORT[primary]: one.with_interval, "seeds": one.n}
            row["p"] = np.nan if one.p is None else one.p
            row |= {} if primary == "test_error" else {SHORT["test_error"]: errors[arm].with_interval}
            rows.append(row | {f"within ±{alike[arm].margin:g}": alike[arm].status})
    return pd.DataFrame(rows)


def _verdicts(
    named: pd.DataFrame,
    found: Mapping[str, Estimate],
    alike: Mapping[str, Equivalence],
    gains: pd.Series,
    primary: str,
    margin: float,
) -> list[Verdict]:
    unit, zeros = OUTCOMES[primary], left_out(named, gains)
    verdicts = []
    if PLAIN in found:
        plain = found[PLAIN]
        criterion = f"{unit} of the plain twin minus the reference's: supported above 0, refuted below"
        title = f"Modifying the input works: {_reference(named)} trains better than no shortcuts"
        verdicts.append(Verdict(title, criterion, [plain], stats.word(plain, 1)))
    for part, what in (("spatial", "map size"), ("grow", "growing channels"), ("shrink", "shrinking channels")):
        members = [arm for arm in _adapted(named) if arm in found and arm not in zeros]
        members = [arm for arm in members if (named.loc[named["arm"] == arm, "group"] == part).any()]
        if members:
            criterion = "any way but none at all differs: supported; none does and all are equivalent in test error "
            criterion += f"(±{margin:g} points): refuted"
            listed = [found[arm] for arm in members]
            verdicts.append(Verdict(f"The way matters: {what}", criterion, listed, _any_differs(listed, alike)))
    difference = f"{unit}, difference from the reference"
    below, above = f"{difference}: supported below 0, refuted above", f"{difference}: supported above 0, refuted below"
    ranks = f"over the ways, with the {difference}: supported above 0, refuted below"
    more: list[tuple[str, str, str, Literal[-1, 1]]] = [
        (LEARNED, "Learned adapters are better than the reference", below, -1),
        (LEFT_OUT, "Leaving the shortcut out at the mismatch costs", above, 1),
        (CONSTANT, "Constant width is better at equal multiply-adds", below, -1),
        (GAIN, "Gains away from 1 cost", ranks, 1),
    ]
    for name, title, criterion, expected in more:
        if name in found:
            verdicts.append(Verdict(title, criterion, [found[name]], stats.word(found[name], expected)))
    return verdicts


def _any_differs(listed: list[Estimate], alike: Mapping[str, Equivalence]) -> stats.Word:
    if any(one.n < stats.MIN_SEEDS for one in listed):
        return "screening" if any(one.low > 0 or one.high < 0 for one in listed) else "inconclusive"
    if any(one.p is not None and one.p <= 0.05 for one in listed):
        return "supported"
    return "refuted" if all(alike[one.name].status == "equivalent" for one in listed) else "inconclusive"


def _answer(
    verdicts: Sequence[Verdict],
    named: pd.DataFrame,
    found: Mapping[str, Estimate],
    gains: pd.Series,
    settings: Mapping[str, Any],
    margin: float,
    alike: Mapping[str, Equivalence],
) -> str:
    reference, ways_there, zeros = _reference(named), _adapted(named), left_out(named, gains)
    judged = {verdict.estimates[0].name: verdict.word for verdict in verdicts}
    unit = OUTCOMES[settings["primary"]]
    sentences = [f"{DESIGNS[settings['design']]}; differences in {unit}, lower is better."]
    if PLAIN in found:
        against = f"the plain twin is {found[PLAIN].with_interval} from {reference}"
        sentences.append(f"Without shortcuts, {against}, so that modifying the input works is {judged[PLAIN]}.")
    plain = against_plain(named, settings["primary"])
    free = [arm for arm in ways_there if arm in plain and arm not in zeros and arm not in learned(named)]
    if free:
        better = sum(plain[arm].high < 0 for arm in free)
        sentences.append(
            f"Of {len(free)} other ways without parameters {better} have an interval wholly below the plain twin's "
            "(each by itself)."
        )
    ranked = sorted((found[arm] for arm in ways_there if arm in found and arm not in zeros), key=lambda one: one.mean)
    if len(ranked) > 1:
        best, worst = ranked[0], ranked[-1]
        sentences.append(
            f"From the reference, the best way ({best.name}) is {best.with_interval}, "
            f"the worst ({worst.name}) {worst.with_interval}."
        )
    for name, what in (
        (LEARNED, "those with parameters, on average"),
        (LEFT_OUT, "no shortcut at the mismatch"),
        (CONSTANT, "constant width at equal multiply-adds"),
    ):
        if name in found:
            sentences.append(
                f"{what.capitalize()}: {found[name].with_interval} ({_title(name, verdicts)}: {judged[name]})."
            )
    status = [alike[arm].status for arm in ways_there if arm in alike]
    sentences.append(
        f"In test error {status.count('equivalent')} of {len(status)} ways are equivalent to the reference "
        f"(±{margin:g} points), {status.count('not shown')} are not shown to be, and "
        f"{status.count('at the floor')} are as near to 0 % as it is."
    )
    spoilt = named[named["status"] != "finished"]
    if len(spoilt):
        names = ", ".join(dict.fromkeys(spoilt["arm"]))
        sentences.append(f"{len(spoilt)} runs did not finish or diverged ({names}) and are in no mean.")
    return " ".join(sentences)


def _title(name: str, verdicts: Iterable[Verdict]) -> str:
    title = next(verdict.hypothesis for verdict in verdicts if verdict.estimates[0].name == name)
    return f"'{title[0].lower()}{title[1:]}'"


STUDY = Study(
    plan=plan,
    judge=judge,
    figures=("mismatch",),
    measures={"composed": Measure(measure_gain, no_shortcut, keys=("images",))},
    defaults={"design": ALTERNATING, "primary": "log10_train_loss", "margin": 0.0, "images": 64},
)
