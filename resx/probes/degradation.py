"""Degradation: what does depth do to plain networks, and what to residual ones (He et al. 2016, Figs. 1 and 6,
Table 6)?

Question. The paper's starting point: a deeper plain network has the higher training error, so this is no overfitting;
with identity shortcuts it has the lower one.

Method. Plain and residual networks at several depths, trained on the same batches for as many steps, from the same
initial weights where they share them. Errors are the last iterate's, in eval mode; training error is measured on all
un-augmented training images. Effects are differences within a seed. Each outcome is a family: what depth does to each
kind of network, against the shallowest, and how much more it does to plain ones.

Primary outcome. The final training error; where most networks end at 0 %, log10 of the final training loss
(--set primary=log10_train_loss).

Your own shortcut. Any other shortcut (`--plugin mine.py --shortcut mine`) is paired with the identity at every depth,
and that is answered first: better or worse where the primary outcome differs (p of the family), same where it does not
and the test errors are equivalent within the margin (two one-sided tests), else inconclusive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from resx import paper, stats
from resx.claims import DEEP, SHALLOW, Claim, Contrast, contrast, interaction, plain, residual
from resx.probes import Findings, Frames, Probe, Request, Settings, Tables
from resx.probes.tidy import OUTCOMES, Outcome, arm, check_margin, diverged, kinds, outcomes, same_test_error, summary
from resx.spec import RunSpec, without

BASELINES = ("none", "identity")
ARM_FIELDS = ("adapter", "order", "norm", "width", "widths")  # fields that tell arms with one shortcut apart
PRIMARY, ARM = "{primary}", "{arm}"
DEEPEST = "{deepest}"  # at which the compared kind trains, be it too deep for plain networks
AGAINST_IDENTITY = "against the identity"


class DegradationSettings(Settings):
    """primary: the outcome that is judged. margin: of equivalence in test error (points)."""

    primary: Outcome = "train_error"
    margin: float = Field(1.0, gt=0)


def plan(request: Request) -> list[RunSpec]:
    """Return plain and residual networks, and other shortcuts that are asked for, at depths 20 and 56."""
    grids = []
    for grid in request.grids:
        shortcuts = grid.get("shortcut") or ([request.base["shortcut"]] if "shortcut" in request.base else [])
        grids.append({**grid, "shortcut": list(dict.fromkeys([*BASELINES, *shortcuts]))})
    specs = replace(request, base=without(request.base, "shortcut"), grids=grids).runs(depth=[20, 56])
    if any(spec.model.shortcut not in BASELINES for spec in specs):
        check_margin(request.settings.margin, specs)
    return specs


def tables(frames: Frames, settings: DegradationSettings) -> dict[str, pd.DataFrame]:
    """Return `arms`, each kind's difference from the identity by depth, `networks`, a row per kind and depth, its
    outcomes with their intervals as `depths`, and `outcomes`, a row a run.
    """
    runs = outcomes(frames["runs"]).assign(kind=_arms(frames["runs"]))
    runs = runs.sort_values(["depth", "seed"], kind="stable")
    runs = runs.sort_values("kind", key=lambda kind: kind.map({"plain": 0, "residual": 1}).fillna(2), kind="stable")
    arms = _against_identity(runs, settings)
    return ({"arms": arms} if len(arms) else {}) | {
        "networks": _networks(runs),
        "depths": summary(runs, ["kind", "depth"], list(OUTCOMES)),
        "outcomes": runs[["run_id", "kind", "depth", "seed", *OUTCOMES]],
    }


def _against_identity(runs: pd.DataFrame, settings: DegradationSettings) -> pd.DataFrame:
    """Return a row per kind and depth: its difference from the identity of its seeds, p of all these, and the word."""
    cells = {key: group.set_index("seed") for key, group in runs.groupby(["kind", "depth"], sort=False)}
    pairs = {
        f"{kind}-{depth}": (kind, depth, own, cells["residual", depth])
        for (kind, depth), own in cells.items()
        if kind != "residual" and ("residual", depth) in cells
    }
    judged = stats.judge_family(
        {name: own[settings.primary] - identity[settings.primary] for name, (_, _, own, identity) in pairs.items()}
    )
    rows = []
    for name, (kind, depth, own, identity) in pairs.items():
        one = judged.get(name, stats.NOTHING)
        row = {"kind": kind, "depth": depth, "seeds": one.n, "word": _word(one, own, identity, settings.margin)}
        row |= one.cells("difference") | {"p": np.nan if one.p is None else one.p}
        rows.append(row | stats.mean_of(own["test_error"] - identity["test_error"]).cells("test_difference"))
    return pd.DataFrame(rows)


def _word(
    one: stats.Estimate, own: pd.DataFrame, identity: pd.DataFrame, margin: float
) -> Literal["better", "worse", "same", "inconclusive"]:
    """Return how a kind compares with the identity: from six seeds on, else inconclusive."""
    if one.n < stats.MIN_SEEDS or one.p is None:
        return "inconclusive"
    if one.p <= stats.ALPHA:
        return "better" if one.mean < 0 else "worse"
    alike = same_test_error(own["test_error"], identity["test_error"], margin, own["test_images"])
    return "same" if alike == "equivalent" else "inconclusive"


def _arms(runs: pd.DataFrame) -> pd.Series:
    """Name each run's kind: plain, residual, another shortcut, and whatever else differs among residual runs."""
    names = kinds(runs)
    for column in ARM_FIELDS:
        text = runs[column].astype("string")
        if text[runs["shortcut"] != "none"].nunique(dropna=False) > 1:
            names = names + (", " + text).fillna("")
    return names


def _networks(runs: pd.DataFrame) -> pd.DataFrame:
    """Return a row per network: counts, means and spreads of outcomes, and the paper's test error if comparable."""
    rows = []
    for (kind, depth), group in runs.groupby(["kind", "depth"], sort=False):
        finished = group[group["status"] == "finished"]
        row: dict[str, Any] = {
            "network": f"{kind}-{depth}",
            "seeds": len(group),
            "diverged": diverged(group["status"]),
            "parameters": _count(group["parameters"]),
        }
        for outcome in OUTCOMES:
            row |= {outcome: finished[outcome].mean(), f"{outcome}_std": finished[outcome].std(ddof=1)}
        images = _count(group["test_images"])
        row["test_binomial"] = stats.binomial_error(row["test_error"], images) if len(finished) and images else np.nan
        published = paper.CIFAR_TEST_ERROR.get((str(kind), int(group["depth"].iloc[0])))
        comparable = (group["reference"] == "cifar10").all() and _is_papers_network(group)
        row["paper"] = published.value if published and comparable else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


def _count(counts: pd.Series) -> int | None:
    """Return a number that is the same for all runs of a network, None where their results do not state it."""
    stated = counts.dropna()
    return int(stated.iloc[0]) if len(stated) else None


def _is_papers_network(group: pd.DataFrame) -> bool:
    """Return whether these are the CIFAR networks of Table 6: width 16, option A, original order, batch norm."""
    own = (group["width"] == 16) & (group["order"] == "post") & (group["norm"] == "batch")
    return bool((own & (group["adapter"].isna() | (group["adapter"] == "subsample+pad"))).all())


def symbols(tables: Tables, settings: DegradationSettings) -> Mapping[str, Any]:
    """Return the kind that is compared with plain networks, residual ones where there are any, and all the others.

    deep: the greatest depth at which not all networks of either kind diverged, where there is one. deepest: of the
    compared kind alone, or the greatest there is.
    """
    rows = tables["outcomes"]
    compared = arm(rows)
    trained = [
        set(rows.loc[(rows["kind"] == kind) & rows[settings.primary].notna(), "depth"]) for kind in ("plain", compared)
    ]
    others = tuple(kind for kind in rows["kind"].unique() if kind not in ("plain", compared))
    greatest = {"deep": set.intersection(*trained), "deepest": trained[1] or set(rows["depth"])}
    depths = {name: int(max(there)) for name, there in greatest.items() if there}
    return {"arm": compared, "others": others} | depths


def extras(tables: Tables, settings: DegradationSettings) -> Mapping[str, Sequence[Contrast]]:
    """Return, for each outcome, what each depth does to each kind, and how much more to plain networks; and how plain
    networks compare with the identity at every depth.
    """
    at, base = {"kind": "{kind}", "depth": "{depth}"}, {"kind": "{kind}", "depth": SHALLOW}
    over = ("depth", "kind")
    against = contrast(PRIMARY, plain("{depth}"), residual("{depth}"), over=("depth",))
    return {
        outcome: (
            contrast(outcome, at, base, over=over),
            interaction(outcome, (plain("{depth}"), plain(SHALLOW)), (at, base), over=over),
        )
        for outcome in OUTCOMES
    } | {AGAINST_IDENTITY: (against,)}


def comment(findings: Findings) -> list[str]:
    """Return which networks all diverged, and how kinds that are neither plain nor residual do against the identity."""
    networks = findings.tables["networks"]
    lost = networks[networks["diverged"] == networks["seeds"]]
    lines = [f"{row.network}: all networks diverged ({row.seeds})." for row in lost.itertuples()]
    arms = findings.tables.get("arms", pd.DataFrame({"kind": []}))
    for kind, rows in arms[arms["kind"] != "plain"].groupby("kind", sort=False):
        places = {
            word: ", ".join(map(str, rows.loc[rows["word"] == word, "depth"])) for word in dict.fromkeys(rows["word"])
        }
        words = "; ".join(f"{word} at {depths} layers" for word, depths in places.items())
        lines.append(f"{kind} against the identity: {words}.")
    return lines


def _at_equal_depth(key: str, outcome: str) -> Claim:
    """Return the claim that shortcuts lower an outcome at the greatest depth, over the same steps."""
    return Claim(
        key=key,
        says=f"With shortcuts the {OUTCOMES[outcome]} is lower after the same steps ({DEEP} layers)",
        expected=-1,
        first=contrast(outcome, {"kind": ARM, "depth": DEEP}, plain(DEEP)),
        beside=(contrast(outcome, {"kind": ARM, "depth": SHALLOW}, plain(SHALLOW)),),
        family=f"{outcome} at equal depth",
    )


CLAIMS = (
    Claim(
        key="beats-identity",
        says="{kind} trains better than the identity ({depth} layers)",
        expected=-1,
        first=contrast(
            PRIMARY,
            {"kind": "{kind}", "depth": "{depth}"},
            residual("{depth}"),
            over=("kind", "depth"),
            where={"kind": "{others}"},
        ),
        family=AGAINST_IDENTITY,
        each=True,
    ),
    Claim(
        key="depth-costs-plain-more",
        says=f"Depth costs plain networks more than {ARM} ones ({SHALLOW} to {DEEP} layers)",
        expected=+1,
        first=interaction(
            PRIMARY,
            (plain(DEEP), plain(SHALLOW)),
            ({"kind": ARM, "depth": DEEP}, {"kind": ARM, "depth": SHALLOW}),
        ),
        family=PRIMARY,
    ),
    Claim(
        key="plain-degrades",
        says=f"Plain networks train worse with depth ({DEEP} against {SHALLOW} layers)",
        expected=+1,
        first=contrast(PRIMARY, plain(DEEP), plain(SHALLOW)),
        family=PRIMARY,
    ),
    Claim(
        key="plain-training-error",
        says=f"The deeper plain network has the higher training error ({DEEP} against {SHALLOW} layers)",
        expected=+1,
        first=contrast("train_error", plain(DEEP), plain(SHALLOW)),
        family="train_error",
    ),
    Claim(
        key="residual-trains-deeper",
        says=f"Residual networks train no worse with depth ({DEEPEST} against {SHALLOW} layers)",
        expected=-1,
        first=contrast(PRIMARY, {"kind": ARM, "depth": DEEPEST}, {"kind": ARM, "depth": SHALLOW}),
        family=PRIMARY,
    ),
    _at_equal_depth("lower-training-error", "train_error"),
    _at_equal_depth("lower-training-loss", "log10_train_loss"),
    _at_equal_depth("lower-test-error", "test_error"),
)

PROBE = Probe(
    plan=plan,
    tables=tables,
    claims=CLAIMS,
    settings=DegradationSettings,
    figures=("degradation", "depth"),
    shown=("arms", "networks"),
    drawn=("depths",),
    labels=OUTCOMES,
    extras=extras,
    symbols=symbols,
    comment=comment,
    limits=(
        "One recipe for all depths: a plain network may do better with another. The binomial ± says how far a test "
        "error may be off for the number of test images alone."
    ),
    seeds=1,
)
