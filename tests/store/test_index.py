"""A row of the index is what reading the run gives, or it is not used."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from resx.spec import RunSpec, build_spec
from resx.store import index
from resx.store.run import find_runs, open_run, read_record

DEPTHS = (8, 14, 20)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(index, "WORTHWHILE", 1)
    monkeypatch.setattr(index, "SETTLED", 0.0)
    for depth in DEPTHS:
        finish(tmp_path, build_spec({"preset": "digits", "depth": depth, "drops": [0.5, 0.75]}))
    assert all(record.run for record in index.read_records(tmp_path)), "nothing is known yet"
    assert (tmp_path / "runs" / index.INDEX).is_file()
    yield tmp_path
    read = [read_record(path) for path in find_runs(tmp_path)]
    for _ in range(2):  # with the index as it is, and as it was written anew
        records = index.read_records(tmp_path)
        assert [record.row for record in records] == [record.row for record in read]
        assert [record.damage for record in records] == [record.damage for record in read]


def finish(results: Path, spec: RunSpec) -> None:
    with open_run(results, spec) as run:
        run.save_checkpoint({}, [{"step": 276, "test_error": 7.0}])
        run.finish({"run_id": run.run_id, "status": "finished", "steps_done": 276, "test_error": 7.0})


def from_index(results: Path) -> int:
    return sum(record.run is None and record.damage is None for record in index.read_records(results))


def test_what_is_known_is_not_read_again(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(index, "read_record", lambda path: pytest.fail(f"{path} is read"))
        records = index.read_records(results)
    assert sorted(record.row["depth"] for record in records) == list(DEPTHS)


@pytest.mark.parametrize("name", index.SOURCES)
def test_a_changed_file_is_seen_even_with_its_old_size_and_time(results: Path, name: str) -> None:
    file = find_runs(results)[0] / name
    status, data = file.stat(), bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert index.read_records(results)[0].damage
    assert from_index(results) == len(DEPTHS) - 1


def test_a_run_that_goes_on_is_read_again(results: Path) -> None:
    spec = build_spec({"preset": "digits", "depth": 26})
    with open_run(results, spec) as run:
        run.save_checkpoint({}, [{"step": 0, "test_error": 90.0}])
    assert "unfinished" in {record.row["status"] for record in index.read_records(results)}
    finish(results, spec)
    assert {record.row["status"] for record in index.read_records(results)} == {"finished"}


def cut(data: bytes) -> bytes:
    return data[:-9]


def flip(data: bytes) -> bytes:
    return data.replace(b"7.0", b"6.0", 1)


def of_another_version(data: bytes) -> bytes:
    return data.replace(index.VERSION[0].encode(), b"0.0.1")


@pytest.mark.parametrize("damage", [cut, flip, of_another_version, bytes.upper, lambda data: b"", lambda data: b"[]"])
def test_a_damaged_index_is_made_anew(results: Path, damage: Callable[[bytes], bytes]) -> None:
    file = results / "runs" / index.INDEX
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert from_index(results) == 0
    assert from_index(results) == len(DEPTHS)


def test_without_a_manifest_no_row_is_kept(results: Path) -> None:
    (find_runs(results)[0] / "manifest.json").unlink()
    index.read_records(results)
    assert from_index(results) == len(DEPTHS) - 1
