"""Tasks on a Ray cluster, or on a Ray that is started here for the time of the command: core tasks, no scheduler.

Every task gets a process of its own, with one CPU and one thread. Ray restarts a task whose process or node died, and
it resumes from its checkpoint; what fails is not tried again. All nodes should see the results folder: from a node that
does not, finished runs come back as a bundle, and a task that died there may begin again.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from resx.engines import here
from resx.engines.remote import Follower, Returned, absolute, is_alone, marked, perform_and_return, take_in
from resx.engines.signals import interrupts_blocked, stop_signals
from resx.engines.tasks import ENGINES, Ended, Task, failure
from resx.spec import SpecError, first_line
from resx.store.files import StoreError, say_once
from resx.training.loop import Report, Stopped
from resx.training.machine import Machine

RETRIES = 2  # of a task whose process died
STORE = 80 * 2**20  # bytes of Ray's object store, its minimum: nothing large goes through it
STOPPING = 60.0  # seconds for the tasks' checkpoints


@ENGINES.register("ray")
def run(tasks: Sequence[Task], machine: Machine, report: Report, ended: Ended) -> dict[str, str]:
    """Give every task to Ray, wait for all, and return a line for each that failed."""
    ray = _package()
    there = absolute(machine)
    gpus = (machine.gpus_per_task or 1.0) if machine.device.startswith("cuda") else 0.0
    follower = Follower(machine, report)
    errors: dict[str, str] = {}
    unseen: list[Task] = []  # that need the results folder and did not see it
    with marked(machine.results) as mark, _connected(ray, machine), stop_signals() as stop:
        remote = ray.remote(num_cpus=1, num_gpus=gpus, max_calls=1, max_retries=RETRIES)(perform_and_return)
        running = {remote.remote(task, there, mark, is_alone(task, machine.results)): task for task in tasks}
        while running and not stop.asked():
            done, _ = ray.wait(list(running), timeout=0.5)
            follower.look(list(running.values()))
            for reference in done:
                task = running.pop(reference)
                answer = _answer(ray, task, reference, machine)
                if answer == Returned():
                    unseen.append(task)
                    continue
                error = take_in(answer.bundle or b"", machine.results) if isinstance(answer, Returned) else answer
                if error is not None:
                    errors[task.name] = error
                ended(task.name)
        if stop.asked():
            for reference in running:
                ray.cancel(reference)  # an interrupt in its process: it leaves a checkpoint
            ray.wait(list(running), num_returns=len(running), timeout=STOPPING)
            raise Stopped(signal=stop.signal)
    if unseen:
        say_once(f"the nodes do not see {machine.results}: {len(unseen)} tasks that need it are done here")
    return errors | here.run(unseen, machine, report, ended)


def _answer(ray: Any, task: Task, reference: Any, machine: Machine) -> str | Returned | None:
    try:
        answer: str | Returned | None = ray.get(reference)
        return answer
    except ray.exceptions.RayTaskError as error:
        return failure(task, error.cause or error, machine)
    except ray.exceptions.RayError as error:
        return (
            f"{task.name}: its process ended ({first_line(error)}); the same command goes on from its last checkpoint"
        )


def _package() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # its warning of a change to come
    try:
        import ray
    except ImportError as error:
        raise SpecError("--engine ray: needs Ray; install it with: pip install 'resx[ray]'") from error
    return ray


@contextmanager
def _connected(ray: Any, machine: Machine) -> Iterator[None]:
    """Join the cluster at the machine's address; without one, start Ray here and finally end it."""
    if ray.is_initialized():  # by the caller, who also ends it
        yield
        return
    options: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "runtime_env": {"env_vars": {"OMP_NUM_THREADS": "1"}},
    }
    folder = None
    if machine.address:
        options["address"] = machine.address
    else:
        folder = tempfile.mkdtemp(prefix="resx-ray-", dir="/tmp")  # Ray's sockets need a short path
        options |= {
            "num_cpus": machine.jobs if machine.device == "cpu" else None,
            "include_dashboard": False,
            "object_store_memory": STORE,
            "_temp_dir": folder,
        }
    try:
        with interrupts_blocked():  # Ctrl-C is this process's alone
            try:
                ray.init(**options)
            except Exception as error:  # Ray raises Exception itself where a busy machine starts it too slowly
                where = machine.address or "this machine"
                raise StoreError(f"--engine ray: no Ray at {where} ({first_line(error)})") from error
        yield
    finally:
        ray.shutdown()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
