"""Recorded runs as tidy tables."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import pandas as pd

from resx.spec import FIELDS
from resx.store.files import results_root, write_atomic
from resx.store.run import METRICS, OUTCOMES, RunFolder, find_runs, read_run

# what a table of runs holds beside the spec's fields
RESULT_COLUMNS = (
    "run_id",
    "status",
    "steps_done",
    "data_label",
    "train_images",
    "test_images",
    "parameters",
    "multiply_adds",
    *OUTCOMES,
    "seconds",
    "folder",
)


def load_runs(results: Path | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return two tidy tables of everything recorded: runs (a row a run) and curves (a row an evaluation).

    runs: run_id, status (finished, diverged, unfinished), every field of the spec under its flat name, data_label,
    reference, parameters, multiply_adds, the last iterate's losses and errors (percent), seconds, folder.
    curves: run_id and the columns of metrics.csv. Raises StoreError where a run is damaged.
    """
    root = results_root(results)
    rows, curves = [], []
    for path in find_runs(root):
        run = read_run(path)
        result = run.result or {"status": "unfinished"}
        rows.append({**run.spec.flat(), **result, "run_id": run.run_id, "folder": str(path)})
        if (path / "metrics.csv").exists():
            curves.append(pd.read_csv(path / "metrics.csv", dtype=float).assign(run_id=run.run_id))
    columns = list(dict.fromkeys([*RESULT_COLUMNS, *FIELDS]))
    runs = pd.DataFrame(rows, columns=columns)
    for column in OUTCOMES:
        runs[column] = runs[column].astype(float)
    table = pd.concat(curves, ignore_index=True) if curves else pd.DataFrame(columns=[*METRICS, "run_id"])
    return runs, table[["run_id", *METRICS]]


def load_probes(results: Path, run_ids: Iterable[str]) -> dict[str, pd.DataFrame]:
    """Return, by the probe's name, what was measured on these runs, each row with its run_id."""
    found: dict[str, list[pd.DataFrame]] = {}
    for run_id in run_ids:
        for file in sorted((results / "runs" / run_id / "probes").glob("*.csv")):
            found.setdefault(file.stem, []).append(pd.read_csv(file).assign(run_id=run_id))
    return {name: pd.concat(parts, ignore_index=True) for name, parts in found.items()}


def export_csv(runs: Sequence[RunFolder], target: Path) -> None:
    """Write the curves of runs as one CSV: run_id, then the columns of metrics.csv."""
    frames = [
        pd.read_csv(run.path / "metrics.csv", dtype=str).assign(run_id=run.run_id)[["run_id", *METRICS]]
        for run in runs
        if (run.path / "metrics.csv").exists()
    ]
    table = pd.concat(frames) if frames else pd.DataFrame(columns=["run_id", *METRICS])
    write_atomic(target, table.to_csv(index=False))


def export_tables(runs: Sequence[RunFolder], target: Path, probes: Collection[str] | None = None) -> None:
    """Copy each run's small text files and probe tables to target/runs/, the layout that `load_runs` reads.

    probes: the names of the tables that are wanted; None for all.
    """
    for run in runs:
        tables = [file for file in (run.path / "probes").glob("*.csv") if probes is None or file.stem in probes]
        for file in [*(run.path / name for name in TEXT_FILES), *sorted(tables)]:
            if file.exists():
                write_atomic(target / "runs" / run.run_id / file.relative_to(run.path), file.read_bytes())


TEXT_FILES = ("spec.json", "environment.json", "metrics.csv", "result.json")
