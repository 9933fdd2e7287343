"""Programs that start at once: forks of a process that has imported torch, which takes seconds in each."""

from __future__ import annotations

import os
import signal
import sys
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from resx.engines.processes import start


def python(source: str, *arguments: str, out: Path | None = None, err: Path | None = None) -> Any:
    """Start `python -c source arguments`, with what it writes in files, and return the process."""
    process, connection = start(_execute, source, arguments, out, err, daemon=False)
    connection.close()
    return process


def _execute(
    connection: Connection, source: str, arguments: tuple[str, ...], out: Path | None, err: Path | None
) -> None:
    for number, path in ((1, out), (2, err)):
        if path is not None:
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background ignores it
    forkserver._forkserver.ensure_running = lambda: None  # what it starts are forks of the same process
    sys.argv = ["-c", *arguments]
    exec(compile(source, "<source>", "exec"), {"__name__": "__main__"})
