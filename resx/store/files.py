"""Files that a kill or a full disk leaves whole: every write is a temporary file, fsync and rename; and locks.

Reading and writing turn every fault of the system into one StoreError that names the file.
"""

from __future__ import annotations

import csv
import errno
import fcntl
import io
import json
import logging
import math
import os
import platform
import secrets
import shutil
import stat
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import IO, Any

from resx.spec import SpecError

LOG = logging.getLogger("resx")
TEMPORARY = ".*.tmp"  # what a kill in the middle of a write leaves behind
MAX_DIGITS = 30  # of a whole number: more than any number here has, and than a float holds
MAX_TEXT = 64 * 2**20  # bytes of a JSON file; a record takes a few thousand
_NOT_SUPPORTED = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}
_NO_SYNC = _NOT_SUPPORTED | {errno.EBADF, errno.EISDIR, errno.EACCES, errno.EPERM}  # of a folder, or no opening it
_HINTS = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
    errno.EROFS: "the file system is read-only; choose another folder with --results",
    errno.EACCES: "no permission; choose another folder with --results",
    errno.EPERM: "no permission; choose another folder with --results",
}


class StoreError(RuntimeError):
    """Something recorded cannot be read or written. One line: which file, what is wrong, what to do."""


LOOKS, LOOK = 5, 0.01  # tries, and seconds between them: asking whether a lock is held takes it for a moment
RENEWED, STALE = 20.0, 120.0  # seconds between renewals of a file that replaces a lock, and until one is abandoned


class Busy(StoreError):
    """Another process holds the lock. `holder` says which, as far as it can be known."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(path, holder)
        self.path, self.holder = path, holder

    def __str__(self) -> str:
        who = f" ({self.holder})" if self.holder else ""
        return f"{self.path.parent}: another process{who} is working on it; wait for it"


class LeftToOthers(StoreError):
    """Other processes work on what is missing, and the caller did not want to wait for them. One line."""


def results_root(option: Path | None = None) -> Path:
    """Return the folder for results: the option, else RESX_RESULTS, else results/ in the current folder."""
    return Path(option or os.environ.get("RESX_RESULTS") or "results")


def is_published(source: Path) -> bool:
    """Return whether a folder holds a published experiment rather than live runs."""
    return (source / "fields.json").is_file()


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file that takes the place of `path` when the block ends without an exception.

    It is created exclusively (O_EXCL), under a random name, and follows no link. Raises StoreError.
    """
    if os.path.isdir(path):
        raise StoreError(f"{path}: is a folder; name a file in it")
    if not is_replaceable(path):
        raise StoreError(f"{path}: is a device or a pipe, which no file may take the place of; name a file")
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(temporary, flags, 0o666), "wb") as file:
            yield file
            file.flush()
            with _without_sync(_NOT_SUPPORTED, "files"):
                os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise StoreError(cannot_write(path, error)) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file so that it is either the old one or the new one, whatever happens. Raises StoreError."""
    data = content.encode() if isinstance(content, str) else content
    with atomic_file(path) as file:
        file.write(data)


def refuse_unwritable(path: Path) -> None:
    """Raise SpecError where a file or folder of this name cannot be written: a check before long work."""
    place = next(one for one in (path.absolute(), *path.absolute().parents) if one.exists() or one.is_symlink())
    if place != path.absolute() and not place.is_dir():
        raise SpecError(f"{path}: cannot be written: {place} is not a folder")
    if not place.is_dir() and not is_replaceable(place):
        raise SpecError(f"{path}: is a device or a pipe, which no file may take the place of; name a file")
    folder = place if place.is_dir() else place.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SpecError(f"{path}: cannot be written: no permission in {folder}")


def is_replaceable(path: Path) -> bool:
    """Whether a new file may replace what is there: a regular file, a broken link, or nothing."""
    return os.path.isfile(path) or not os.path.exists(path)


def cannot_write(path: Path, error: OSError) -> str:
    return f"{path}: cannot be written: {_HINTS.get(error.errno or 0, error.strerror or error)}"


def sync_folder(folder: Path) -> None:
    """Make a rename durable. Some file systems cannot; one line says so."""
    with _without_sync(_NO_SYNC, "folders"):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def _without_sync(tolerated: Collection[int], what: str) -> Iterator[None]:
    """Go on where the file system cannot sync, with a line; any other fault is raised."""
    try:
        yield
    except OSError as error:
        if error.errno not in tolerated:
            raise
        say_once(f"this file system cannot sync {what}: a loss of power may lose the last files written")


@cache
def say_once(line: str) -> None:
    """Log a line, once in this process."""
    LOG.warning(line)


def remove_temporary(folder: Path) -> None:
    """Remove what killed writes left in a folder and below it; the caller holds the folder's lock."""
    for file in folder.rglob(TEMPORARY):
        with suppress(OSError):
            file.unlink()


def remove_tree(folder: Path) -> int:
    """Delete a folder and return the bytes of its files."""
    size = sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file())
    shutil.rmtree(folder, ignore_errors=True)
    return size


def read_file(path: Path | str, limit: int | None = None) -> bytes:
    """Return a regular file's content; a pipe or a device is refused, not waited for.

    limit: bytes, at most. Raises FileNotFoundError where there is no such file, StoreError for any other fault.
    """
    try:
        with open(path, "rb", buffering=0, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise StoreError(f"{path}: not a regular file")
            if limit is not None and status.st_size > limit:
                raise StoreError(f"{path}: damaged ({status.st_size:,} bytes, at most {limit:,} can be right)")
            return file.read()
    except FileNotFoundError:
        raise
    except (OSError, ValueError, MemoryError) as error:  # ValueError: a zero byte in the name
        reason = getattr(error, "strerror", None) or str(error) or "not enough memory"
        raise StoreError(f"{path}: cannot be read ({reason})") from error


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Return a table as CSV, empty where a row has no value; other values of a row are left out."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def to_json(content: Any) -> str:
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def parse_json(data: bytes, path: Path) -> Any:
    """Parse a JSON file's bytes. Raises StoreError, for nan, endless digits and endless nesting too."""
    try:
        return _DECODER.decode(data.decode())
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path}: damaged (not valid JSON)") from error


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(digits)
    return value


def _short(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(digits)
    return int(digits)


_DECODER = json.JSONDecoder(parse_constant=_finite, parse_float=_finite, parse_int=_short)


def read_json(path: Path) -> Any:
    """Return the content of a JSON file. Raises StoreError where it is absent, cannot be read or is damaged."""
    try:
        return parse_json(read_file(path, MAX_TEXT), path)
    except FileNotFoundError as error:
        raise StoreError(f"{path}: is missing") from error


@contextmanager
def hold_lock(path: Path, *, make: bool = False) -> Iterator[Callable[[], bool]]:
    """Hold the lock file `path`; raise Busy where another process does, and not just for a look at it.

    The lock is the kernel's (flock), so a killed process leaves none behind. On a file system without locks, a file
    that only one process can create (O_EXCL) replaces it: its owner renews it, and one that has not been renewed for
    two minutes is taken over. Yields a function that tells whether this process still has the lock: it was neither
    taken over nor removed with its folder. make: its folder, again if it is removed meanwhile. Raises StoreError.
    """
    while True:
        try:
            if make:
                path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise StoreError(cannot_write(path.parent, error)) from error
        with open(handle, "r+b", buffering=0) as lock:
            owned = _take(lock, path)
            try:
                if _is_still(lock, path):  # else its folder was removed while this process waited to open it
                    with suppress(OSError):
                        lock.truncate(0)
                        lock.write(_me().encode())
                    with _renewing(owned):
                        yield partial(_is_mine, owned, lock, path)
                    return
            finally:
                if owned is not None and _names_me(owned):
                    owned.unlink(missing_ok=True)


def lock_holder(path: Path) -> str | None:
    """Return which process holds the lock file `path`, or None where none does; the file stays as it is."""
    try:
        with open(os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC), "r+b", buffering=0) as lock:
            owned = _take(lock, path)
            if owned is not None:
                owned.unlink(missing_ok=True)
    except Busy as error:
        return error.holder or "another process"
    except (OSError, StoreError):  # there is no lock, or this process may not take it
        return None
    return None


@contextmanager
def wait_for_lock(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file `path` as soon as no other process does; one line says what is waited for.

    Where no lock can be made (a read-only folder), go on without: the lock only saves doing the work twice.
    """
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(hold_lock(path, make=True))
                stack.callback(path.unlink, missing_ok=True)  # while it is held: a waiting process creates another
                break
            except Busy as error:
                say_once(f"waiting for {what} ({error.holder or 'another process'})")
                time.sleep(0.2)
            except StoreError:
                break
        yield


def _take(lock: IO[bytes], path: Path) -> Path | None:
    """Take the kernel's lock, or return the file that replaces it where the file system has no locks."""
    for _ in range(LOOKS - 1):
        with suppress(Busy):
            return _try_to_take(lock, path)
        time.sleep(LOOK)
    return _try_to_take(lock, path)


def _try_to_take(lock: IO[bytes], path: Path) -> Path | None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return None
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
            raise Busy(path, _text(path)) from error
        if error.errno not in _NOT_SUPPORTED:
            raise StoreError(cannot_write(path, error)) from error
    say_once(f"this file system has no locks: files replace them, taken over if not renewed for {STALE:g} s")
    return _own(path.with_name(f"{path.name}-owner"))


@contextmanager
def _renewing(owner: Path | None) -> Iterator[None]:
    """Renew the file that replaces a lock, as long as it names this process."""
    if owner is None:
        yield
        return
    done = threading.Event()

    def renew() -> None:
        while not done.wait(RENEWED) and _names_me(owner):
            with suppress(OSError):
                os.utime(owner)  # by the file system's clock

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _is_stale(owner: Path) -> bool:
    """Whether a file has not been renewed for long, by its file system's clock, which all machines share."""
    now = owner.with_name(f"{owner.name}-{secrets.token_hex(8)}")
    try:
        now.touch()
        return now.stat().st_mtime - owner.stat().st_mtime > STALE
    except OSError:
        return False
    finally:
        now.unlink(missing_ok=True)


def _own(owner: Path) -> Path:
    for _ in range(2):
        try:
            with open(os.open(owner, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666), "w") as file:
                file.write(_me())
            return owner
        except FileExistsError as error:
            holder = _text(owner)
            if not _is_dead(holder):
                if not _is_stale(owner):
                    raise Busy(owner, holder) from error
                say_once(f"{owner.parent}: {holder} has not been seen for {STALE:g} s; its lock is taken over")
            aside = owner.with_name(f"{owner.name}-{secrets.token_hex(8)}")  # of several, one can move it aside
            with suppress(FileNotFoundError):
                os.rename(owner, aside)
                if _text(aside) != holder:  # another took over in between: give its file back
                    os.rename(aside, owner)
                else:
                    aside.unlink()
        except OSError as error:
            raise StoreError(cannot_write(owner, error)) from error
    raise Busy(owner, _text(owner))


def _is_mine(owner: Path | None, lock: IO[bytes], path: Path) -> bool:
    """Whether this process still has a lock: its file is the one at `path`, and a file that replaces it names it."""
    return _is_still(lock, path) and (owner is None or _names_me(owner))


def _names_me(owner: Path) -> bool:
    return _text(owner) == _me()


def _me() -> str:
    return f"process {os.getpid()} on {platform.node()}"


def _is_dead(holder: str) -> bool:
    """Whether a holder was a process of this machine that has ended."""
    words = holder.split()
    if len(words) != 4 or words[3] != platform.node() or not words[1].isdecimal():
        return False
    try:
        os.kill(int(words[1]), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        pass
    return False


def _text(path: Path) -> str:
    try:
        return read_file(path, 200).decode(errors="replace").strip()
    except (OSError, StoreError):
        return ""


def _is_still(lock: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock.fileno()), os.stat(path))
    except OSError:
        return False
