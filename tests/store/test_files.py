"""Files and locks: what is written takes no device's place, what is read is a number, who looks leaves nothing."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from resx.spec import SpecError
from resx.store.files import StoreError, hold_lock, lock_holder, parse_json, refuse_unwritable, write_atomic


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
