"""Mismatch: where input and output differ in size, can the input be modified to make a shortcut (question 3)?

Question. x + F(x) needs x and F(x) of one shape. If they differ, can x be copied, chopped off, padded or summed until
it fits, and does it matter how? He et al. 2016, section 3.3, pad with zeros (option A) or project (B), in ImageNet
networks.

Method. Default design: widths alternate (16↔24, then 32↔48 and 64↔96 channels), so that EVERY shortcut mismatches,
growing and shrinking in turn. One part at a time differs from the reference, which subsamples maps, pads channels with
zeros and chops them off: every registered part, and a few pairs (copy then fold-sum, which doubles what was copied
every two blocks; copy-scaled then fold-scaled, which keeps its norm; option B). The part `zero` leaves the shortcut
out. Always compared: the plain network of these widths, and the residual network of constant width nearest in
multiply-adds at 32×32. All share seed, batches and the initial weights that they have in common. The table has
parameters and multiply-adds, since a projection costs both. The gain is the length of the signal after all shortcuts,
every branch silent, relative to the stem's output, after training.

Primary outcome. log10 of the final training loss (at the paper's size, set primary=test_error), as a difference from
the reference within a seed, averaged over depths within the seed. Lower is better.

Margin of equivalence in test error: 0.3 points on a whole published data set at full size, 1.0 elsewhere, unless set.
In an experiment's grid, adapter and depth replace the defaults; `--adapter TEXT`, also of a `--plugin` file, compares
that one alone with the reference and the networks above.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from resx import stats
from resx.claims import AnyDiffers, Claim, Contrast, contrast
from resx.probes import Findings, Frames, Measure, Probe, Request, Settings, Tables, of_runs, tidy
from resx.probes.tidy import OUTCOMES, Outcome, outcomes, without_blocks
from resx.spec import AdapterSpec, ModelSpec, RunSpec, SpecError

if TYPE_CHECKING:
    from resx.measurements.inputs import Specimen

ALTERNATING, STANDARD = "alternating", "standard"
DESIGNS = {
    ALTERNATING: "Alternating widths: no shortcut fits",
    STANDARD: "Constant widths: two shortcuts do not fit",
}
PARTS = ("spatial", "grow", "shrink")  # of an adapter
REFERENCE, NEXT = "reference", "comparison"  # a group of one arm; networks that are no ways
PLAIN, CONSTANT = "plain", "constant width"
GROUPS = {
    NEXT: "For comparison",
    "spatial": "Maps shrink by",
    "grow": "Channels grow by",
    "shrink": "Channels shrink by",
    "several": "Several parts at once",
}
LEARNED, LEFT_OUT = "learned adapters, mean", "shortcut left out, mean"
# next to every registered part: other arguments of a part, and parts that only matter together
ALSO = (
    "space-to-depth:then=fold-sum+pad+chop",
    "space-to-depth:then=fold-average+pad+chop",
    "subsample+project:norm=false+chop",
    "subsample+pad+project:norm=false",
    "subsample+copy+fold-sum",
    "subsample+copy-scaled+fold-scaled",
    "B",
)
MARGIN_WHOLE, MARGIN = 0.3, 1.0  # points of test error
PRIMARY, BASE = "{primary}", {"arm": "{reference}"}


class MismatchSettings(Settings):
    """design: alternating widths, or standard (constant ones, in which two shortcuts mismatch). primary: the outcome
    that is judged. margin: of equivalence in test error (points); 0 for the default. images: that the gain is measured
    on.
    """

    design: Literal["alternating", "standard"] = "alternating"
    primary: Outcome = "log10_train_loss"
    margin: float = Field(0.0, ge=0)
    images: int = Field(64, ge=1)


def plan(request: Request) -> list[RunSpec]:
    """Every way of making shapes match, the plain twin, and a network of constant width and as many multiply-adds."""
    adapters = request.grid.get("adapter") or ([request.base["adapter"]] if "adapter" in request.base else ways())
    specs: list[RunSpec] = []
    for depth in request.grid.get("depth", [request.base.get("depth", 20)]):
        base = {**request.base, "depth": depth}
        alternating = request.settings.design == ALTERNATING
        if alternating and depth == 8:
            raise SpecError("depth: with alternating widths, 8 layers have no shrinking shortcut; use 14 or more")
        twins = {**base, "widths": ALTERNATING if alternating else None}
        cells = [{**twins, "shortcut": "identity", "adapter": text} for text in [str(AdapterSpec()), *adapters]]
        cells.append({**twins, "shortcut": "none"})
        if alternating:
            [reference] = request.resolve([cells[0]])
            cells.append({**base, "width": matched_width(reference.model), "shortcut": "identity", "adapter": "A"})
        specs += request.resolve([{**cell, "seed": seed} for cell in cells for seed in request.seeds])
    if request.settings.margin:
        tidy.check_margin(request.settings.margin, specs)
    return list(dict.fromkeys(specs))


def ways() -> list[str]:
    """Return every adapter that differs from the reference in one registered part, and those of ALSO."""
    from resx.model import GROW, SHRINK, SPATIAL

    base = AdapterSpec()
    changed = [
        base.model_copy(update={key: name})
        for key, registry in zip(PARTS, (SPATIAL, GROW, SHRINK), strict=True)
        for name in registry
    ]
    return list(dict.fromkeys([*map(str, changed), *ALSO]))


@cache
def matched_width(spec: ModelSpec) -> int:
    """Return the constant width whose network has as many multiply-adds, as nearly as can be, as this one at 32×32."""
    from resx.model import count
    from resx.model.complexity import CIFAR_CLASSES, CIFAR_INPUT

    width = spec.width or 16
    budget = count(spec, CIFAR_INPUT, CIFAR_CLASSES).multiply_adds

    def miss(candidate: int) -> int:
        constant = spec.model_copy(update={"width": candidate, "widths": None})
        return abs(count(constant, CIFAR_INPUT, CIFAR_CLASSES).multiply_adds - budget)

    return min(range(width + 1, 3 * width // 2 + 1), key=miss)


def measure_gain(specimen: Specimen, settings: MismatchSettings) -> pd.DataFrame:
    """Measure the trained network's gain, with the statistics that it normalises with when it is used."""
    from resx.measurements.composed import composed_gain

    x, _ = specimen.sample(settings.images)
    return composed_gain(specimen.network(len(x)).eval(), x)


def no_shortcut(spec: RunSpec) -> str | None:
    """Say why a run has no composed shortcut, or return None."""
    return "it has no shortcuts" if spec.model.adapter is None else without_blocks(spec)


def tables(frames: Frames, settings: MismatchSettings) -> dict[str, pd.DataFrame]:
    """Return, of one design, networks by depth, ways against the reference, and outcomes by seed, means over depths."""
    named = _arms(frames["runs"])
    named = named[named["design"] == settings.design].reset_index(drop=True)
    if REFERENCE not in set(named["group"]):
        raise SpecError(f"no run of the design {settings.design} has the adapter {AdapterSpec()}")
    networks = _networks(named, _gains(named, frames.get("composed")))
    values = _values(named)
    values = pd.concat([values, _means(values, networks)], ignore_index=True)
    margin = settings.margin or (MARGIN_WHOLE if named["reference"].notna().all() else MARGIN)
    return {
        "networks": networks,
        "ways": _ways(values, networks, margin, named["test_images"]),
        "outcomes": values,
        "correlations": _correlations(named, networks, settings.primary),
    }


def _arms(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs with `design`, `group` and `arm` (a name of its own), outcomes nan where a run diverged.

    Alternating widths are a design of their own, together with constant ones of another width; everything else is
    standard. Sorted by group and name. Raises SpecError where runs differ in the recipe.
    """
    tidy.check_alike(runs, ("adapter", "width", "widths"))
    alternating = runs["widths"] == ALTERNATING
    own_width = ~runs["width"].isin(runs.loc[alternating, "width"])
    matched = own_width & bool(alternating.any())
    names = [_name(shortcut, adapter) for shortcut, adapter in zip(runs["shortcut"], runs["adapter"], strict=True)]
    named = outcomes(runs).assign(
        design=[ALTERNATING if one else STANDARD for one in alternating | matched],
        group=[NEXT if same else group for same, (group, _) in zip(matched, names, strict=True)],
        arm=[CONSTANT if same else arm for same, (_, arm) in zip(matched, names, strict=True)],
    )
    tidy.check_once(named, "arm", "design", "depth")
    named = named.assign(rank=named["group"].map([REFERENCE, *GROUPS].index))
    return named.sort_values(["rank", "arm", "depth", "seed"], ignore_index=True).drop(columns="rank")


def of_design(frames: Frames, design: str) -> Frames:
    """Return the frames of one design's runs alone."""
    named = _arms(frames["runs"])
    return of_runs(frames, named.loc[named["design"] == design, "run_id"])


def _name(shortcut: str, adapter: str | None) -> tuple[str, str]:
    """Return the group and the name of a network with alternating widths, or with the standard ones."""
    if shortcut == "none" or not isinstance(adapter, str):
        return NEXT, PLAIN
    parts, base = ModelSpec.model_validate({"adapter": adapter}).adapter, AdapterSpec()
    assert parts
    # where channels only grow there is no shrinking part, and where they fit no growing one
    changed = [key for key in PARTS if getattr(parts, key) not in (getattr(base, key), None)]
    words = [str(getattr(parts, key)).replace("norm=true", "").removesuffix(":") for key in changed]
    words += ["everywhere"] if parts.where != base.where else []
    if not words:
        return REFERENCE, str(base)
    if len(words) == 1 and changed:
        return changed[0], f"{changed[0]}: {words[0]}"  # a name such as zero is that of several parts
    return "several", " + ".join(words)


def _gains(named: pd.DataFrame, measured: pd.DataFrame | None) -> pd.DataFrame:
    """Return the gain of the composed shortcut after the last block by arm and depth, the geometric mean over seeds."""
    if measured is None:
        return pd.DataFrame({"arm": [], "depth": [], "gain": []}).astype({"arm": object, "depth": int, "gain": float})
    last = measured.sort_values("block").groupby("run_id")["gain"].last().rename("gain")
    with np.errstate(divide="ignore"):
        logs = named[["run_id", "arm", "depth"]].merge(np.log(last), left_on="run_id", right_index=True)
    return np.exp(logs.groupby(["arm", "depth"], sort=False)["gain"].mean()).reset_index()


def _networks(named: pd.DataFrame, gains: pd.DataFrame) -> pd.DataFrame:
    """Return a row per arm and depth: what it costs, its gain, and the means of its outcomes over seeds that finished.

    learned: its adapters have parameters. left_out: its composed shortcut lets nothing through, at any depth.
    """
    grouped = named.groupby(["group", "arm", "depth"], sort=False)
    table = grouped.agg(
        width=("width", "first"),
        parameters=("parameters", "max"),
        multiply_adds=("multiply_adds", "max"),
        seeds=("seed", "nunique"),
        diverged=("status", tidy.diverged),
        **{outcome: (outcome, "mean") for outcome in OUTCOMES},
    ).reset_index()
    table = table.merge(gains, on=["arm", "depth"], how="left")
    is_way = ~table["group"].isin([NEXT, REFERENCE])
    base = table[table["group"] == REFERENCE].set_index("depth")["parameters"]
    table["learned"] = is_way & (table["parameters"] > table["depth"].map(base)).groupby(table["arm"]).transform("any")
    table["left_out"] = is_way & (table["gain"] == 0).groupby(table["arm"]).transform("all")
    return table


def _values(named: pd.DataFrame) -> pd.DataFrame:
    """Return a row per arm and seed: group, arm, seed, and each outcome averaged over depths."""
    return _averaged(named, ["group", "arm", "seed"], named["depth"].nunique())


def _averaged(rows: pd.DataFrame, by: list[str], count: int) -> pd.DataFrame:
    """Return the outcomes' means by these columns; nan where there are fewer than `count` values."""
    grouped = rows.groupby(by, sort=False)[list(OUTCOMES)]
    return grouped.mean().where(grouped.count() == count).reset_index()


def _means(values: pd.DataFrame, networks: pd.DataFrame) -> pd.DataFrame:
    """Return the means over learned ways, and over those that leave the shortcut out, as further arms."""
    parts = []
    for name, column in ((LEARNED, "learned"), (LEFT_OUT, "left_out")):
        arms = list(networks.loc[networks[column], "arm"].unique())
        rows = values[values["arm"].isin(arms)]
        if len(rows):
            parts.append(_averaged(rows, ["seed"], len(arms)).assign(group="mean", arm=name))
    return pd.concat(parts) if parts else values.head(0)


def _ways(values: pd.DataFrame, networks: pd.DataFrame, margin: float, images: pd.Series) -> pd.DataFrame:
    """Return each arm's difference from the reference in every outcome, and whether its test error is equivalent."""
    base = values[values["group"] == REFERENCE].set_index("seed")
    left_out = networks.groupby("arm")["left_out"].any()
    rows = []
    for (group, arm), own in values[values["group"] != REFERENCE].groupby(["group", "arm"], sort=False):
        row: dict[str, Any] = {"group": group, "arm": arm, "left_out": bool(left_out.get(arm, False))}
        own = own.set_index("seed")
        for outcome in OUTCOMES:
            row |= stats.mean_of(own[outcome] - base[outcome]).cells(outcome)
        same = tidy.same_test_error(own["test_error"], base["test_error"], margin, images)
        rows.append({**row, "margin": margin, "same_test_error": same})
    if not rows:
        raise SpecError("no run to compare with the reference is among these")
    return pd.DataFrame(rows)


def _correlations(named: pd.DataFrame, networks: pd.DataFrame, primary: str) -> pd.DataFrame:
    """Return, by seed, the rank correlation over ways of |log gain| with the outcome's difference, mean over depths."""
    ways = networks[~networks["group"].isin([NEXT, REFERENCE]) & networks["gain"].notna()]
    with np.errstate(divide="ignore"):
        distance = np.abs(np.log(ways.set_index(["depth", "arm"])["gain"]))
    rows = []
    for (depth, seed), own in named.groupby(["depth", "seed"]):
        values = own.set_index("arm")[primary]
        ranked = distance[distance.index.get_level_values("depth") == depth].droplevel("depth")
        if len(ranked) > 2 and ranked.nunique() > 1 and values.reindex(ranked.index).notna().all():
            rows.append({"seed": seed, "rho": ranked.rank().corr(values[ranked.index].rank())})
    means = pd.DataFrame(rows, columns=["seed", "rho"]).groupby("seed")["rho"].mean()
    return means.reset_index()


def symbols(tables: Tables, settings: MismatchSettings) -> Mapping[str, Any]:
    """Return the reference, the arms that are compared with it, and whether all ways of a part are the same."""
    values, ways = tables["outcomes"], tables["ways"]
    [reference] = values.loc[values["group"] == REFERENCE, "arm"].unique()
    own = {"reference": reference, "arms": tuple(ways["arm"]), "margin": ways["margin"].iloc[0]}
    for part in PARTS:
        judged = ways[(ways["group"] == part) & ~ways["left_out"]]
        own[f"{part}_ways"] = tuple(judged["arm"])
        own[f"same_{part}"] = bool((judged["same_test_error"] == "equivalent").all())
    return own


def extras(tables: Tables, settings: MismatchSettings) -> Mapping[str, Sequence[Contrast]]:
    """Return each arm's difference from the reference."""
    return {"effects": (contrast(PRIMARY, {"arm": "{arm}"}, BASE, over=("arm",), where={"arm": "{arms}"}),)}


def comment(findings: Findings) -> list[str]:
    """Return how the ways compare with the plain twin and with each other."""
    ways, lines = findings.tables["ways"], []
    primary = str(findings.settings.primary)  # type: ignore[attr-defined]
    free = ways[~ways["group"].isin([NEXT, "mean"]) & ~ways["left_out"]]
    ranked = free.dropna(subset=[primary]).sort_values(primary)
    if len(ranked) > 1:
        best, worst = (tidy.estimate(row, primary) for row in (ranked.iloc[0], ranked.iloc[-1]))
        lines.append(
            f"{OUTCOMES[primary]}, difference from the reference: the best way ({ranked['arm'].iloc[0]}) "
            f"{best.with_interval}, the worst ({ranked['arm'].iloc[-1]}) {worst.with_interval}."
        )
    status = list(free["same_test_error"])
    lines.append(
        f"In test error {status.count('equivalent')} of {len(status)} ways are equivalent to the reference "
        f"(±{ways['margin'].iloc[0]:g} points, each by itself), {status.count('not shown')} are not shown to be, and "
        f"{status.count('at the floor')} are as near to 0 % as it is."
    )
    if lost := int(findings.tables["networks"]["diverged"].sum()):
        lines.append(f"{lost} runs diverged and are in no mean.")
    return lines


def _matters(part: str, what: str) -> Claim:
    return Claim(
        key=f"{part}-matters",
        says=f"The way matters: {what}",
        expected=0,
        first=contrast(PRIMARY, {"arm": "{arm}"}, BASE, over=("arm",), where={"arm": f"{{{part}_ways}}"}),
        rule=AnyDiffers(f"{{same_{part}}}"),
    )


def _against(key: str, says: str, arm: str, expected: Literal[-1, 1]) -> Claim:
    return Claim(key=key, says=says, expected=expected, first=contrast(PRIMARY, {"arm": arm}, BASE))


CLAIMS = (
    _against("works", "Modifying the input works: {reference} trains better than no shortcuts", PLAIN, +1),
    _matters("spatial", "map size"),
    _matters("grow", "growing channels"),
    _matters("shrink", "shrinking channels"),
    _against("learned-better", "Learned adapters are better than the reference", LEARNED, -1),
    _against("leaving-out-costs", "Leaving the shortcut out at the mismatch costs", LEFT_OUT, +1),
    _against("constant-width-better", "Constant width is better at equal multiply-adds", CONSTANT, -1),
    Claim(
        key="gain-costs",
        says="Gains away from 1 cost",
        expected=+1,
        first=contrast("rho", {}),
        family="gain",
    ),
)

PROBE = Probe(
    plan=plan,
    tables=tables,
    claims=CLAIMS,
    settings=MismatchSettings,
    figures=("mismatch",),
    shown=("networks", "ways"),
    measures={"composed": Measure(measure_gain, no_shortcut, keys=("images",))},
    labels={**OUTCOMES, "rho": "rank correlation of |log gain| with the outcome, over ways"},
    extras=extras,
    symbols=symbols,
    comment=comment,
    limits="Beyond this data, these depths and this recipe nothing is claimed.",
    chooses=("shortcut",),
)
