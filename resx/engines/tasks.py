"""Tasks other than training, such as a measurement of a finished run: several at a time on a CPU, one at a time
elsewhere."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import active_children, get_context
from threading import current_thread, main_thread
from typing import Any

from resx.training.loop import Stopped
from resx.training.machine import Machine

Task = Callable[[], None]  # picklable; it records what it returns by itself


def run_tasks(tasks: Mapping[str, Task], machine: Machine, say: Callable[[str], None]) -> None:
    """Run every task. say: is given its name when it is done, and how many are.

    Raises Stopped on Ctrl-C or SIGTERM; what was recorded until then stays.
    """
    with _stopped_by_signals():
        if machine.jobs == 1 or len(tasks) == 1 or machine.device.startswith("cuda"):
            for count, (name, task) in enumerate(tasks.items(), 1):
                task()
                say(f"{name} ({count}/{len(tasks)})")
            return
        ignore = (signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; this one ends the others
        with ProcessPoolExecutor(machine.jobs, get_context("spawn"), signal.signal, ignore) as pool:
            futures = {pool.submit(task): name for name, task in tasks.items()}
            try:
                for count, future in enumerate(as_completed(futures), 1):
                    future.result()
                    say(f"{futures[future]} ({count}/{len(tasks)})")
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for process in active_children():
                    process.terminate()
                raise


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    def stop(number: int, frame: Any) -> None:
        raise Stopped("", 0, number)

    if current_thread() is not main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
