"""What is recorded stays: locks, damaged and foreign files, full disks."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from resx.spec import RunSpec
from resx.store.files import StoreError
from resx.store.run import RunFolder, find_runs, metrics_text, open_run, read_run, remove_run

SPEC = RunSpec(seed=7)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run with a checkpoint of one row and a result."""
    with open_run(tmp_path / "results", SPEC) as folder:
        folder.save_checkpoint({"step": 1, "weights": torch.ones(3)}, [{"step": 1.0, "train_error": 12.5}])
        folder.save_snapshot(0, {"w": torch.zeros(2)})
        folder.save_snapshot(3, {"w": torch.ones(2)})
        folder.finish({"run_id": folder.run_id, "status": "finished", "train_error": 12.5})
    return folder


def test_a_second_process_is_kept_out(run: RunFolder) -> None:
    results = run.path.parent.parent
    with open_run(results, SPEC), pytest.raises(StoreError, match="another process"), open_run(results, SPEC):
        pass
    with open_run(results, SPEC):  # and the lock is gone with whoever held it
        pass


def test_a_checkpoint_comes_back(run: RunFolder) -> None:
    saved = run.load_checkpoint()
    assert saved is not None
    state, rows = saved
    assert state["step"] == 1
    assert torch.equal(state["weights"], torch.ones(3))
    assert (run.path / "metrics.csv").read_text() == metrics_text(rows)


def test_snapshots_are_found_by_step(run: RunFolder) -> None:
    assert list(run.snapshots()) == [0, 3]
    assert torch.equal(run.load_weights()["w"], torch.ones(2))
    assert torch.equal(run.load_weights(0)["w"], torch.zeros(2))
    with pytest.raises(StoreError, match="no weights of step 2"):
        run.load_weights(2)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def make_foreign(path: Path) -> None:
    torch.save({"run_id": "someone-else", "state": {}, "rows": []}, path)


def make_pickle(path: Path) -> None:
    torch.save(Evil(), path)


class Evil:
    """Unpickled without care it would leave a file behind."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return (open, ("evil.txt", "w"))


@pytest.mark.parametrize("harm", [truncate, make_foreign, make_pickle])
def test_a_damaged_checkpoint_is_named_and_left(
    run: RunFolder, harm: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    path = run.path / "checkpoint.pt"
    harm(path)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"checkpoint\.pt"):
        run.load_checkpoint()
    assert path.read_bytes() == before
    assert not (tmp_path / "evil.txt").exists()


@pytest.mark.parametrize(("old", "new"), [('"seed": 7', '"seed": 8'), ('"depth": 20', '"deep": 20'), ("{", "")])
def test_an_edited_spec_is_refused(run: RunFolder, old: str, new: str) -> None:
    path = run.path / "spec.json"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(StoreError, match=r"spec\.json"):
        read_run(run.path)


def test_a_full_disk_loses_nothing(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()}

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="disk is full"):
        run.save_checkpoint({"step": 2}, [])
    assert {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()} == before


def test_a_read_only_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file where the folder should be")
    with pytest.raises(StoreError, match="cannot be written"), open_run(tmp_path / "results", SPEC):
        pass


def test_a_removed_run_is_gone(run: RunFolder) -> None:
    remove_run(run.path)
    assert find_runs(run.path.parent.parent) == []
