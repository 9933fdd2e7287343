"""Recorded runs as tidy tables, from live run folders and from published experiments, through one reader.

A published experiment is what a page needs of its runs, in a few files that can be committed:

    NAME/runs.csv               a row a run: run_id, the fields of its spec that vary, outcomes, seconds, what made it
         fields.json            what does not vary, the settings of the measurements, and `uses`: the ids of runs that
                                a published experiment in the folder next to this one stores
         curves.csv.gz          a row an evaluation: run_id and the columns of metrics.csv; none if no run is trained
         measurements/*.csv.gz  what was measured, each row with its run_id

Numbers keep all their digits: rounding would change ranks and p-values. So a row determines its run's id, which is
checked. Columns without any value are not written.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from resx.spec import FIELDS, Frozen, RunSpec, SpecError
from resx.store.files import (
    LOG,
    StoreError,
    csv_text,
    is_published,
    read_file,
    read_json,
    results_root,
    to_json,
    write_atomic,
)
from resx.store.index import read_records
from resx.store.run import METRICS, OUTCOMES, TEXTS, Record, RunFolder, find_runs, is_recorded, read_record

Frames = Mapping[str, "pd.DataFrame"]  # 'runs', 'curves', and a table per measurement, each with a column run_id
Row = dict[str, Any]

RUN_COLUMNS = (
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
    *FIELDS,
)
NUMBERS = (*OUTCOMES, "seconds")
ALWAYS = ("run_id", "status", *NUMBERS)  # columns of runs.csv even where they do not vary
EXACT = 2.0**53  # up to here a float holds every whole number


def load_runs(results: Path | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return two tidy tables of everything recorded: runs (a row a run) and curves (a row an evaluation).

    results: a folder with live runs, or a published experiment.
    runs: run_id, status (finished, diverged, unfinished), every field of the spec under its flat name, data_label,
    reference, parameters, multiply_adds, the last iterate's losses and errors (percent), seconds, folder.
    curves: run_id and the columns of metrics.csv. A damaged run is a row with the status `damaged`, and a line on
    stderr that names the file; a damaged published experiment raises StoreError.
    """
    frames = load_frames(results_root(results), measurements=(), nameless=True)
    return frames["runs"], frames["curves"]


def load_frames(
    source: Path,
    run_ids: Collection[str] | None = None,
    measurements: Collection[str] | None = None,
    *,
    nameless: bool = False,
    curves: bool = True,
) -> dict[str, pd.DataFrame]:
    """Return the tables `runs` and `curves` (see `load_runs`), and one per measurement under its name.

    source: a folder with live runs, or a published experiment. run_ids, measurements: which rows and which tables; None
    for all, and nothing else is opened. A measurement that none of the runs has is absent. A damaged run has the status
    `damaged` and no outcome, and a line on stderr names the file; where not even its spec can be read, it is left out
    unless nameless is true. curves: without them and measurements, rows of all runs come from their index. Raises
    StoreError for a run that is not there, and for a damaged file of a published experiment.
    """
    read = _read_published if is_published(source) else _read_live
    rows, parts, tables = read(source, run_ids, measurements, curves)
    rows = [row for row in rows if nameless or "seed" in row]
    ids = {row["run_id"] for row in rows}
    missing = [run_id for run_id in run_ids or () if run_id not in ids]
    if missing:
        raise StoreError(f"{source}: no run {missing[0]}" + (f", nor {len(missing) - 1} more" if missing[1:] else ""))
    rows.sort(key=itemgetter("run_id"))
    runs = pd.DataFrame(rows, columns=list(RUN_COLUMNS))
    runs[list(NUMBERS)] = runs[list(NUMBERS)].astype(float)
    measured = {name: _in_order(table) for name, table in tables.items() if table}
    return {"runs": runs, "curves": _in_order([_no_curves(), *parts]), **measured}


def load_environments(source: Path, run_ids: Collection[str] | None = None) -> pd.DataFrame:
    """Return what made each run: run_id, command, commit, torch, hardware, …, as environment.json has them.

    Where the attempts at a run differ, their values are one text, with semicolons between.
    """
    if is_published(source):
        rows = _published_rows(source, run_ids)
        rows = [{key: value for key, value in row.items() if key == "run_id" or key not in RUN_COLUMNS} for row in rows]
    else:
        records = [read_record(path) for path in _paths(source, run_ids)]
        rows = [{"run_id": record.run.run_id, **_made_by(record.run)} for record in records if record.run]
    return pd.DataFrame(sorted(rows, key=itemgetter("run_id")))


def _made_by(run: RunFolder) -> Row:
    columns: dict[str, list[Any]] = {}
    for attempt in run.attempts():
        for key, value in attempt.items():
            if key not in ("first_step", "last_step", *RUN_COLUMNS) and value not in columns.setdefault(key, []):
                columns[key].append(value)
    return {key: values[0] if len(values) == 1 else "; ".join(map(str, values)) for key, values in columns.items()}


def _no_curves() -> pd.DataFrame:
    return pd.DataFrame(columns=["run_id", *METRICS]).astype(dict.fromkeys(METRICS, float))


def _in_order(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return tables as one, rows by run id and within a run as they were; run_id is the first column."""
    table = pd.concat([part for part in parts if len(part)] or list(parts[:1]), ignore_index=True)
    table = table[["run_id", *(column for column in table if column != "run_id")]]
    return table.sort_values("run_id", kind="stable", ignore_index=True)


# live run folders


def _paths(root: Path, run_ids: Collection[str] | None) -> list[Path]:
    """Return the folders of the requested runs, as far as they are there."""
    if run_ids is None:
        return find_runs(root)
    paths = [root / "runs" / run_id for run_id in dict.fromkeys(run_ids)]
    return [path for path in paths if is_recorded(path)]


def _read_live(
    root: Path, run_ids: Collection[str] | None, measurements: Collection[str] | None, with_curves: bool
) -> tuple[list[Row], list[pd.DataFrame], dict[str, list[pd.DataFrame]]]:
    rows: list[Row] = []
    ids: list[str] = []
    curves: list[list[float]] = []  # of all runs: one table of them is made ten times as quickly as one of each
    tables: dict[str, list[pd.DataFrame]] = {}
    if run_ids is None and not with_curves and measurements is not None and not measurements:
        records: Iterable[Record] = read_records(root)
    else:
        records = (read_record(path, curve=with_curves) for path in _paths(root, run_ids))
    for record in records:
        path = Path(record.row["folder"])
        rows.append(record.row)
        if record.damage and (with_curves or "seed" not in record.row):  # else read again, if it can be selected
            LOG.warning("%s", record.damage)
        if record.run is None:
            continue
        ids += [path.name] * len(record.curve)
        curves += record.curve
        for name in record.run.probes() if measurements is None else measurements:
            table = record.run.load_probe(name)
            if table is not None:
                tables.setdefault(name, []).append(table.assign(run_id=path.name))
    return rows, [pd.DataFrame(curves, columns=list(METRICS), dtype=float).assign(run_id=ids)], tables


def _damaged(file: Path) -> str:
    return f"{file}: damaged (not the table that was written)"


# published experiments


def _read_published(
    folder: Path, run_ids: Collection[str] | None, measurements: Collection[str] | None, with_curves: bool
) -> tuple[list[Row], list[pd.DataFrame], dict[str, list[pd.DataFrame]]]:
    rows = _published_rows(folder, run_ids)
    ids = {row["run_id"] for row in rows}
    recorded = _fields(folder)["measurements"]
    tables = {}
    for file in sorted((folder / "measurements").glob("*.csv.gz")):
        name = file.name.removesuffix(".csv.gz")
        if measurements is None or name in measurements:
            table = _of_runs(file, ids, TEXTS)
            if name in recorded:
                table = table.assign(settings=json.dumps(recorded[name], sort_keys=True))
            tables[name] = [table] if len(table) else []
    return rows, _published_curves(folder, ids) if with_curves else [], tables


def costs(folder: Path) -> dict[str, tuple[float, str]]:
    """Return the seconds and the hardware of a published experiment's runs, which are not checked, so this is quick.

    Without pandas: the ledger reads every experiment there is.
    """
    file, common = folder / "runs.csv", _fields(folder)["runs"].get("hardware")
    try:
        own = {
            row["run_id"]: (float(row["seconds"] or "nan"), str(_value(row.get("hardware", "")) or common or ""))
            for row in read_rows(file, ["run_id", "seconds"])
        }
    except ValueError as error:
        raise StoreError(_damaged(file)) from error
    for other, ids in _uses(folder):
        own |= {run_id: cost for run_id, cost in costs(other).items() if run_id in ids}
    return own


def _of_runs(file: Path, ids: Collection[str], kinds: Mapping[str, type]) -> pd.DataFrame:
    """Return the rows of these runs in a packed table. Raises StoreError that names the file."""
    try:
        table = pd.read_csv(file, dtype=kinds)
        return table[table["run_id"].isin(ids)]
    except OSError as error:
        is_damaged = error.errno is None  # a file that is not packed
        raise StoreError(_damaged(file) if is_damaged else f"{file}: cannot be read ({error.strerror})") from error
    except (KeyError, ValueError, EOFError, zlib.error) as error:
        raise StoreError(_damaged(file)) from error


def _published_curves(folder: Path, ids: set[str]) -> list[pd.DataFrame]:
    parts = []
    if _trains(folder):
        table = _of_runs(folder / "curves.csv.gz", ids, dict.fromkeys(METRICS, float))
        parts.append(table.reindex(columns=["run_id", *METRICS]))
    for other, names in _uses(folder):
        if names & ids:
            parts += _published_curves(other, names & ids)
    return parts


def _trains(folder: Path) -> bool:
    """Whether any run that is stored here is trained, rather than measured as it is initialised or given."""
    own = read_rows(folder / "runs.csv", ["run_id"])
    return _fields(folder)["runs"].get("steps") != 1 and not all(row.get("foreign") for row in own)


def _published_rows(folder: Path, run_ids: Collection[str] | None) -> list[Row]:
    """Return the rows of the requested runs, including those that other experiments store."""
    common = _fields(folder)["runs"]
    rows = []
    for cells in read_rows(folder / "runs.csv", ["run_id"]):
        if run_ids is None or cells["run_id"] in run_ids:
            row = {**common, **{key: _value(cell) for key, cell in cells.items()}, "folder": str(folder)}
            rows.append(_checked(row, folder / "runs.csv"))
    for other, names in _uses(folder):
        ids = names if run_ids is None else names & set(run_ids)
        if ids:
            shared = _published_rows(other, ids)
            if len(shared) < len(ids):
                raise StoreError(f"{folder / 'fields.json'}: uses runs that {other / 'runs.csv'} does not hold")
            rows += shared
    return rows


def _fields(folder: Path) -> dict[str, Any]:
    content = read_json(folder / "fields.json")
    parts = {"runs", "measurements", "uses"}
    if not isinstance(content, dict) or not all(isinstance(content.get(part), dict) for part in parts):
        raise StoreError(f"{folder / 'fields.json'}: damaged (not the fields of a published experiment)")
    return content


def _uses(folder: Path) -> list[tuple[Path, set[str]]]:
    """Return the experiments that store some of this one's runs, with these runs' ids.

    Raises StoreError where one of them is not there.
    """
    uses = [(folder.parent / name, set(ids)) for name, ids in _fields(folder)["uses"].items()]
    for other, ids in uses:
        if not is_published(other):
            raise StoreError(f"{folder / 'fields.json'}: needs {other} next to it, which stores {len(ids)} of its runs")
    return uses


def read_rows(file: Path, columns: Collection[str] = ()) -> list[dict[str, str]]:
    """Return a small table's rows as text. Raises StoreError where it is damaged or lacks one of the columns."""
    try:
        reader = csv.DictReader(io.StringIO(read_file(file).decode(), newline=""))
        rows = list(reader)
    except FileNotFoundError as error:
        raise StoreError(f"{file}: cannot be read ({error.strerror})") from error
    except (ValueError, csv.Error) as error:
        raise StoreError(_damaged(file)) from error
    has_gaps = any(None in (*row, *row.values()) for row in rows)  # a line with more or fewer cells than the header
    if has_gaps or not set(columns) <= set(reader.fieldnames or ()):
        raise StoreError(_damaged(file))
    return rows


def _checked(row: Row, file: Path) -> Row:
    """Return a row with its spec's values as a spec holds them. Raises StoreError where they give another run id."""
    for reference in (row.get("reference"), None):  # a result's may be the data set's, which the spec leaves open
        try:
            spec = RunSpec.from_flat({**row, "reference": reference})
        except ValidationError:
            break
        if spec.run_id == row["run_id"]:
            return {**row, **spec.flat(), "reference": row.get("reference")}
    raise StoreError(f"{file}: damaged (the row of {row['run_id']} does not describe that run)")


@lru_cache(maxsize=2**14)
def _value(cell: str) -> Any:
    """Return what a cell of runs.csv holds: nothing, JSON, or else the text itself."""
    try:
        return json.loads(cell) if cell else None
    except ValueError:
        return cell


def _cell(value: Any) -> str:
    """Write a value so that `_value` returns it; whole numbers as such."""
    if isinstance(value, Frozen):
        value = value.model_dump()
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or value != value:  # nan is not itself
        return ""
    if isinstance(value, str):
        return value if value and _value(value) == value else json.dumps(value)
    if isinstance(value, float):
        value = int(value) if value.is_integer() and abs(value) < EXACT else value
    return json.dumps(value)


def write_frames(frames: Frames, environments: pd.DataFrame, folder: Path, *, uses: Collection[str] = ()) -> None:
    """Write a published experiment, from tables as `load_frames` and `load_environments` give them.

    uses: names of published experiments next to `folder`; a run that one of them stores with the same outcomes is not
    stored again. Raises StoreError where a file cannot be written, SpecError for a folder with live runs in it.
    """
    if (folder / "runs").is_dir():  # with an experiment's tables in the folder nobody would see the live runs
        raise SpecError(f"{folder}: holds runs; write the tables of an experiment to a folder of their own")
    damaged = frames["runs"].loc[frames["runs"]["status"] == "damaged", "run_id"].tolist()
    if damaged:
        raise StoreError(f"{damaged[0]}: damaged, and so not published")
    runs = frames["runs"].drop(columns="folder").merge(environments, on="run_id", how="left")
    rows = [_checked_cells({str(key): value for key, value in row.items()}) for row in runs.to_dict("records")]
    shared = _shared(rows, folder, uses)
    foreign = {run_id for ids in shared.values() for run_id in ids}
    own = [row for row in rows if row["run_id"] not in foreign]
    measured = {name: frames[name] for name in sorted(set(frames) - {"runs", "curves"})}
    settings = {
        name: frame["settings"].iloc[0]
        for name, frame in measured.items()
        if "settings" in frame and frame["settings"].nunique(dropna=False) == 1
    }
    for name, frame in measured.items():
        table = frame.drop(columns="settings") if name in settings else frame
        write_atomic(folder / "measurements" / f"{name}.csv.gz", _packed(table))
    for file in (folder / "measurements").glob("*.csv.gz"):
        if file.name.removesuffix(".csv.gz") not in measured:
            file.unlink()
    columns = [key for key in own[0] if any(row[key] for row in own)] if own else list(ALWAYS)
    common = [key for key in columns if key not in ALWAYS and len({row[key] for row in own}) == 1]
    write_atomic(folder / "runs.csv", csv_text([key for key in columns if key not in common], own))
    fields = {
        "runs": {key: _value(own[0][key]) for key in common},
        "measurements": {name: json.loads(text) for name, text in settings.items()},
        "uses": shared,
    }
    write_atomic(folder / "fields.json", to_json(fields))
    if _trains(folder):
        curves = frames["curves"][~frames["curves"]["run_id"].isin(foreign)].astype({"step": int})
        empty = [name for name in METRICS if name != "step" and curves[name].isna().all()]
        write_atomic(folder / "curves.csv.gz", _packed(curves.drop(columns=empty)))
    else:
        (folder / "curves.csv.gz").unlink(missing_ok=True)


def _checked_cells(row: Row) -> dict[str, str]:
    """Return the cells of a run's row, the fields of its spec first."""
    order = dict.fromkeys(["run_id", *FIELDS, *row])
    cells = {key: _cell(row[key]) for key in order}
    _checked({key: _value(cell) for key, cell in cells.items()}, Path("runs.csv"))
    return cells


def _shared(rows: Sequence[Mapping[str, str]], folder: Path, uses: Collection[str]) -> dict[str, list[str]]:
    """Return, by experiment, the ids of runs that it stores with the same outcomes; its folder may not be there."""
    outcomes = {row["run_id"]: [row[key] for key in OUTCOMES] for row in rows}
    shared: dict[str, list[str]] = {}
    for name in uses:
        other = folder.parent / name
        for cells in read_rows(other / "runs.csv", ["run_id"]) if is_published(other) else ():
            if outcomes.get(cells["run_id"]) == [cells.get(key, "") for key in OUTCOMES]:
                shared.setdefault(name, []).append(cells["run_id"])
                outcomes.pop(cells["run_id"])
    return shared


def _packed(table: pd.DataFrame) -> bytes:
    """Return a table as packed CSV, the same bytes for the same table."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=buffer, mode="wb", mtime=0) as file:
        file.write(table.to_csv(index=False, lineterminator="\n").encode())
    return buffer.getvalue()


def export_table(runs: Sequence[RunFolder], target: Path, table: str = "curves", *, parquet: bool = False) -> None:
    """Write runs of one folder of results as one table, CSV or Parquet.

    table: `runs`, a row a run with all its fields and its outcome, or `curves`, a row an evaluation with the fields of
    its run, whose rate at the start is `initial_lr`. Raises SpecError where pyarrow, which writes Parquet, is absent.
    """
    [root] = {run.path.parent.parent for run in runs}
    frames = load_frames(root, [run.run_id for run in runs], [])
    frame = frames["runs"]
    if table == "curves":
        fields = frame[["run_id", *FIELDS]].rename(columns={"lr": "initial_lr"})
        frame = frames["curves"].merge(fields, on="run_id", how="left")
    if not parquet:
        write_atomic(target, frame.to_csv(index=False))
        return
    texts = {str(name): frame[name].map(_as_cell) for name in frame if frame[name].dtype == object}
    buffer = io.BytesIO()
    try:
        frame.assign(**texts).to_parquet(buffer, index=False, engine="pyarrow")
    except ImportError as error:
        raise SpecError("parquet: needs pyarrow; install it with: pip install 'resx[parquet]'") from error
    write_atomic(target, buffer.getvalue())


def _as_cell(value: Any) -> Any:
    """Return a value that a column of a typed table can hold: JSON for lists and specs."""
    return value if value is None or isinstance(value, str | bool | int | float) else json.dumps(value, default=str)


def export_tables(runs: Sequence[RunFolder], target: Path) -> None:
    """Write runs of one folder of results as a published experiment."""
    [root] = {run.path.parent.parent for run in runs}
    ids = [run.run_id for run in runs]
    write_frames(load_frames(root, ids), load_environments(root, ids), target)
