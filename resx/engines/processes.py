"""Runs in processes of one thread each; a worker that dies fails its run, and another takes its place."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from resx.engines.here import Datasets, Report, train_group
from resx.engines.signals import stop_signals
from resx.registry import load_plugin
from resx.spec import RunSpec, SpecError
from resx.store.files import StoreError
from resx.training.loop import Progress, Stopped
from resx.training.machine import Machine


@dataclass
class _Worker:
    process: Any
    connection: Connection
    spec: RunSpec | None = None


def train_in_processes(todo: Sequence[RunSpec], machine: Machine, report: Report) -> dict[str, str]:
    """Hand runs to worker processes; a worker that dies fails its run, and another takes its place."""
    errors: dict[str, str] = {}
    waiting = list(reversed(todo))
    workers: list[_Worker] = []
    stopped: Stopped | None = None
    with stop_signals() as received:
        try:
            while waiting or any(worker.spec for worker in workers):
                while waiting and not received and len(workers) < machine.jobs:
                    workers.append(_start_worker(machine))
                for worker in workers:
                    if worker.spec is None and waiting and not received:
                        worker.spec = waiting.pop()
                        worker.connection.send(worker.spec)
                if received:
                    waiting.clear()
                    for worker in workers:
                        worker.process.terminate()  # SIGTERM: it leaves a checkpoint and says so
                    stopped = stopped or Stopped("", 0, signal=received[0])
                for ready in wait([worker.connection for worker in workers], timeout=0.5):
                    worker = next(worker for worker in workers if worker.connection is ready)
                    try:
                        message = worker.connection.recv()
                    except (EOFError, ConnectionResetError):
                        workers.remove(worker)
                        if worker.spec and not received:
                            worker.process.join()
                            errors[worker.spec.run_id] = _death(worker)
                        continue
                    if isinstance(message, Progress):
                        report(message)
                    elif isinstance(message, Stopped):
                        stopped = Stopped(
                            message.run_id, message.step, signal=received[0] if received else message.signal
                        )
                        worker.spec = None
                    else:
                        if message is not None and worker.spec:
                            errors[worker.spec.run_id] = message
                        worker.spec = None
        finally:
            for worker in workers:
                worker.connection.close()  # the worker reads the end of its input and ends
            for worker in workers:
                worker.process.join()
    if stopped:
        raise stopped
    return errors


def _death(worker: _Worker) -> str:
    assert worker.spec is not None
    code = worker.process.exitcode
    how = f"killed by signal {-code}" if code and code < 0 else f"ended with code {code}"
    return f"{worker.spec.run_id}: its process was {how}; the same command goes on from its last checkpoint"


def _start_worker(machine: Machine) -> _Worker:
    context = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(there, machine), daemon=True)
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if in_main else None
    process.start()  # it ignores Ctrl-C until it can leave a checkpoint
    if in_main:
        signal.signal(signal.SIGINT, before)
    there.close()
    return _Worker(process, here)


def _work(connection: Connection, machine: Machine) -> None:
    """Train what the parent sends, one spec at a time; stop, with a checkpoint, when told to or when it is gone."""
    torch.set_num_threads(1)
    if machine.plugin:
        load_plugin(machine.plugin)
    datasets = Datasets(machine.data_dir)
    with stop_signals() as received:
        parent = os.getppid()

        def should_stop() -> bool:
            return bool(received) or os.getppid() != parent

        while not should_stop():
            try:
                spec = connection.recv()
            except (EOFError, OSError):
                return
            answer: Stopped | str | None = None
            try:
                train_group([spec], datasets, machine, connection.send, should_stop)
            except Stopped as stopped:
                answer = stopped
            except (StoreError, SpecError) as error:
                answer = str(error)
            except OSError:  # the parent is gone, and with it whoever reads this
                return
            connection.send(answer)
