"""Tasks as jobs of a SLURM queue, through submitit: one task a job, all jobs of a sweep one array.

All nodes must see the results folder: a job writes its run there and returns a line. A job that is preempted or runs
out of time leaves a checkpoint, is queued again and resumes. `slurm/queued.json` in the results says which job has
which task, so that a later command finds the jobs again. Without `srun`, jobs are processes of this machine, `jobs` at
a time, so that a sweep can be tried without a queue.
"""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resx.engines.remote import Follower, absolute, perform_there
from resx.engines.signals import interrupts_blocked, stop_signals
from resx.engines.tasks import ENGINES, Ended, Task
from resx.spec import SpecError
from resx.store.files import LeftToOthers, StoreError, read_json, to_json, write_atomic
from resx.training.loop import Report, Stopped
from resx.training.machine import Machine

TIMEOUTS = 100  # how often a job that ran out of time is queued again
DEFAULTS: dict[str, Any] = {"timeout_min": 24 * 60, "cpus_per_task": 1}
NAMED = ("partition", "qos", "account", "gres", "mem", "constraint", "exclude", "array_parallelism")  # of submitit


@dataclass(frozen=True)
class Remote:
    """A task on its way to a node."""

    task: Task
    machine: Machine

    def __call__(self) -> str | None:
        requeue = signal.getsignal(signal.SIGUSR2)  # submitit's: SLURM sends it before it ends a job
        try:
            return perform_there(self.task, self.machine, also=(signal.SIGUSR2,))
        except Stopped as stopped:
            if stopped.signal != signal.SIGUSR2 or not callable(requeue):
                raise
        requeue(signal.SIGUSR2, None)  # does not return
        return None

    def checkpoint(self) -> Any:
        """Return what is queued again: the same task, which resumes from its checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


@ENGINES.register("slurm")
def run(tasks: Sequence[Task], machine: Machine, report: Report, ended: Ended) -> dict[str, str]:
    """Submit every task that no job has, wait for all, and return a line for each that failed.

    Ctrl-C cancels what is queued. Raises LeftToOthers with `detach`.
    """
    executor, is_local = _executor(machine)
    there = absolute(machine)
    running = _queued(tasks, executor, machine)
    waiting = [task for task in reversed(tasks) if task not in running]
    if machine.detach and is_local and len(waiting) > machine.jobs:
        raise SpecError(f"--detach: there is no srun here, so no queue that {len(waiting)} tasks could wait in")
    follower = Follower(machine, report)
    errors: dict[str, str] = {}
    with stop_signals() as stop:
        while (waiting or running) and not stop.asked():
            with interrupts_blocked() if is_local else executor.batch():
                while waiting and (not is_local or len(running) < machine.jobs):
                    task = waiting.pop()
                    running[task] = executor.submit(Remote(task, there))
            _record(running, machine)
            if machine.detach:
                jobs = ", ".join(dict.fromkeys(job.job_id.partition("_")[0] for job in running.values()))
                raise LeftToOthers(
                    f"{len(running)} tasks are left to jobs ({jobs}); the same command without --detach waits for them "
                    "and goes on from what they record"
                )
            finished = [task for task, job in running.items() if job.done()]
            follower.look(list(running))
            for task in finished:
                error = _outcome(task, running.pop(task))
                if error is not None:
                    errors[task.name] = error
                ended(task.name)
            time.sleep(0.2 if is_local else 5)
        if stop.asked():
            _cancel(list(running.values()), is_local)
            raise Stopped(signal=stop.signal)
    return errors


def _queued(tasks: Sequence[Task], executor: Any, machine: Machine) -> dict[Task, Any]:
    """Return the jobs that an earlier command submitted for these tasks and that have not ended."""
    import submitit

    try:
        recorded = read_json(_record_file(machine))
    except StoreError:  # there is none yet
        return {}
    kind: Any = submitit.LocalJob if executor.cluster == "local" else submitit.SlurmJob
    jobs = {task: kind(executor.folder, recorded[task.name]) for task in tasks if task.name in recorded}
    return {task: job for task, job in jobs.items() if not job.done() and job.state != "UNKNOWN"}


def _record(running: Mapping[Task, Any], machine: Machine) -> None:
    text = to_json({task.name: job.job_id for task, job in running.items()})
    path = _record_file(machine)
    if not path.exists() or path.read_text() != text:
        write_atomic(path, text)


def _record_file(machine: Machine) -> Path:
    return machine.results / "slurm" / "queued.json"


def _outcome(task: Task, job: Any) -> str | None:
    import submitit

    try:
        answer: str | None = job.result()
        return answer
    except submitit.core.utils.FailedJobError as error:
        reason = str(error).strip().rpartition("\n")[2]
    except submitit.core.utils.UncompletedJobError:
        reason = f"ended without a result ({job.state.lower()})"
    log = job.paths.stderr
    return f"{task.name}: its job {job.job_id}: {reason}; see {log}; the same command goes on from its last checkpoint"


def _cancel(jobs: Sequence[Any], is_local: bool) -> None:
    """End jobs by SIGTERM and wait for their checkpoints, for which SLURM gives them half a minute by default."""
    for job in jobs:
        if is_local:
            with suppress(ProcessLookupError):
                os.kill(int(job.job_id), signal.SIGTERM)
        else:
            job.cancel(check=False)
    limit = time.monotonic() + 60
    while not all(job.done() for job in jobs) and time.monotonic() < limit:
        time.sleep(0.2)


def _executor(machine: Machine) -> tuple[Any, bool]:
    try:
        import submitit
    except ImportError as error:
        raise SpecError("--engine slurm: needs submitit; install it with: pip install 'resx[slurm]'") from error
    options = parse_options(machine.slurm or "")
    try:
        executor = submitit.AutoExecutor(machine.results.resolve() / "slurm", slurm_max_num_timeout=TIMEOUTS)
        executor.update_parameters(name="resx", **DEFAULTS | options)
    except OSError as error:
        raise StoreError(f"{machine.results / 'slurm'}: cannot be written ({error.strerror or error})") from error
    except (TypeError, ValueError, NameError) as error:
        raise SpecError(f"--slurm: {error}") from error
    return executor, executor.cluster == "local"


def parse_options(text: str) -> dict[str, Any]:
    """Read `partition=gpu,time=02:00:00,max_parallel=20` as submitit's parameters. Raises SpecError."""
    options: dict[str, Any] = {}
    others: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        key, equals, value = (word.strip() for word in part.partition("="))
        if not equals or not key or not value:
            raise SpecError(f"--slurm {text}: write key=value with commas between, such as partition=gpu,time=02:00:00")
        if key == "time":
            options["timeout_min"] = _minutes(value)
        elif key == "max_parallel":
            if not value.isdecimal() or int(value) < 1:
                raise SpecError(f"--slurm: max_parallel must be a whole number from 1 on, not '{value}'")
            options["slurm_array_parallelism"] = int(value)
        elif key in NAMED:
            options[f"slurm_{key}"] = value
        else:
            others[key.replace("_", "-")] = value
    return options | ({"slurm_additional_parameters": others} if others else {})


def _minutes(text: str) -> int:
    """Return the minutes of SLURM's D-HH:MM:SS, HH:MM:SS, MM:SS or MM, rounded up."""
    days, dash, clock = text.rpartition("-")
    try:
        numbers = [int(number) for number in clock.split(":")]
        if len(numbers) > 3 or min(numbers) < 0:
            raise ValueError(text)
        units = (3600, 60, 1) if dash or len(numbers) == 3 else (60, 1)
        seconds = int(days or 0) * 86_400 + sum(n * unit for n, unit in zip(numbers, units, strict=False))
    except ValueError as error:
        raise SpecError(f"--slurm: time is written as HH:MM:SS or D-HH:MM:SS, not '{text}'") from error
    if seconds <= 0:
        raise SpecError("--slurm: time must be at least a minute")
    return math.ceil(seconds / 60)
