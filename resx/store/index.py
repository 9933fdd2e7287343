"""An index of the rows of recorded runs, so that a folder of thousands is listed without reading each run again.

It is made from the runs and never the truth: a row counts for as long as no file that it comes from has been touched,
and an index that is missing or damaged is made anew. Runs that are damaged or have no manifest are not in it.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import resx
from resx.spec import FIELDS
from resx.store.files import StoreError, read_file, write_atomic
from resx.store.manifest import MANIFEST
from resx.store.run import Record, find_runs, read_record

INDEX = ".index.json"
SOURCES = (MANIFEST, "spec.json", "result.json")  # what a row is read from
WORTHWHILE = 64  # new rows that the index is written anew for
SETTLED = 5.0  # seconds after a file's last change within which another change may have the same time
VERSION = [resx.__version__, *FIELDS]  # what rows hold
Mark = list[list[int]]  # of each source: times of the last change, inode and size; empty where there is none


def read_records(results: Path) -> list[Record]:
    """Return the records of all runs in a folder, without curves, sorted by name.

    One that comes from the index has no `run`. Raises StoreError where the folder of the runs cannot be read.
    """
    file = results / "runs" / INDEX
    index = _load(file)
    records, rows, new = [], {}, 0
    for path in find_runs(results):
        mark = _mark(str(path))
        marked, row = index.get(path.name, (None, {}))
        if marked == mark:
            rows[path.name] = (mark, row)
            record = Record({**row, "run_id": path.name, "folder": str(path)})
        else:
            record = read_record(path)
            if record.run and _is_settled(mark) and _mark(str(path)) == mark and _is_plain(record.row):
                rows[path.name] = (mark, record.row)
                new += 1
        records.append(record)
    if new >= WORTHWHILE:
        with suppress(StoreError):  # a folder that only others write to is read as well
            _save(file, rows)
    return records


def _mark(folder: str) -> Mark:
    return [_change(f"{folder}{os.sep}{name}") for name in SOURCES]


def _change(file: str) -> list[int]:
    try:
        status = os.stat(file)
    except OSError:
        return []
    return [status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size]


def _is_settled(mark: Mark) -> bool:
    """Whether there is a manifest, and no file has just been written."""
    return bool(mark[0]) and time.time() - max(max(change[:2]) for change in mark if change) / 1e9 > SETTLED


def _is_plain(row: dict[str, Any]) -> bool:
    """Whether JSON gives back what a row holds, tuples as lists."""
    return all(isinstance(value, str | int | float | tuple | None) for value in row.values())


def _load(file: Path) -> dict[str, tuple[Mark, dict[str, Any]]]:
    """Return marks and rows by run id; none where the index is missing, damaged or another version's."""
    try:
        digest, _, body = read_file(file).partition(b"\n")
        if digest.decode() != hashlib.sha256(body).hexdigest():
            return {}
        version, keys, runs = json.loads(body)
    except (OSError, StoreError, ValueError, RecursionError):
        return {}
    if version != VERSION:
        return {}
    return {run_id: (mark, _row(keys[kind], values)) for run_id, (mark, kind, values) in runs.items()}


def _row(keys: list[str], values: list[Any]) -> dict[str, Any]:
    row = zip(keys, values, strict=True)
    return {key: tuple(value) if isinstance(value, list) else value for key, value in row}


def _save(file: Path, rows: dict[str, tuple[Mark, dict[str, Any]]]) -> None:
    kinds: dict[tuple[str, ...], int] = {}
    runs = {
        run_id: (mark, kinds.setdefault(tuple(row), len(kinds)), list(row.values()))
        for run_id, (mark, row) in rows.items()
    }
    body = json.dumps([VERSION, list(kinds), runs]).encode()
    write_atomic(file, hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
