"""Files that a kill or a full disk leaves whole: every write is a temporary file, fsync and rename; and locks.

Reading and writing turn every fault of the system into one StoreError that names the file.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import math
import os
import platform
import secrets
import stat
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import IO, Any, NoReturn

from resx.spec import SpecError

LOG = logging.getLogger("resx")
TEMPORARY = ".*.tmp"  # what a kill in the middle of a write leaves behind
MAX_DIGITS = 30  # of a whole number
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


LOOKS, LOOK = 5, 0.01  # times and seconds: who only asks whether a lock is held has it for a moment
# seconds: how often a file that stands for a lock is renewed, and after how long without that it is not held
RENEWED, STALE = 20.0, 120.0


class Busy(StoreError):
    """Another process holds the lock. `holder` says which, as far as it can be known."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(path, holder)
        self.path, self.holder = path, holder

    def __str__(self) -> str:
        who = f" ({self.holder})" if self.holder else ""
        return f"{self.path.parent}: another process{who} is working on it; wait for it"


class LeftToOthers(StoreError):
    """Other processes work on what is missing, and nobody was to wait for them. One line."""


def results_root(option: Path | None = None) -> Path:
    """Return where results go: the option, else RESX_RESULTS, else results/ of the current folder."""
    return Path(option or os.environ.get("RESX_RESULTS") or "results")


def is_published(source: Path) -> bool:
    """Return whether a folder holds a published experiment rather than live runs."""
    return (source / "fields.json").is_file()


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file that takes the place of `path` when the block ends without an exception.

    Its name is private: it is made anew (O_EXCL) and follows no link. Raises StoreError.
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
            _sync(file.fileno(), _NOT_SUPPORTED, "cannot sync files")
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
    """Raise SpecError where a file, or a folder, of this name cannot be written: for a check before long work."""
    place = next(one for one in (path.absolute(), *path.absolute().parents) if one.exists() or one.is_symlink())
    if place != path.absolute() and not place.is_dir():
        raise SpecError(f"{path}: cannot be written: {place} is no folder")
    if not place.is_dir() and not is_replaceable(place):
        raise SpecError(f"{path}: is a device or a pipe, which no file may take the place of; name a file")
    folder = place if place.is_dir() else place.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SpecError(f"{path}: cannot be written: no permission in {folder}")


def is_replaceable(path: Path) -> bool:
    """Whether a new file may take the place of what is there: of a regular file, of a broken link, of nothing."""
    return os.path.isfile(path) or not os.path.exists(path)


def cannot_write(path: Path, error: OSError) -> str:
    return f"{path}: cannot be written: {_HINTS.get(error.errno or 0, error.strerror or error)}"


def sync_folder(folder: Path) -> None:
    """Let a rename reach the disk. Some file systems cannot; that is said once."""
    line = "cannot sync folders"
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        _refuse_fault(error, _NO_SYNC, line)
        return
    try:
        _sync(handle, _NO_SYNC, line)
    finally:
        os.close(handle)


def _sync(handle: int, tolerated: Collection[int], line: str) -> None:
    try:
        os.fsync(handle)
    except OSError as error:
        _refuse_fault(error, tolerated, line)


def _refuse_fault(error: OSError, tolerated: Collection[int], line: str) -> None:
    if error.errno not in tolerated:
        raise error
    say_once(f"this file system {line}: a loss of power may lose the last files written")


@cache
def say_once(line: str) -> None:
    """Log a line, once in this process."""
    LOG.warning(line)


def remove_temporary(folder: Path) -> None:
    """Remove what killed writes left in a folder and below it; only for who holds the folder's lock."""
    for file in folder.rglob(TEMPORARY):
        with suppress(OSError):
            file.unlink()


def read_file(path: Path | str, limit: int | None = None) -> bytes:
    """Return a regular file's content; a pipe or a device is refused, not waited for.

    limit: most bytes that are read. Raises FileNotFoundError where there is none, StoreError for all else.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise StoreError(f"{path}: not a regular file")
            if limit is not None and status.st_size > limit:
                raise StoreError(f"{path}: damaged ({status.st_size:,} bytes, at most {limit:,} can be right)")
            parts = []
            while part := os.read(handle, max(status.st_size, 2**16)):  # thousands of small files: no file object
                parts.append(part)
            return b"".join(parts)
        finally:
            os.close(handle)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise StoreError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    except MemoryError as error:
        raise StoreError(f"{path}: cannot be read (not enough memory)") from error


def to_json(content: Any) -> str:
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def parse_json(data: bytes, path: Path) -> Any:
    """Return what a JSON file's bytes say. Raises StoreError, for nan, endless digits and endless nesting too."""
    try:
        return _DECODER.decode(data.decode())
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path}: damaged (not valid JSON)") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(digits)
    return value


def _short(digits: str) -> int:
    if len(digits) > MAX_DIGITS:  # more than any number here has, and than a float holds
        raise ValueError(digits)
    return int(digits)


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite, parse_int=_short)


def read_json(path: Path) -> Any:
    """Return the content of a JSON file. Raises StoreError where it is absent, cannot be read or is damaged."""
    try:
        return parse_json(read_file(path, MAX_TEXT), path)
    except FileNotFoundError as error:
        raise StoreError(f"{path}: is missing") from error


@contextmanager
def hold_lock(path: Path, *, make: Callable[[], object] = lambda: None) -> Iterator[Callable[[], bool]]:
    """Hold the lock file `path`, or raise Busy where another process does, for longer than a look at it takes.

    The lock is the kernel's (flock): a killed process leaves none behind. Where the file system has no locks, a file
    that only one process can make (O_EXCL) does the same: its owner renews it, and one that is not renewed for two
    minutes is taken over. What is yielded says whether the lock is still this process's: not taken over, not removed
    with its folder. make: makes the folder; called again where it was removed in the meantime. Raises StoreError.
    """
    while True:
        try:
            make()
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
    """Return which process holds the lock file `path`, or None where none does; it is left as it is."""
    try:
        with open(os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC), "r+b", buffering=0) as lock:
            owned = _take(lock, path)
            if owned is not None:
                owned.unlink(missing_ok=True)
    except Busy as error:
        return error.holder or "another process"
    except (OSError, StoreError):  # there is none, or this process may not take it
        return None
    return None


@contextmanager
def wait_for_lock(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file `path` as soon as no other process does; one line says what is waited for.

    Where no lock can be made (a read-only folder), go on without: it only serves that work is not done twice.
    """
    with ExitStack() as stack:
        waiting = False
        while True:
            try:
                stack.enter_context(hold_lock(path, make=lambda: path.parent.mkdir(parents=True, exist_ok=True)))
                stack.callback(path.unlink, missing_ok=True)  # while it is held: who waits for it makes another
                break
            except Busy as error:
                if not waiting:
                    LOG.warning("waiting for %s (%s)", what, error.holder or "another process")
                waiting = True
                time.sleep(0.2)
            except StoreError:
                break
        yield


def _take(lock: IO[bytes], path: Path) -> Path | None:
    """Take the kernel's lock, or return the file that stands for it where the file system has no locks."""
    for left in reversed(range(LOOKS)):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return None
        except OSError as error:
            if error.errno in _NOT_SUPPORTED:
                break
            if error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
                raise StoreError(cannot_write(path, error)) from error
            if not left:
                raise Busy(path, _text(path)) from error
            time.sleep(LOOK)
    say_once(
        f"this file system has no locks: a file stands for each, and is taken over if it is not renewed for {STALE:g} s"
    )
    owner = path.with_name(f"{path.name}-owner")
    for left in reversed(range(LOOKS)):
        try:
            return _own(owner)
        except Busy:
            if not left:
                raise
            time.sleep(LOOK)
    raise AssertionError


@contextmanager
def _renewing(owner: Path | None) -> Iterator[None]:
    """Renew the file that stands for a lock, as long as it is this process's."""
    if owner is None:
        yield
        return
    done = threading.Event()

    def renew() -> None:
        while not done.wait(RENEWED) and _names_me(owner):
            with suppress(OSError):
                os.utime(owner)  # to the time of the file system's machine

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _is_stale(owner: Path) -> bool:
    """Whether a file has not been renewed for long, by the clock of its file system, which all machines share."""
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
    """Whether a lock is still this process's: its file is the one at `path`, and a file that stands for it names it."""
    return _is_still(lock, path) and (owner is None or _names_me(owner))


def _names_me(owner: Path) -> bool:
    return _text(owner) == _me()


def _me() -> str:
    return f"process {os.getpid()} on {platform.node()}"


def _is_dead(holder: str) -> bool:
    """Whether a holder was a process of this machine that is gone."""
    words = holder.split()
    if len(words) != 4 or words[3] != platform.node() or not words[1].isdecimal():
        return False
    try:
        os.kill(int(words[1]), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
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
