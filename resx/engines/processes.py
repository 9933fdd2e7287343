"""Tasks in processes of this machine: one thread each on a CPU, or one process for each of several GPUs.

A process that dies fails its task, and another takes its place; where this process dies, the workers leave their
checkpoints and end.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from resx.engines.signals import Stop, interrupts_blocked, stop_signals
from resx.engines.tasks import Desk, Ended, Task, failure, perform
from resx.store.files import StoreError
from resx.training.loop import Progress, Report, Stopped
from resx.training.machine import Machine, own_settings

OTHERS = ("torch._dynamo", "sklearn.datasets")  # modules that tasks import when they need them, a second each


@dataclass
class _Worker:
    """A process. machine: with its device. has_answered: it has ended a task before."""

    process: Any
    connection: Connection
    machine: Machine
    task: Task | None = None
    has_answered: bool = False


def run(
    tasks: Sequence[Task],
    places: Sequence[Machine],
    report: Report = lambda progress: None,
    ended: Ended = lambda name: None,
) -> dict[str, str]:
    """Run every task, one at a time at each place: the machine as a worker sees it."""
    with stop_signals() as stop:
        return _Pool(tasks, places, report, ended, stop).run()


class _Pool:
    def __init__(
        self, tasks: Sequence[Task], places: Sequence[Machine], report: Report, ended: Ended, stop: Stop
    ) -> None:
        self.waiting = list(reversed(tasks))
        self.free = list(reversed(places))  # where no worker is yet
        self.report, self.ended, self.stop = report, ended, stop
        self.workers: list[_Worker] = []
        self.errors: dict[str, str] = {}
        self.stopped: Stopped | None = None

    def run(self) -> dict[str, str]:
        try:
            while not self.stop.asked() and (self.waiting or self._busy()):
                self._hand_out()
                self._listen()
            if self.stop.asked():
                self.stopped = Stopped(signal=self.stop.signal)
                for worker in self.workers:
                    worker.process.terminate()  # SIGTERM: it leaves a checkpoint and says where
                while self._busy():
                    self._listen()
                raise self.stopped
        finally:
            for worker in self.workers:
                worker.connection.close()  # the worker reads the end of its input and ends
            for worker in self.workers:
                worker.process.join()
        return self.errors

    def _busy(self) -> list[_Worker]:
        return [worker for worker in self.workers if worker.task]

    def _hand_out(self) -> None:
        for worker in [worker for worker in self.workers if worker.task is None]:
            if self.waiting:
                self._give(worker)
        while self.waiting and self.free and not self.stop.asked():
            try:
                worker = _Worker(*start(_work, self.free[-1]), self.free[-1])
            except OSError as error:
                if not self.workers:
                    raise StoreError(f"no process can be started: {error.strerror or error}") from error
                self.free.clear()  # the workers that run must suffice
                return
            self.free.pop()
            self.workers.append(worker)
            self._give(worker)

    def _give(self, worker: _Worker) -> None:
        task = worker.task = self.waiting.pop()
        try:
            worker.connection.send(task)
        except OSError:  # it died while it had nothing to do; a new one that dies at once fails its task
            if worker.has_answered:
                worker.task = None
                self.waiting.append(task)
            self._bury(worker)
        except Exception as error:  # what cannot be pickled
            worker.task = None
            self._end(task, failure(task, error, worker.machine))

    def _listen(self) -> None:
        for ready in wait([worker.connection for worker in self.workers], timeout=0.5):
            worker = next(worker for worker in self.workers if worker.connection is ready)
            try:
                message = worker.connection.recv()
            except (EOFError, OSError):
                self._bury(worker)
                continue
            if isinstance(message, Progress):
                self.report(message)
                continue
            task, worker.task, worker.has_answered = worker.task, None, True
            if isinstance(message, Stopped):
                self.stopped = Stopped(message.run_id, message.step, self.stop.signal)
                if task and not self.stop.asked():  # somebody stopped this process alone
                    self._end(task, _death(task, -(message.signal or signal.SIGTERM)))
            elif task:
                self._end(task, message)

    def _end(self, task: Task, error: str | None) -> None:
        if error is not None:
            self.errors[task.name] = error
        self.ended(task.name)

    def _bury(self, worker: _Worker) -> None:
        """Take a dead worker away; its place is free again."""
        self.workers.remove(worker)
        self.free.append(worker.machine)
        worker.connection.close()
        worker.process.join()
        if worker.task and not self.stop.asked():
            self._end(worker.task, _death(worker.task, worker.process.exitcode))


def _death(task: Task, code: int | None) -> str:
    how = f"ended with code {code}"
    if code and code < 0:
        how = f"was killed by signal {-code}" + " (for want of memory, perhaps)" * (code == -signal.SIGKILL)
    return f"{task.name}: its process {how}; the same command goes on from its last checkpoint"


def start(target: Callable[..., None], *arguments: Any, daemon: bool = True) -> tuple[Any, Connection]:
    """Start a process that calls `target(connection, *arguments)`; return it and the connection's other end.

    A fork of this process would inherit torch's threads, and a new process takes seconds to import torch. So on Linux
    it is a fork of a server that has imported the same modules and done nothing else. Raises OSError.
    """
    context: Any = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    if sys.platform == "linux":
        context.set_forkserver_preload([*(name for name in sys.modules if name.startswith("resx.")), *OTHERS])
    here, there = context.Pipe()
    place = dict(os.environ), os.getcwd()
    process = context.Process(target=_in_place, args=(place, target, there, *arguments), daemon=daemon)
    with interrupts_blocked(), _script_hidden():
        try:
            process.start()
        except EOFError:  # the server could not fork and ended; the next start starts another
            raise OSError("the server of processes ended") from None
    there.close()
    return process, here


def _in_place(place: tuple[dict[str, str], str], target: Callable[..., None], *arguments: Any) -> None:
    """Call the target of a process, in the environment and folder that its parent had when it started it."""
    environment, folder = place
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    target(*arguments)


@contextmanager
def _script_hidden() -> Iterator[None]:
    """Keep a new process from importing the user's script, which would run again where nothing guards it.

    Tasks name functions of modules and need nothing of the script.
    """
    main = sys.modules["__main__"]
    hidden: dict[str, Any] = {name: vars(main).pop(name) for name in ("__file__", "__spec__") if name in vars(main)}
    main.__spec__ = None
    try:
        yield
    finally:
        vars(main).update(hidden)


def _work(connection: Connection, machine: Machine) -> None:
    """Run the parent's tasks, one at a time; stop, with a checkpoint, on its signal or when it is gone."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # even where the parent ignores it: this is how it ends workers

    def report(progress: Progress) -> None:
        with suppress(OSError):  # where the parent is gone a checkpoint is still to be left
            connection.send(progress)

    with stop_signals() as stop, own_settings(), suppress(EOFError, OSError, Stopped):
        threading.Thread(target=_end_with_parent, daemon=True).start()
        desk = Desk(machine, report, stop)
        while not stop.asked():
            stop.at_once = True
            task = connection.recv()
            stop.at_once = False
            answer: Stopped | str | None
            try:
                answer = perform(task, desk)
            except Stopped as stopped:
                answer = stopped
            connection.send(answer)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
