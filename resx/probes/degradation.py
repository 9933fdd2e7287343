"""The comparison of the paper: plain against residual networks at growing depth (He et al. 2016, fig. 6, table 6).

Data in, tables out: `plan` gives the fields of the runs, `compare` turns their frames into a table of networks and the
paired effects. The unit is the seed: an effect is a mean of differences within a seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from resx import paper, stats
from resx.figures import FIGURES, style
from resx.spec import Experiment, SpecError, did_you_mean
from resx.stats import Estimate
from resx.store.files import write_atomic

ARMS = {"none": "plain", "identity": "residual"}
OUTCOME_NAMES = {
    "train_error": "training error (%)",
    "test_error": "test error (%)",
    "log10_train_loss": "log10 of the final training loss",
}
STUDY_KEYS = ("title", "primary")


@dataclass(frozen=True)
class Comparison:
    """networks: a row per arm and depth. effects: for each outcome, its family of paired effects.

    primary: the outcome that was named beforehand; word: what its interaction at the greatest depth amounts to.
    """

    networks: pd.DataFrame
    effects: dict[str, list[Estimate]]
    primary: str
    word: str
    title: str

    def effects_table(self) -> pd.DataFrame:
        """Return the effects of all outcomes, a row each, those of the primary outcome first."""
        order = sorted(self.effects, key=lambda outcome: outcome != self.primary)
        return pd.DataFrame(
            [
                {
                    "name": f"{outcome}: {effect.name}",
                    "mean": effect.mean,
                    "low": effect.low,
                    "high": effect.high,
                    "n": effect.n,
                    "p": effect.p,
                }
                for outcome in order
                for effect in self.effects[outcome]
            ]
        )


def plan(
    base: Mapping[str, Any],
    experiment: Experiment,
    *,
    depths: Sequence[int] | None = None,
    shortcuts: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> list[dict[str, Any]]:
    """Return the fields of every run: the experiment's grid, with what was asked for over it.

    The default grid is plain and residual at depths 20 and 56, seed 0. Raises SpecError for a [study] key it
    does not know.
    """
    check_study(experiment)
    grid: dict[str, list[Any]] = {
        "depth": [20, 56],
        "shortcut": ["none", "identity"],
        "seed": [0],
        **experiment.grid,
    }
    asked = {"depth": depths, "shortcut": shortcuts, "seed": seeds}
    grid |= {key: list(values) for key, values in asked.items() if values}
    return Experiment(experiment.name, base, grid, experiment.study).combinations()


def check_study(experiment: Experiment) -> None:
    """Raise SpecError for a [study] table that this study cannot read."""
    errors = [
        f"[study] {key}: no such key{did_you_mean(key, STUDY_KEYS)}"
        for key in experiment.study
        if key not in STUDY_KEYS
    ]
    primary = experiment.study.get("primary", "train_error")
    if primary not in OUTCOME_NAMES:
        errors.append(f"[study] primary: no outcome '{primary}'{did_you_mean(primary, OUTCOME_NAMES)}")
    if errors:
        raise SpecError(errors)


def compare(runs: pd.DataFrame, study: Mapping[str, Any]) -> Comparison:
    """Compare finished and diverged runs (rows of `load_runs`), arms told apart by what varies beside depth and seed.

    study: title, primary (outcome). Raises SpecError where there is nothing to compare.
    """
    if runs.empty:
        raise SpecError("no finished run to compare")
    runs = runs.assign(arm=_arms(runs), log10_train_loss=stats.log10_loss(runs["train_loss"]))
    primary = str(study.get("primary", "train_error"))
    effects = {outcome: _effects(runs, outcome) for outcome in OUTCOME_NAMES}
    judged = effects[primary][-1] if effects[primary] else None
    return Comparison(
        networks=_networks(runs),
        effects=effects,
        primary=primary,
        word=stats.word(judged, 1) if judged else "inconclusive",
        title=str(study.get("title", "Plain and residual networks")),
    )


def _arms(runs: pd.DataFrame) -> pd.Series:
    """Name each run's arm: plain, residual, another shortcut, and whatever else differs between the runs."""
    names = runs["shortcut"].map(lambda name: ARMS.get(name, name))
    for column in ("adapter", "order", "norm", "width", "widths"):
        shown = runs[column].astype("string")
        if shown[runs["shortcut"] != "none"].nunique(dropna=False) > 1:
            names = names + (", " + shown).fillna("")
    return names


def _networks(runs: pd.DataFrame) -> pd.DataFrame:
    """Return a row per arm and depth: mean, spread over seeds, the paper's value where the data is the paper's."""
    rows = []
    for (arm, depth), group in runs.groupby(["arm", "depth"], sort=False):
        done = group[group["status"] == "finished"]
        row: dict[str, Any] = {
            "network": f"{arm}-{depth}",
            "arm": arm,
            "depth": depth,
            "seeds": len(group),
            "diverged": int((group["status"] == "diverged").sum()),
            "parameters": int(group["parameters"].iloc[0]),
        }
        for outcome in ("train_error", "test_error", "log10_train_loss"):
            row[outcome] = done[outcome].mean()
            row[f"{outcome}_std"] = done[outcome].std(ddof=1)
        images = group["test_images"].iloc[0]
        row["test_binomial"] = stats.binomial_error(row["test_error"], int(images)) if len(done) else np.nan
        published = paper.CIFAR_TEST_ERROR.get((str(arm), int(group["depth"].iloc[0])))
        comparable = (group["reference"] == "cifar10").all() and _is_papers_network(group)
        row["paper"] = published.value if published and comparable else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


def _is_papers_network(group: pd.DataFrame) -> bool:
    """Return whether these are the CIFAR networks of Table 6: width 16, option A, original order, batch norm."""
    own = (group["width"] == 16) & (group["order"] == "post") & (group["norm"] == "batch")
    return bool((own & (group["adapter"].isna() | (group["adapter"] == "subsample+pad"))).all())


def _effects(runs: pd.DataFrame, outcome: str) -> list[Estimate]:
    """Return depth effects per arm against the shallowest depth, and their differences from the plain arm's.

    The last one is the interaction at the greatest depth. All effects are taken over the same seeds: those in which
    no network of the family diverged or is missing; a network that has no number at all leaves the family, and its
    effects have n = 0. p is adjusted for the family by one joint sign-flip.
    """
    table = runs.pivot_table(index="seed", columns=["arm", "depth"], values=outcome, aggfunc="first", dropna=False)
    arms = list(dict.fromkeys(runs["arm"]))
    shallow, *deeper = sorted(runs["depth"].unique())
    columns: dict[str, pd.Series] = {}
    for depth in deeper:
        depth_effects = {
            arm: table[arm, depth] - table[arm, shallow]
            for arm in arms
            if {(arm, depth), (arm, shallow)} <= set(table.columns)
        }
        columns |= {f"{arm} {depth}−{shallow}": effect for arm, effect in depth_effects.items()}
        plain = depth_effects.pop("plain", None)
        for arm, effect in depth_effects.items():
            if plain is not None:
                columns[f"(plain {depth}−{shallow})−({arm} {depth}−{shallow})"] = plain - effect
    differences = pd.DataFrame(columns)
    family = differences.dropna(axis=1, how="all").dropna(axis=0)
    p = stats.joint_sign_flip(family.to_numpy()) if len(family) > 1 else [None] * family.shape[1]
    adjusted = dict(zip(family.columns, p, strict=True))
    return [
        replace(stats.t_interval(family[name].to_numpy(), name=name), p=adjusted[name])
        if name in adjusted and len(family)
        else Estimate(str(name), np.nan, np.nan, np.nan, 0)
        for name in differences
    ]


def write(
    comparison: Comparison, frames: Mapping[str, pd.DataFrame], folder: Path
) -> tuple[dict[str, list[Path]], Figure]:
    """Write the tables as CSV and the degradation figure; return the files of table, effects and figures, and it."""
    written = {}
    tables = {"table": comparison.networks, "effects": comparison.effects_table()}
    for name, table in tables.items():
        written[name] = [folder / f"{name}.csv"]
        write_atomic(folder / f"{name}.csv", table.to_csv(index=False, float_format="%.6g"))
    figure = FIGURES["degradation"](frames)
    return {**written, "figures": style.save(figure, folder / "degradation")}, figure
