"""Runs and measurements joined into tidy tables: the words for networks, outcomes and phases that all probes share."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Literal

import pandas as pd

from resx import stats
from resx.spec import ADOPTED, FIELDS, ModelSpec, RunSpec, SpecError

Outcome = Literal["log10_train_loss", "train_error", "test_error"]
Statistics = Literal["running", "batch", "augmented"]  # of normalisations in a measurement (measurements/inputs.py)
OUTCOMES: dict[str, str] = {
    "log10_train_loss": "log10 of the final training loss",
    "train_error": "final training error (%)",
    "test_error": "final test error (%)",
}
INITIAL, TRAINED = {"phase": "initial"}, {"phase": "trained"}
WITH_NETWORK = ("seed", "depth", "shortcut", "plugin", "warmup", "stride_in")  # may depend on the network


def kind_name(shortcut: str) -> str:
    """Return the name of networks with this shortcut function: the paper's for its own two."""
    return {"none": "plain", "identity": "residual"}.get(shortcut, shortcut)


def kinds(runs: pd.DataFrame) -> pd.Series:
    """Return each run's kind of network: its shortcut's name after that of a special start or activation, if any.

    Such as plain, residual, looks-linear plain, crelu plain. Among public networks from several sources the source is
    said too: residual of akamaster. A network that no layout knows is called by its name.
    """
    start = runs["init"].fillna(runs["activation"]).fillna("")
    names = (start + " " + runs["shortcut"].map(kind_name)).str.strip()
    adopted, foreign = runs["family"] == ADOPTED, runs["foreign"].notna()
    sources = runs["foreign"].map(lambda one: str(one).partition("/")[0])
    if sources[foreign & ~adopted].nunique() > 1:
        names = names.where(~foreign, names + " of " + sources)
    return names.where(~adopted, runs["foreign"].map(str))


def arm(table: pd.DataFrame) -> str:
    """Return the kind of network that is compared with plain ones: residual, or the first other kind of a table."""
    kinds = [str(kind) for kind in table["kind"].unique() if kind != "plain"]
    return "residual" if "residual" in kinds or not kinds else kinds[0]


def arm_symbol(tables: Mapping[str, pd.DataFrame], settings: Any) -> dict[str, str]:
    """Return the symbol {arm} of a probe's claims: `arm` of its outcomes."""
    return {"arm": arm(tables["outcomes"])}


def outcomes(runs: pd.DataFrame) -> pd.DataFrame:
    """Return runs with `kind` and `log10_train_loss`; a run that did not finish has no outcome (nan)."""
    table = runs.assign(kind=kinds(runs), log10_train_loss=stats.log10_loss(runs["train_loss"].astype(float)))
    columns = [*OUTCOMES, "train_loss", "test_loss"]
    table[columns] = table[columns].where(table["status"] == "finished")
    return table


def diverged(status: pd.Series) -> int:
    """Return how many runs diverged."""
    return int((status == "diverged").sum())


def join(measured: pd.DataFrame, runs: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Return a measurement with columns of its runs: kind, depth, network, norm, seed, status, and those named."""
    named = runs.assign(kind=kinds(runs), norm=runs["norm"].fillna(""))  # which nobody knows of a foreign network
    named = named.assign(network=named["kind"] + "-" + named["depth"].astype(str))
    return measured.merge(
        named[["run_id", "kind", "depth", "network", "norm", "seed", "status", *columns]], on="run_id"
    )


def phases(measured: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of initialisation and, of runs that finished, of the last step, as `phase` initial or trained."""
    last = measured.groupby("run_id")["step"].transform("max")
    initial = measured[measured["step"] == 0].assign(phase="initial")
    end = (measured["step"] == last) & (last > 0) & (measured["status"] == "finished")
    return pd.concat([initial, measured[end].assign(phase="trained")], ignore_index=True)


def summary(table: pd.DataFrame, by: Sequence[str], quantities: Sequence[str]) -> pd.DataFrame:
    """Return a row per value of `by`: seeds, and the mean of each quantity with the interval of its t distribution.

    Columns, also where there is no row: by, seeds, and q, q_low, q_high for each quantity q; nan bounds where a
    quantity has one value only.
    """
    columns = [*by, "seeds", *(f"{quantity}{end}" for quantity in quantities for end in ("", "_low", "_high"))]
    rows = []
    for key, group in table.groupby(list(by), sort=False, dropna=False):
        row = dict(zip(by, key, strict=True)) | {"seeds": group["seed"].nunique()}
        for quantity in quantities:
            row |= stats.mean_of(group[quantity]).cells(quantity)
        rows.append(row)
    return pd.DataFrame(rows, columns=columns)


def estimate(row: Any, quantity: str) -> stats.Estimate:
    """Return a quantity q of a table's row (a series) that has q, q_low and q_high; of how many seeds is not said."""
    return stats.Estimate("", row[quantity], row[f"{quantity}_low"], row[f"{quantity}_high"], 0)


def check_alike(runs: pd.DataFrame, varying: Collection[str]) -> None:
    """Raise SpecError where runs differ in more than the fields that may vary.

    A network without shortcuts has no adapter, which is no difference.
    """
    fixed = [field for field in FIELDS if field not in (*WITH_NETWORK, *varying)]
    texts = runs[fixed].astype("string").fillna("null")
    texts["adapter"] = runs["adapter"].astype("string") if "adapter" in fixed else "any"
    if mixed := [field for field in fixed if texts[field].nunique() > 1]:
        values = "; ".join(f"{field}: {', '.join(sorted(texts[field].dropna().unique()))}" for field in mixed)
        raise SpecError(f"these runs differ in {values}; choose one kind with --where {mixed[0]}=…")


def check_once(runs: pd.DataFrame, name: str, *key: str) -> None:
    """Raise SpecError where a seed has two runs of one name; name, key: the columns that tell networks apart."""
    twice = runs.loc[runs.duplicated([*key, name, "seed"]), name]
    if len(twice):
        raise SpecError(f"two runs are the {twice.iloc[0]} of one seed; choose one kind with --where")


def same_test_error(own: pd.Series, base: pd.Series, margin: float, images: pd.Series) -> str:
    """Return whether test errors (%) by seed are equivalent, as in stats.equivalence, on the seeds that both have.

    images: the number of test images of each run; where no result states it, nothing is shown.
    """
    errors, stated = pd.DataFrame({"own": own, "base": base}).dropna(), images.dropna()
    if errors.empty or stated.empty:
        return "not shown"
    arms = [errors["own"], errors["base"]]
    return stats.equivalence(errors["own"] - errors["base"], margin, arms=arms, n_test=int(stated.min()))


def check_margin(margin: float, specs: Iterable[RunSpec]) -> None:
    """Refuse a margin of less than two test images before anything is trained, where their number is known."""
    from resx.data import DATASETS, FACTS

    for data in {spec.data for spec in specs}:
        name, _ = DATASETS.arguments(data.dataset)
        if name in FACTS:
            stats.check_margin(margin, data.test_subset or FACTS[name].test)


def without_blocks(spec: RunSpec) -> str | None:
    """Say why a measurement of blocks cannot be made on a run, or return None for a network of blocks on images."""
    if spec.model.family == ADOPTED or _has_blocks(spec.model):  # adopting a network says what it lacks
        return None
    return f"the {spec.model.family} family has no blocks on images"


@cache
def _has_blocks(spec: ModelSpec) -> bool:
    from resx.model import Network
    from resx.model.construction import skeleton

    try:
        return isinstance(skeleton(spec, (3, 32, 32), 10), Network)
    except SpecError:
        return False
