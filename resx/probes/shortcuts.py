"""Shortcuts: could another function than the identity be used, fixed beforehand or learned (question 2, on images)?

Question. A block computes x + F(x). What if M x + F(x), a gate, noise or a learned scale takes its place; does it help
to know what blocks do to their input, and can the function be learned? Identity Mappings (He et al. 2016b, table 1)
compared eleven functions in the original order, at one depth, on CIFAR-10.

Method. The same network, seed and batches with each shortcut function of the registry: constants α with and without
scaling the branch by 1−α; fixed maps (negation, permutation, orthogonal, Gaussian of the identity's norm, low rank);
learned scalar, channel scale and 1×1 map, from the identity and from elsewhere; gates; dropout; and `fitted`: each
block's best linear map in a trained network of the same depth, order and seed, frozen, in a network trained from the
seed's own initial weights. `compute` is the cost of training, the donor included, in runs of the identity network. Also
measured: the spectrum of the shortcut path at initialisation, the largest factor by which the composed shortcuts can
make a signal or a gradient grow, and how much of what blocks add is parallel to what they add to
(`resx/measurements/gain.py` and `parallel.py` give the papers). All in two orders: after a ReLU x is not negative, so
relu(−x + F) throws the shortcut away and a rotation loses about half of it. The pre-activation order answers the
question; table 1 used the original one. `--shortcut NAME`, also of a `--plugin` file, compares that one alone with the
identity and with none; `--order` takes one order only; a grid may hold several functions, orders and depths. A function
that costs more than the identity can be compared at equal parameters, in a [[grid]] with another width.

Primary outcome. log10 of the final training loss (eval mode, all training images), since most errors are 0 % on small
data; errors are shown too. Differences from the identity are paired by seed. Claims are about the greatest depth and
the first order; the planned contrasts of all depths and orders are one family. Functions asked for by name are judged
one by one, in another family; in a survey of many the ranking shows each, with p from the family of its order and
depth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from resx import paper, stats
from resx.claims import DEEP, SHALLOW, Cell, Claim, Contrast, contrast, interaction
from resx.probes import Findings, Frames, Measure, Probe, Request, Settings, Tables, tidy
from resx.probes.tidy import OUTCOMES, Outcome, outcomes, without_blocks
from resx.spec import RunSpec, SpecError, parse_part

if TYPE_CHECKING:
    from resx.measurements.inputs import Specimen

ORDERS = {"pre": "pre-activation order", "post": "original order"}  # the one that answers first
BASELINES = ("none", "identity")
DEPTH = 32  # with 20 layers plain networks of the pre-activation order still train on digits, with 32 no longer as well
IMAGES, MANY = 8, 64  # whose shortcut paths are measured, and whose blocks' outputs
NAMED, RANKED = 12, 6  # the most functions that are asked for by name; the fewest whose ranking can be explained
KINDS = ("constant", "fixed", "learned", "gated", "noisy", "fitted", "other")  # that a function may state
PREDICTORS = {"distance": "distance from an isometry", "log10_gain": "|log10 gain|"}  # columns of `spectra`
EXPLAINS = 0.5  # a rank correlation from which on a predictor is said to explain the ranking
CELL = ["order", "depth"]
# learned functions by where they start, in pairs, and isometries that a ReLU cuts
AT_IDENTITY = ("learned-scalar:start=1.0", "learned-channels:start=1.0", "conv:init=identity")
ELSEWHERE = ("learned-scalar:start=0.0", "learned-channels:start=0.0", "conv:init=he")
CUT = ("negation", "orthogonal")
FITTED, FITTED_TO_PLAIN = "fitted to residual", "fitted to plain"
# this project's functions in the words of Identity Mappings' table 1
TABLE_1 = {
    "identity": "identity",
    "none": "0 (plain)",
    "scaled:alpha=0.5": "0.5, branch unscaled",
    "convex:alpha=0.5": "0.5, branch 0.5",
    "exclusive-gate:bias=0.0": "exclusive gating, bias 0 to -5",
    "exclusive-gate:bias=-6.0": "exclusive gating, bias -6",
    "shortcut-gate:bias=0.0": "shortcut-only gating, bias 0",
    "shortcut-gate:bias=-6.0": "shortcut-only gating, bias -6",
    "conv:init=he": "1x1 convolution",
    "dropout:rate=0.5": "dropout 0.5",
}
PRIMARY, ORDER, OTHER = "{primary}", "{order}", "{other}"
PLANNED, SINCE = "planned contrasts", "shortcuts since 2016"
# what the claims since 2016 are about: both sides of a contrast in the pre-activation order, at each depth
DOUBLY_STOCHASTIC, MIXING = "doubly-stochastic:groups=4,start=-8.0", "mixing:groups=4"
HYPER, HYPER_DOUBLY_STOCHASTIC = "hyper:streams=4", "hyper-doubly-stochastic:streams=4,start=-8.0"
DEEP_GATE, GATE_OF_2016 = "{deep gate}", "exclusive-gate:bias=-6.0"


class ShortcutsSettings(Settings):
    """primary: the outcome that is judged. margin: of equivalence in test error (points). donors: shortcuts of the
    networks that maps are fitted to.
    """

    primary: Outcome = "log10_train_loss"
    margin: float = Field(1.0, gt=0)
    donors: tuple[str, ...] = ("identity", "none")


def plan(request: Request) -> list[RunSpec]:
    """Return every shortcut in both orders; one that comes from a trained network once per donor, itself trained."""
    _check_donors(request.settings.donors)
    specs = [spec for grid in request.grids for spec in _plan_grid(request, grid)]
    tidy.check_margin(request.settings.margin, specs)
    return specs


def _plan_grid(request: Request, grid: Mapping[str, Sequence[Any]]) -> list[RunSpec]:
    default = {"shortcut": registered(), "order": ORDERS, "depth": [DEPTH]}
    axes = {
        key: list(grid.get(key) or ([request.base[key]] if key in request.base else values))
        for key, values in default.items()
    }
    rest = {key: list(values) for key, values in grid.items() if key not in (*axes, "seed")}
    if several := [key for key, values in rest.items() if len(values) > 1]:
        raise SpecError(f"[grid] {several[0]}: this probe compares shortcuts at one {several[0]}; give one value")
    base = {**request.base, **{key: values[0] for key, values in rest.items()}}
    baselines = BASELINES if not rest or len(request.grids) == 1 else ()  # otherwise another grid has them
    from_donor = [text for text in axes["shortcut"] if _transform(text)]
    donors = request.settings.donors if from_donor else ()
    others = dict.fromkeys([*baselines, *donors, *(text for text in axes["shortcut"] if text not in from_donor)])
    specs: list[RunSpec] = []
    for depth, order, seed in product(axes["depth"], axes["order"], grid.get("seed", request.seeds)):
        cell = {**base, "depth": depth, "order": order, "seed": seed}
        twins = request.resolve([{**cell, "shortcut": text} for text in others])
        ids = {text: twin.run_id for text, twin in zip(others, twins, strict=True)}
        specs += twins
        specs += request.resolve(
            [
                {**cell, "shortcut": text, "init_from": {"run": ids[donor], "transform": _transform(text)}}
                for text in from_donor
                for donor in donors
            ]
        )
    return specs


def registered() -> list[str]:
    """Return the texts of all shortcuts that state a kind, with each of their examples."""
    from resx.model import SHORTCUTS

    return [
        f"{name}:{example}".removesuffix(":")
        for name in SHORTCUTS
        if hasattr(SHORTCUTS[name], "kind")
        for example in getattr(SHORTCUTS[name], "examples", ("",))
    ]


def _check_donors(donors: Sequence[str]) -> None:
    from resx.model import SHORTCUTS

    errors = [f"setting 'donors': {line}" for donor in donors for line in SHORTCUTS.check(donor)]
    if not errors:
        errors = [f"setting 'donors': '{donor}' needs a donor itself" for donor in donors if _transform(donor)]
    if errors:
        raise SpecError(errors)


def _transform(text: str) -> str | None:
    return _stated(text, "transform")


def _stated(text: str, attribute: str) -> str | None:
    """Return what a shortcut's factory states of itself, None where it states nothing or is not loaded."""
    from resx.model import SHORTCUTS

    name = parse_part(text)[0]
    return getattr(SHORTCUTS[name], attribute, None) if name in SHORTCUTS else None


def measure(specimen: Specimen, settings: ShortcutsSettings) -> pd.DataFrame:
    """Measure the spectrum of a run's shortcut path at initialisation, in float64, with batch statistics."""
    import torch

    from resx.measurements.spectrum import spectrum

    x, _ = specimen.sample(IMAGES, dtype=torch.float64)
    return spectrum(specimen.network(len(x), 0, dtype=torch.float64), x)


def measure_gain(specimen: Specimen, settings: ShortcutsSettings) -> pd.DataFrame:
    """Measure the gain of the composed shortcut map as in `measure`, before (step 0) and after training."""
    import torch

    from resx.measurements.gain import amax_gain

    steps = dict.fromkeys((0, specimen.last_step()))
    return specimen.followed(lambda network, x, y: amax_gain(network, x), steps, IMAGES, dtype=torch.float64)


def measure_parallel(specimen: Specimen, settings: ShortcutsSettings) -> pd.DataFrame:
    """Measure how much of what blocks add is parallel to what they add to, after training, with batch statistics."""
    from resx.measurements.parallel import parallel_share

    x, _ = specimen.sample(MANY)
    return parallel_share(specimen.network(len(x)), x)


def _has_shortcuts(spec: RunSpec, settings: ShortcutsSettings) -> bool:
    return spec.model.shortcut != "none"


def tables(frames: Frames, settings: ShortcutsSettings) -> dict[str, pd.DataFrame]:
    """Return, by order and depth, functions ranked by their difference from the identity, their errors and compute,
    and, where spectra are measured, what these explain of the ranking; `outcomes` has a row a run.
    """
    runs = _paired(_named(frames["runs"]), settings.primary)
    ranking = _ranking(runs)
    columns = ["run_id", "shortcut", "kind", *CELL, "seed", *OUTCOMES, "difference"]
    own = {"ranking": ranking, "errors": _errors(runs, ranking, settings.margin), "outcomes": runs[columns]}
    own |= {"paths": paths} if len(paths := _paths(frames, runs)) else {}
    if not len(frames.get("spectrum", ())):
        return own
    spectra = _spectra(frames["spectrum"], runs)
    correlations = _correlations(spectra, settings.primary)
    means = spectra.groupby([*CELL, "shortcut", "kind"], sort=False)[["gain", "directions", *PREDICTORS]].mean()
    own |= {"spectra": means.reset_index(), "correlations": correlations}
    if len(correlations):
        own["predictors"] = tidy.summary(correlations, [*CELL, "predictor"], ["rho"])
    return own


def _named(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs that are classifications by blocks, the first order first, with their `kind`.

    A map that comes from a trained network is named with its donor: fitted to residual; one whose donor is not among
    these runs, with the donor's id; one whose width is not the identity's, with its width. Raises SpecError where runs
    differ in the recipe.
    """
    names = runs.set_index("run_id")["shortcut"].to_dict()
    runs = runs[runs["order"].isin(list(ORDERS)) & (runs["train_error"].notna() | (runs["status"] == "diverged"))]
    if runs.empty:
        raise SpecError("no run with an outcome classifies by residual blocks; `resx probe shortcuts` makes some")
    tidy.check_alike(runs, ("order", "init_from", "width"))
    usual = set(runs["width"][runs["shortcut"] == "identity"])
    donors: list[Any] = [getattr(start, "run", None) for start in runs["init_from"]]
    named = outcomes(runs).assign(
        kind=[_stated(text, "kind") or "other" for text in runs["shortcut"]],
        donor=donors,
        shortcut=[
            (text if donor is None else f"{text} to {tidy.kind_name(names.get(donor, donor))}")
            + ("" if not usual or width in usual else f", width {width:g}")
            for text, donor, width in zip(runs["shortcut"], donors, runs["width"], strict=True)
        ],
    )
    rank = named["order"].map(list(ORDERS).index)
    return named.assign(rank=rank).sort_values(["rank", "depth"], kind="stable", ignore_index=True)


def _paired(runs: pd.DataFrame, primary: str) -> pd.DataFrame:
    """Return the runs with what each has more of than the identity's of its seed: `difference`, `test_difference`.

    Raises SpecError where two runs are the same network, or where there is none with the identity.
    """
    key = [*CELL, "seed"]
    tidy.check_once(runs, "shortcut", *CELL)
    for (order, depth), names in runs.groupby(CELL, sort=False)["shortcut"]:
        if "identity" not in set(names):
            raise SpecError(f"no run with the identity to compare with: {ORDERS[str(order)]}, {depth} layers")
    identity = runs.loc[runs["shortcut"] == "identity", [*key, primary, "test_error"]]
    own = runs[key].merge(identity.set_axis([*key, "difference", "test_difference"], axis=1), on=key, how="left")
    return runs.assign(
        difference=runs[primary] - own["difference"], test_difference=runs["test_error"] - own["test_difference"]
    )


def _ranking(runs: pd.DataFrame) -> pd.DataFrame:
    """Return a row per function, the best first, those without a number last; p is that of its order and depth."""
    parts = []
    for (order, depth), cell in runs.groupby(CELL, sort=False):
        own = {str(name): group for name, group in cell.groupby("shortcut", sort=False)}
        differences = {name: group.set_index("seed")["difference"] for name, group in own.items() if name != "identity"}
        judged = stats.judge_family(differences)
        judged["identity"] = replace(stats.NOTHING, mean=0.0)
        rows = []
        for name, group in own.items():
            one = judged.get(name, stats.NOTHING)
            row = {"order": order, "depth": depth, "shortcut": name, "kind": group["kind"].iloc[0]}
            row |= {"seeds": len(group), "diverged": tidy.diverged(group["status"])}
            rows.append(row | one.cells("difference") | {"p": np.nan if one.p is None else one.p})
        table = pd.DataFrame(rows).sort_values("difference", na_position="last", kind="stable")
        table.insert(2, "rank", np.arange(1, len(table) + 1))
        parts.append(table)
    return pd.concat(parts, ignore_index=True)


def _errors(runs: pd.DataFrame, ranking: pd.DataFrame, margin: float) -> pd.DataFrame:
    """Return errors in percent and what training costs in runs of the identity network, in the order of the ranking."""
    cost = runs.set_index("run_id")["multiply_adds"].to_dict()
    own = dict(iter(runs.groupby([*CELL, "shortcut"])))
    rows = []
    for order, depth, name in ranking[[*CELL, "shortcut"]].itertuples(index=False):
        group, identity = own[order, depth, name], own[order, depth, "identity"]
        total = float(group["multiply_adds"].iloc[0]) + cost.get(group["donor"].iloc[0], 0.0)
        row = {"order": order, "depth": depth, "shortcut": name}
        row |= {key: group[key].mean() for key in ("train_error", "test_error")}
        if name != "identity":
            row |= _test_difference(group, identity, margin)
        published = _published(name) if order == "post" else None
        rows.append({**row, "compute": total / float(identity["multiply_adds"].iloc[0]), "table_1": published})
    return pd.DataFrame(rows)


def _test_difference(group: pd.DataFrame, identity: pd.DataFrame, margin: float) -> dict[str, Any]:
    """Return the paired difference in test error and, where no seed lacks it, whether it is equivalent to none."""
    row: dict[str, Any] = stats.mean_of(group["test_difference"]).cells("test_difference")
    if group["test_difference"].isna().any():
        return row
    own, base = (rows.set_index("seed")["test_error"] for rows in (group, identity))
    return {**row, "same_test_error": tidy.same_test_error(own, base, margin, group["test_images"])}


def _published(shortcut: str) -> str | None:
    """Return Identity Mappings' test error of a function (CIFAR-10, 110 layers), None where it has none."""
    row = paper.IDENTITY_TABLE_1.get(TABLE_1.get(shortcut, ""))
    if row is None:
        return None
    return "> 20 %" if np.isnan(row.value) else f"{row.value:.2f} %"


def _spectra(measured: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Return a row per run: its columns, the summary of its spectrum, and the PREDICTORS."""
    from resx.measurements.spectrum import FLOOR
    from resx.measurements.spectrum import summary as summary_of

    table = measured.groupby("run_id")[["image", "value"]].apply(summary_of).reset_index()
    table["log10_gain"] = np.log10(table["gain"].clip(lower=FLOOR)).abs()
    return runs.merge(table, on="run_id")


def _paths(frames: Frames, runs: pd.DataFrame) -> pd.DataFrame:
    """Return what the composed shortcut does, and what blocks add along it, by order, depth and function.

    forward, backward: the gain after training, a mean over images and seeds; forward_start: before it. parallel: the
    share of ‖F‖² along x at each position, a mean over blocks and seeds; sign: the cosine, below 0 where F shortens x.
    """
    own = {}
    if len(gain := frames.get("gain", pd.DataFrame())):
        by_run = gain.groupby(["run_id", "step"])[["forward", "backward"]].mean().reset_index()
        start, end = (by_run.groupby("run_id").nth(place).set_index("run_id") for place in (0, -1))
        own = {"forward_start": start["forward"], "forward": end["forward"], "backward": end["backward"]}
    if len(parallel := frames.get("parallel", pd.DataFrame())):
        means = parallel.groupby("run_id")[["position", "sign"]].mean()
        own |= {"parallel": means["position"], "sign": means["sign"]}
    table = runs.merge(pd.DataFrame(own), left_on="run_id", right_index=True)
    return table.groupby([*CELL, "shortcut"], sort=False)[list(own)].mean().reset_index()


def _correlations(spectra: pd.DataFrame, primary: str) -> pd.DataFrame:
    """Return Spearman's correlation over functions of each predictor with the outcome: order, depth, seed, predictor,
    rho. Where it is not defined, or there are too few functions, there is no row.
    """
    rows = []
    for (order, depth, seed), group in spectra.groupby([*CELL, "seed"], sort=False):
        for column, name in PREDICTORS.items():
            if len(group) >= RANKED and group[primary].nunique() > 2 and group[column].nunique() > 1:
                rho = group[column].corr(group[primary], method="spearman")
                rows.append({"order": order, "depth": depth, "seed": seed, "predictor": name, "rho": rho})
    return pd.DataFrame(rows, columns=[*CELL, "seed", "predictor", "rho"])


def symbols(tables: Tables, settings: ShortcutsSettings) -> Mapping[str, Any]:
    """Return the orders among the runs, and the functions over which a claim takes a mean."""
    functions = tables["outcomes"].drop_duplicates("shortcut").set_index("shortcut")["kind"].to_dict()
    orders = [order for order in ORDERS if order in set(tables["outcomes"]["order"])]
    own = [name for name in functions if name not in (*BASELINES, FITTED, FITTED_TO_PLAIN)]  # these have a claim
    pairs = [pair for pair in zip(AT_IDENTITY, ELSEWHERE, strict=True) if set(pair) <= set(functions)]
    return {
        "order": orders[0],
        "other": orders[-1] if len(orders) > 1 else "",
        "order_name": ORDERS[orders[0]],
        "asked": tuple(own) if len(own) <= NAMED else (),
        "fixed maps": tuple(name for name, kind in functions.items() if kind == "fixed"),
        "learned maps": tuple(name for name in AT_IDENTITY if name in functions),
        "learned from elsewhere": tuple(pair[1] for pair in pairs),
        "learned from the identity": tuple(pair[0] for pair in pairs),
        "negated or rotated": tuple(name for name in CUT if name in functions),
        "deep gate": tuple(name for name in map(str, functions) if name.startswith("highway:") and ", width" in name),
    }


def _against(shortcut: str, minus: str = "identity", order: str = ORDER, depth: str = DEEP, **more: Any) -> Contrast:
    """Return the difference of a function from another one in the same order, at the same depth."""
    return contrast(PRIMARY, *_pair((shortcut, minus), order, depth), **more)


def _pair(names: tuple[str, str], order: str, depth: str) -> tuple[Cell, Cell]:
    at = {"order": order, "depth": depth}
    return {"shortcut": names[0], **at}, {"shortcut": names[1], **at}


def _explained(predictor: str, order: str = ORDER, depth: str = DEEP, **more: Any) -> Contrast:
    return contrast("rho", {"predictor": predictor, "order": order, "depth": depth}, EXPLAINS, **more)


def _cut(depth: str = DEEP, **more: Any) -> Contrast:
    """Return what the original order costs negated and rotated shortcuts more than it costs the identity."""
    names = "{negated or rotated}", "identity"
    post, pre = (_pair(names, order, depth) for order in ("post", "pre"))
    return interaction(PRIMARY, post, pre, **more)


CONTRASTS = (
    ("{fixed maps}", "identity"),
    (FITTED, "identity"),
    (FITTED_TO_PLAIN, "identity"),
    ("{learned maps}", "identity"),
    ("{learned from elsewhere}", "{learned from the identity}"),
)


def extras(tables: Tables, settings: ShortcutsSettings) -> Mapping[str, Sequence[Contrast]]:
    """Return the planned contrasts in every order and at every depth."""
    each, everywhere = {"order": "{order}", "depth": "{depth}"}, ("order", "depth")
    return {
        PLANNED: (
            *(_against(*names, **each, over=everywhere) for names in CONTRASTS),
            _cut("{depth}", over=("depth",)),
            *(_explained(name, **each, over=everywhere) for name in PREDICTORS.values()),
        )
    }


def comment(findings: Findings) -> list[str]:
    """Return the identity's place in each order and depth, what diverged, and how table 1 compares."""
    lines = []
    for (order, depth), ranking in findings.tables["ranking"].groupby(CELL, sort=False):
        place = int(ranking.loc[ranking["shortcut"] == "identity", "rank"].iloc[0])
        surely = ranking[ranking["p"] <= stats.ALPHA]
        better = list(surely.loc[surely["difference"] < 0, "shortcut"])
        worse = int((surely["difference"] > 0).sum())
        lines.append(
            f"{ORDERS[str(order)]}, {depth} layers: the identity ranks {place} of {len(ranking)}; after adjustment for "
            f"all of them {', '.join(better) or 'no function'} trained better and {worse or 'no'} trained worse."
        )
        if len(lost := ranking.loc[ranking["diverged"] > 0, "shortcut"]):
            lines.append(f"Diverged in some seed: {', '.join(lost)}.")
        if order == "post":
            lines += _against_table_1(ranking)
    return lines


def _against_table_1(ranking: pd.DataFrame) -> list[str]:
    rows = ranking[ranking["shortcut"].isin(list(TABLE_1)) & (ranking["shortcut"] != "identity")]
    agree = rows["difference"].isna() | (rows["difference"] > 0)
    others = ", ".join(rows.loc[~agree, "shortcut"])
    line = (
        f"Identity Mappings (table 1) has {len(rows)} of these functions, all worse than the identity in test error; "
        f"here {int(agree.sum())} have the worse mean too{f', but not {others}' if others else ''}."
    )
    return [line] if len(rows) > 1 else []  # one is the plain network


def _planned(key: str, says: str, expected: Literal[-1, 1], names: tuple[str, str], *beside: tuple[str, str]) -> Claim:
    """Return a claim on a planned contrast in the first order; next to it the other order, and further contrasts."""
    others = [_against(*names, order=OTHER)]
    others += [_against(*more, order=order) for more in beside for order in (ORDER, OTHER)]
    says = f"{says} ({{order_name}}, {DEEP} layers)"
    return Claim(key, says, expected, _against(*names), tuple(others), family=PLANNED)


def _since(key: str, says: str, shortcut: str, minus: str = "identity") -> Claim:
    """Return a claim on a function published since 2016, at each depth; next to it what depth makes of the contrast."""
    deep, shallow = (_pair((shortcut, minus), ORDER, depth) for depth in (DEEP, SHALLOW))
    return Claim(
        key=key,
        says=f"{says} ({{order_name}})",
        expected=-1,
        first=_against(shortcut, minus, depth="{depth}", over=("depth",)),
        beside=(interaction(PRIMARY, deep, shallow),),
        family=SINCE,
    )


CLAIMS = (
    Claim(
        key="asked",
        says=f"{{shortcut}} trains better than the identity ({{order_name}}, {DEEP} layers)",
        expected=-1,
        first=_against("{shortcut}", over=("shortcut",), where={"shortcut": "{asked}"}),
        beside=(_against("{shortcut}", order=OTHER),),
        family="functions asked for",
        each=True,
    ),
    _planned("fixed-maps-worse", "Fixed maps other than the identity train worse", +1, CONTRASTS[0]),
    _planned(
        "known",
        "A map fitted to a trained residual network beats the identity",
        -1,
        CONTRASTS[1],
        CONTRASTS[2],
    ),
    _planned("learned", "A learned shortcut that starts at the identity beats it", -1, CONTRASTS[3]),
    _planned("start-matters", "A learned shortcut that starts elsewhere trains worse", +1, CONTRASTS[4]),
    Claim(
        key="relu-cuts",
        says=f"In the original order the ReLU throws a negated or rotated shortcut away ({DEEP} layers)",
        expected=+1,
        first=_cut(),
        family=PLANNED,
    ),
    Claim(
        key="spectrum-explains",
        says="The spectrum of the shortcuts at initialisation explains which functions train "
        f"({{order_name}}, {DEEP} layers)",
        expected=+1,
        first=_explained(PREDICTORS["distance"]),
        beside=(
            _explained(PREDICTORS["distance"], order=OTHER),
            *(_explained(PREDICTORS["log10_gain"], order=order) for order in (ORDER, OTHER)),
        ),
        family=PLANNED,
    ),
    _since(
        "constraint-helps",
        "Doubly stochastic mixing of channel groups trains better than free mixing",
        DOUBLY_STOCHASTIC,
        MIXING,
    ),
    _since(
        "doubly-stochastic-better",
        "Doubly stochastic mixing of channel groups trains better than the identity",
        DOUBLY_STOCHASTIC,
    ),
    _since(
        "perpendicular-better",
        "Adding only what is perpendicular to x trains better than the identity",
        "perpendicular:over=position",
    ),
    _since("delta-better", "The delta rule trains better than the identity", "delta:beta=1.0"),
    _since(
        "deep-gate-helps",
        "A gate as deep as its branch trains better than the gate of 2016, at as many parameters",
        DEEP_GATE,
        GATE_OF_2016,
    ),
    _since(
        "deep-gate-better",
        "A gate as deep as its branch trains better than the identity, at as many parameters",
        DEEP_GATE,
    ),
    _since("streams-help", "Streams train better than the same mixing without streams", HYPER, MIXING),
    _since(
        "constrained-streams-help",
        "Streams train better than the same mixing without streams, both doubly stochastic",
        HYPER_DOUBLY_STOCHASTIC,
        DOUBLY_STOCHASTIC,
    ),
)

PROBE = Probe(
    plan=plan,
    tables=tables,
    claims=CLAIMS,
    settings=ShortcutsSettings,
    figures=("shortcuts", "shortcut-spectrum"),
    shown=("ranking", "errors", "paths", "predictors"),
    drawn=("spectra",),
    measures={
        "spectrum": Measure(measure, without_blocks, diverged=True),
        "gain": Measure(measure_gain, without_blocks, diverged=True, wants=_has_shortcuts),
        "parallel": Measure(measure_parallel, without_blocks, wants=_has_shortcuts),
    },
    labels={**OUTCOMES, "rho": "rank correlation with the outcome"},
    extras=extras,
    symbols=symbols,
    comment=comment,
    limits=(
        "It does not settle other depths, data or recipes; the recipe was chosen for the identity, and a function that "
        "needs another rate or more steps is not given them."
    ),
)
