"""Processes that start at once: forks of a process that has imported what takes seconds, where `spawn` does so in each.

As with `spawn`, a process inherits nothing of what tests did, and has the environment and the folder of its start.
"""

from __future__ import annotations

import os
import signal
import sys
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

IMPORTED = ["torch._dynamo", "sklearn.datasets", "resx.lab", "resx.engines.processes", "resx.bench.process"]


class Fork(ForkServerProcess):
    """A process with the environment and the folder of the one that starts it now; the server has the first one's."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.place = dict(os.environ), os.getcwd()

    def run(self) -> None:
        environment, folder = self.place
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        forkserver._forkserver.ensure_running = lambda: None  # what it starts comes from the same server
        super().run()


class Forks(ForkServerContext):
    """What `multiprocessing.get_context` returns, with such processes."""

    Process = Fork


FORKS = Forks()
FORKS.set_forkserver_preload(IMPORTED)


def python(source: str, *arguments: str, out: Path | None = None, err: Path | None = None) -> Fork:
    """Start `python -c source arguments`, with what it writes in files."""
    process = Fork(target=_execute, args=(source, arguments, out, err))
    process.start()
    return process


def _execute(source: str, arguments: tuple[str, ...], out: Path | None, err: Path | None) -> None:
    for number, path in ((1, out), (2, err)):
        if path is not None:
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background ignores it
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # the server may have been started where signals were blocked
    sys.argv = ["-c", *arguments]
    exec(compile(source, "<source>", "exec"), {"__name__": "__main__"})
