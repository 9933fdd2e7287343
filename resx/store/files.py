"""Files that a kill or a full disk leaves whole: every write is a temporary file, fsync and rename."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any


class StoreError(RuntimeError):
    """Something recorded cannot be read or written. One line: which file, what is wrong, what to do."""


def results_root(option: Path | None = None) -> Path:
    """Return where results go: the option, else RESX_RESULTS, else results/ of the current folder."""
    return Path(option or os.environ.get("RESX_RESULTS") or "results")


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file so that it is either the old one or the new one, whatever happens. Raises StoreError."""
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StoreError(cannot_write(path, error)) from error


def cannot_write(path: Path, error: OSError) -> str:
    hints = {
        errno.ENOSPC: "the disk is full; free some space and run the same command again",
        errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
        errno.EROFS: "the file system is read-only; choose another folder with --results",
        errno.EACCES: "no permission; choose another folder with --results",
    }
    return f"{path}: cannot be written: {hints.get(error.errno or 0, error.strerror or error)}"


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)  # the rename itself must reach the disk
    finally:
        os.close(handle)


def to_json(content: Any) -> str:
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise StoreError(f"{path}: damaged (not valid JSON); remove the run with `resx runs rm`") from error
