"""The one treatment of Ctrl-C and SIGTERM: what trains leaves a checkpoint, anything else is interrupted at once.

A terminal sends Ctrl-C to every process. Workers leave it to their parent, which ends them by SIGTERM. A signal that
was ignored when this process started, as a background job's SIGINT is, stays ignored.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import Any

from resx.training.loop import Stopped


@dataclass
class Stop:
    """Whether a signal asked this process to stop, and which. at_once: raise Stopped immediately."""

    signal: int | None = None
    at_once: bool = False

    def asked(self) -> bool:
        """Say whether a signal arrived."""
        return self.signal is not None

    def _receive(self, number: int, frame: Any) -> None:
        self.signal = self.signal or number
        if self.at_once:
            raise Stopped(signal=self.signal)


@contextmanager
def stop_signals(also: Sequence[int] = ()) -> Iterator[Stop]:
    """Note SIGINT, SIGTERM and `also` instead of dying of them; handlers are restored afterwards."""
    stop = Stop()
    before: dict[int, Any] = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM, *also):
            handler = signal.getsignal(number)
            if handler not in (signal.SIG_IGN, None):  # None: not set from Python, so left alone
                before[number] = signal.signal(number, stop._receive)
    except ValueError:  # not the main thread: whoever runs us handles signals
        yield stop
        return
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Keep Ctrl-C from processes that are started inside, even while they import; this process loses none."""
    resource_tracker.ensure_running()  # which unblocks signals when it starts, so it starts first
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
