"""Degradation: what does depth do to plain networks, and what to residual ones (He et al. 2016, Figs. 1 and 6, Table
6)?

Question. The paper's starting point: a deeper plain network has the higher training error, so it does not overfit; with
identity shortcuts it does not.

Method. Plain and residual networks at several depths, with the same initial weights (where they share them), the same
batches and the same number of steps. Errors are the last iterate's, in eval mode; the training error is that on all
un-augmented training images. Effects are differences within a seed. Each outcome is a family of its own: what depth
does to each kind of network, against the shallowest, and by how much more it does so to plain ones.

Primary outcome. The final training error; on data where most networks end at 0 % the log10 of the final training loss
(--set primary=log10_train_loss).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from resx import paper, stats
from resx.claims import DEEP, SHALLOW, Claim, Contrast, contrast, interaction, plain
from resx.probes import Frames, Probe, Request, Settings, Tables
from resx.probes.tidy import OUTCOMES, Outcome, arm, outcomes
from resx.spec import RunSpec

BASELINES = ("none", "identity")
ARM_FIELDS = ("adapter", "order", "norm", "width", "widths")  # fields that tell arms with one shortcut apart
PRIMARY, ARM = "{primary}", "{arm}"


class DegradationSettings(Settings):
    """primary: the outcome that is judged."""

    primary: Outcome = "train_error"


def plan(request: Request) -> list[RunSpec]:
    """Return plain and residual networks, and whatever other shortcuts are asked for, at depths 20 and 56."""
    grids = []
    for grid in request.grids:
        asked = grid.get("shortcut") or ([request.base["shortcut"]] if "shortcut" in request.base else [])
        grids.append({**grid, "shortcut": list(dict.fromkeys([*BASELINES, *asked]))})
    base = {key: value for key, value in request.base.items() if key != "shortcut"}
    wanted = Request(base, request.seeds, request.settings, request.resolve, grids)
    return wanted.runs(depth=[20, 56])


def tables(frames: Frames, settings: DegradationSettings) -> dict[str, pd.DataFrame]:
    """Return `outcomes`, a row a run, and `networks`, a row per kind of network and depth."""
    runs = outcomes(frames["runs"]).assign(kind=_arms(frames["runs"]))
    order = {"plain": 0, "residual": 1}
    runs = runs.assign(place=runs["kind"].map(lambda kind: order.get(kind, 2)))
    runs = runs.sort_values(["place", "depth", "seed"], kind="stable")
    return {"networks": _networks(runs), "outcomes": runs[["run_id", "kind", "depth", "seed", *OUTCOMES]]}


def _arms(runs: pd.DataFrame) -> pd.Series:
    """Name each run's kind: plain, residual, another shortcut, and whatever else differs among residual runs."""
    names = outcomes(runs)["kind"]
    for column in ARM_FIELDS:
        text = runs[column].astype("string")
        if text[runs["shortcut"] != "none"].nunique(dropna=False) > 1:
            names = names + (", " + text).fillna("")
    return names


def _networks(runs: pd.DataFrame) -> pd.DataFrame:
    """Return, per network: seeds, parameters, means and spreads of outcomes, and the paper's test error if
    comparable."""
    rows = []
    for (kind, depth), group in runs.groupby(["kind", "depth"], sort=False):
        finished = group[group["status"] == "finished"]
        row: dict[str, Any] = {
            "network": f"{kind}-{depth}",
            "seeds": len(group),
            "diverged": int((group["status"] == "diverged").sum()),
            "parameters": int(group["parameters"].iloc[0]),
        }
        for outcome in OUTCOMES:
            row |= {outcome: finished[outcome].mean(), f"{outcome}_std": finished[outcome].std(ddof=1)}
        images = int(group["test_images"].iloc[0])
        row["test_binomial"] = stats.binomial_error(row["test_error"], images) if len(finished) else np.nan
        published = paper.CIFAR_TEST_ERROR.get((str(kind), int(str(depth))))
        comparable = (group["reference"] == "cifar10").all() and _is_papers_network(group)
        row["paper"] = published.value if published and comparable else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


def _is_papers_network(group: pd.DataFrame) -> bool:
    """Return whether these are the CIFAR networks of Table 6: width 16, option A, original order, batch norm."""
    own = (group["width"] == 16) & (group["order"] == "post") & (group["norm"] == "batch")
    return bool((own & (group["adapter"].isna() | (group["adapter"] == "subsample+pad"))).all())


def symbols(tables: Tables, settings: DegradationSettings) -> Mapping[str, Any]:
    """Return the kind that is compared with plain networks: residual ones, where there are any."""
    return {"arm": arm(tables["outcomes"])}


def extras(tables: Tables, settings: DegradationSettings) -> Mapping[str, Sequence[Contrast]]:
    """Return, for each outcome, what each depth does to each kind, and how much more to plain networks."""
    at, base = {"kind": "{kind}", "depth": "{depth}"}, {"kind": "{kind}", "depth": SHALLOW}
    over = ("depth", "kind")
    return {
        outcome: (
            contrast(outcome, at, base, over=over),
            interaction(outcome, (plain("{depth}"), plain(SHALLOW)), (at, base), over=over),
        )
        for outcome in OUTCOMES
    }


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


def _depth_costs(key: str, outcome: str) -> Claim:
    """Return the claim that depth costs plain networks more than those with shortcuts."""
    return Claim(
        key=key,
        says=f"Depth costs plain networks more than {ARM} ones ({SHALLOW} to {DEEP} layers)",
        expected=+1,
        first=interaction(
            outcome,
            (plain(DEEP), plain(SHALLOW)),
            ({"kind": ARM, "depth": DEEP}, {"kind": ARM, "depth": SHALLOW}),
        ),
        family=outcome,
    )


CLAIMS = (
    _depth_costs("depth-costs-plain-more", PRIMARY),
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
        says=f"Residual networks train no worse with depth ({DEEP} against {SHALLOW} layers)",
        expected=-1,
        first=contrast(PRIMARY, {"kind": ARM, "depth": DEEP}, {"kind": ARM, "depth": SHALLOW}),
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
    figures=("degradation",),
    shown=("networks",),
    labels=OUTCOMES,
    extras=extras,
    symbols=symbols,
    limits=(
        "One recipe for all depths: a plain network may do better with another. The binomial ± says how far a test "
        "error may be off for the number of test images alone."
    ),
    seeds=1,
)
