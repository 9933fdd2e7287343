"""A curated copy of a study that can be committed: small text tables of its runs, its tables and figures, and how they
were made. The copy has the layout of the original, so `load_runs` and `resx plot --results FOLDER` read it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import pandas as pd

from resx.store.files import write_atomic
from resx.store.run import RunFolder
from resx.store.tables import export_tables

PROVENANCE = ("command", "commit", "torch", "device", "hardware", "threads")


def publish(runs: Sequence[RunFolder], files: Iterable[Path], target: Path, probes: Collection[str] = ()) -> None:
    """Copy runs (text tables only) and a study's files to `target`, with provenance.csv. Raises StoreError.

    probes: the probe tables that belong to the study. provenance.csv: one row per command, commit and machine, with
    the number of runs and the seconds they took.
    """
    export_tables(runs, target, probes)
    for file in files:
        write_atomic(target / file.name, file.read_bytes())
    write_atomic(target / "provenance.csv", provenance(runs).to_csv(index=False))


def provenance(runs: Sequence[RunFolder]) -> pd.DataFrame:
    """Return what made the runs: a row per command and machine, with runs, seconds and the first start."""
    attempts = pd.DataFrame([{**attempt, "run_id": run.run_id} for run in runs for attempt in run.attempts()])
    grouped = attempts.groupby(list(PROVENANCE), sort=False, dropna=False)
    return grouped.agg(
        runs=("run_id", "nunique"), seconds=("seconds", "sum"), first_started=("started", "min")
    ).reset_index()
