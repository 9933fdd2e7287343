"""What studies share when they judge: names of networks, and a family of effects, one value per seed each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
import pandas as pd

from resx import stats
from resx.figures.parts import kind_name
from resx.probes.study import Verdict
from resx.stats import Estimate


def with_runs(measured: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Return a probe's table with the columns of its runs: kind (plain, residual, …), depth, norm, seed, status."""
    told = runs.assign(kind=runs["shortcut"].map(kind_name))
    return measured.merge(told[["run_id", "kind", "depth", "norm", "seed", "status"]], on="run_id")


def phases(measured: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of initialisation and, of runs that finished, of the last step, as `phase` initial or trained."""
    last = measured.groupby("run_id")["step"].transform("max")
    initial = measured[measured["step"] == 0].assign(phase="initial")
    end = (measured["step"] == last) & (last > 0) & (measured["status"] == "finished")
    return pd.concat([initial, measured[end].assign(phase="trained")], ignore_index=True)


def estimates(columns: Mapping[str, pd.Series]) -> dict[str, Estimate]:
    """Return an estimate per effect, from its values by seed; p is adjusted for all of them by one joint sign-flip.

    An effect without any value (a network that was not run) is left out; a seed that lacks a value is left out of
    that effect, and of all p-values.
    """
    known = {name: values.astype(float).dropna() for name, values in columns.items()}
    known = {name: values for name, values in known.items() if len(values)}
    complete = pd.DataFrame(known).dropna()
    p = stats.joint_sign_flip(complete.to_numpy()) if len(complete) > 1 else np.full(len(known), np.nan)
    found = {}
    for (name, values), one in zip(known.items(), p, strict=True):
        interval = stats.t_interval(values.to_numpy(), name=name)
        judged = None if np.isnan(one) else float(one)
        found[name] = Estimate(name, interval.mean, interval.low, interval.high, interval.n, judged)
    return found


def verdict(
    hypothesis: str, criterion: str, found: Mapping[str, Estimate], names: Iterable[str], expected: Literal[-1, 0, 1]
) -> list[Verdict]:
    """Return the verdict on the first of the named effects, the others beside it; none where it was not measured."""
    first, *others = names
    if first not in found:
        return []
    listed = [found[first], *(found[name] for name in others if name in found)]
    return [Verdict(hypothesis, criterion, listed, stats.word(found[first], expected))]


def table_of(found: Mapping[str, Estimate]) -> pd.DataFrame:
    """Return the effects as a table, a row each."""
    columns = ("name", "mean", "low", "high", "n", "p")
    return pd.DataFrame([{key: getattr(one, key) for key in columns} for one in found.values()], columns=list(columns))
