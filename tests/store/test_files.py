"""Files and locks: what is written takes no device's place, what is read is a number, who looks leaves nothing."""

from __future__ import annotations

import errno
import os
import platform
import shutil
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from resx.spec import RunSpec, SpecError
from resx.store import files
from resx.store.files import Busy, StoreError, hold_lock, lock_holder, parse_json, refuse_unwritable, write_atomic
from resx.store.run import holder, open_run

ELSEWHERE = "process 1 on elsewhere"


@pytest.mark.parametrize("name", ["pipe", "link"])
def test_a_file_takes_the_place_of_no_device_or_pipe(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for write in (lambda path: write_atomic(path, "text"), refuse_unwritable):
        with pytest.raises((StoreError, SpecError), match=f"{name}: is a device or a pipe"):
            write(tmp_path / name)
    assert stat.S_ISFIFO((tmp_path / name).stat().st_mode)


@pytest.mark.parametrize("name", [".", "..", "folder"])
def test_a_file_takes_the_place_of_no_folder(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder" / "folder").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "folder")
    with pytest.raises(StoreError, match="is a folder; name a file in it"):
        write_atomic(Path(name), "text")


@pytest.mark.parametrize("text", ["1e999", "-1e999", "NaN", "1" * 400, "[" * 10**5])
def test_a_number_that_no_float_holds_is_damage(text: str) -> None:
    with pytest.raises(StoreError, match="not valid JSON"):
        parse_json(text.encode(), Path("x.json"))


def test_who_looks_at_a_lock_leaves_it_as_it_is(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    assert lock_holder(lock) is None and not lock.exists()
    with hold_lock(lock):
        assert str(os.getpid()) in (lock_holder(lock) or "")
    lock.write_text("process 1 on another machine")
    assert lock_holder(lock) is None
    assert lock.read_text() == "process 1 on another machine"


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: Any) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(files.fcntl, "flock", refuse)
    files.say_once.cache_clear()


def age(owner: Path, seconds: float) -> None:
    os.utime(owner, (time.time() - seconds,) * 2)


@pytest.mark.usefixtures("no_locks")
def test_two_processes_on_one_run_are_kept_apart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spec = RunSpec()
    with open_run(tmp_path, spec) as run:
        run.record_attempt({"seconds": 1}, replace=False)
        run.save_checkpoint({"step": 0}, [])
        assert holder(tmp_path, spec.run_id) == f"process {os.getpid()} on {platform.node()}"
        with pytest.raises(Busy), open_run(tmp_path, spec):
            pass
    assert holder(tmp_path, spec.run_id) is None
    assert not list(run.path.glob(".lock-*")), "nothing is left behind"
    assert len([line for line in caplog.messages if "has no locks" in line]) == 1


@pytest.mark.usefixtures("no_locks")
def test_who_is_not_seen_any_more_loses_the_lock(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    owner = tmp_path / ".lock-owner"
    owner.write_text(ELSEWHERE)
    age(owner, 100)
    with pytest.raises(Busy, match=ELSEWHERE), hold_lock(tmp_path / ".lock"):
        pass
    age(owner, 200)
    with hold_lock(tmp_path / ".lock") as is_mine:
        assert is_mine()
    assert not owner.exists()
    assert [line for line in caplog.messages if "taken over" in line and ELSEWHERE in line]


@pytest.mark.usefixtures("no_locks")
def test_an_owner_renews_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "RENEWED", 0.01)
    owner = tmp_path / ".lock-owner"
    with hold_lock(tmp_path / ".lock"):
        age(owner, 200)
        limit = time.monotonic() + 20
        while owner.stat().st_mtime < time.time() - 100:
            assert time.monotonic() < limit, "it is not renewed"
            time.sleep(0.01)


@pytest.mark.usefixtures("no_locks")
def test_who_was_taken_for_dead_writes_nothing_more(tmp_path: Path) -> None:
    """As a process that was stopped for minutes and goes on."""
    spec = RunSpec()
    with pytest.raises(StoreError, match="has taken this run over"), open_run(tmp_path, spec) as run:
        run.save_checkpoint({"step": 0}, [])
        before = (run.path / "checkpoint.pt").read_bytes()
        (run.path / ".lock-owner").write_text(ELSEWHERE)
        run.save_checkpoint({"step": 1}, [])
    assert (run.path / "checkpoint.pt").read_bytes() == before
    assert (run.path / ".lock-owner").read_text() == ELSEWHERE


@pytest.mark.parametrize(
    ("call", "number"),
    [
        *(("fsync", number) for number in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EACCES)),
        *(("open", number) for number in (errno.EINVAL, errno.EACCES)),
    ],
)
def test_where_folders_cannot_be_synced_that_is_said_once(
    tmp_path: Path, call: str, number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original = getattr(os, call)

    def refuse(what: Any, *given: Any) -> Any:
        if stat.S_ISDIR(os.stat(what).st_mode if os.path.exists(what) else 0):
            raise OSError(number, os.strerror(number))
        return original(what, *given)

    files.say_once.cache_clear()
    monkeypatch.setattr(os, call, refuse)
    for text in ("first", "second"):
        write_atomic(tmp_path / "file", text)
    assert (tmp_path / "file").read_text() == "second"
    assert len([line for line in caplog.messages if "cannot sync folders" in line]) == 1


def test_a_fault_of_the_disk_is_no_want_of_a_feature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(handle: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreError, match="Input/output error"):
        write_atomic(tmp_path / "file", "text")


@pytest.mark.parametrize("again", [False, True])
def test_a_run_that_is_removed_while_it_is_trained_does_not_come_back(tmp_path: Path, again: bool) -> None:
    """Nor is it written by two: another process may train it anew, and hold its lock."""
    spec = RunSpec()
    with pytest.raises(StoreError, match="or removed it"), open_run(tmp_path, spec) as run:
        run.save_checkpoint({"step": 0}, [])
        shutil.rmtree(run.path)
        if again:
            with open_run(tmp_path, spec) as other:
                other.save_checkpoint({"step": 5}, [])
        for write in (lambda: run.save_snapshot(1, {}), lambda: run.save_checkpoint({"step": 1}, [])):
            with pytest.raises(StoreError, match="or removed it"):
                write()
        run.finish({})
    assert run.path.exists() == again
    assert (other.load_checkpoint() if again else None) == (({"step": 5}, []) if again else None)
