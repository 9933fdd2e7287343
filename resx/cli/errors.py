"""From an exception to one line and an exit code: 1 a run or the system failed, 2 bad input, 130 and 143 signals."""

from __future__ import annotations

import errno
import os
import sys
from importlib import import_module

from resx.spec import printable
from resx.store.files import LeftToOthers, StoreError


def handle(error: Exception) -> int:
    """Print one line for what is no fault of the program; anything else is a bug and shows its traceback."""
    if hasattr(error, "format_message"):  # Typer's own usage errors; where their class lives depends on its version
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "resx"
        return fail([f"{error.format_message()} (see {path} --help)"], 2)
    if isinstance(error, LeftToOthers):
        return fail([str(error)], 0)
    if isinstance(error, StoreError):
        return fail([str(error)], 1)
    if isinstance(error, OSError):
        return _handle_system(error)
    if isinstance(error, UnicodeError):
        return fail([f"text that cannot be read or written: {error}"], 1)
    if isinstance(error, RecursionError):
        return fail(["something is nested too deeply, or the network is too deep"], 1)
    if _is_stopped(error):
        where = f"{error.run_id} at step {error.step}; " if error.run_id else ""  # type: ignore[attr-defined]
        line = f"stopped: {where}checkpoints are kept, the same command goes on from there"
        return fail([line], 128 + (error.signal or 2))  # type: ignore[attr-defined]
    if _is_out_of_memory(error):
        return fail(["out of memory: use a smaller --batch-size, or --checkpoint-activations in training"], 1)
    raise error


def _handle_system(error: OSError) -> int:
    if isinstance(error, BrokenPipeError):  # `resx runs list | head`: whoever read us has gone
        _close_stdout()
        return 0
    if error.filename is None and error.errno in (errno.ENOSPC, errno.EIO, errno.EBADF):
        _close_stdout()
        return fail([f"stdout: cannot be written ({error.strerror})"], 1)
    place = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    return fail([f"{place}{error.strerror or error}"], 1)


def _close_stdout() -> None:
    """Discard what is still to be written, so that the interpreter's own last flush does not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_stopped(error: Exception) -> bool:
    return "torch" in sys.modules and isinstance(error, import_module("resx.training.loop").Stopped)


def _is_out_of_memory(error: Exception) -> bool:
    if "torch" not in sys.modules:
        return isinstance(error, MemoryError)
    return bool(import_module("resx.training.memory").is_out_of_memory(error))


def fail(lines: list[str], code: int) -> int:
    """Print a line each, and return the exit code."""
    for line in lines:
        print(f"resx: {printable(' '.join(line.split()))}", file=sys.stderr)
    return code
