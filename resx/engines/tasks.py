"""What engines run: a task records its own results, so any process can run it, and run it again.

An engine is a function `run(tasks, machine, report, ended) -> {name: line}` in ENGINES: it runs every task, passes on
what they report, and returns one line for each that failed. A failed task, or a process that dies, leaves the others
alone. It raises Stopped on Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial

from resx import data
from resx.data import Dataset
from resx.engines.signals import Stop
from resx.registry import Registry, failed_plugin
from resx.spec import DataSpec, RunSpec, SpecError, with_kind
from resx.store.files import LOG, StoreError
from resx.training.loop import Report, Stopped
from resx.training.machine import Machine
from resx.training.memory import is_out_of_memory, memory_advice
from resx.training.ranks import Ranks

Ended = Callable[[str], None]  # receives a task's name when it has ended

ENGINES: Registry[Callable[..., dict[str, str]]] = Registry("engine")


@dataclass(frozen=True)
class Desk:
    """What a task works with in the process that runs it.

    machine: with this process's device. ranks: the processes that train a network together.
    """

    machine: Machine
    report: Report
    stop: Stop
    ranks: Ranks = field(default_factory=Ranks)

    @cached_property
    def datasets(self) -> Callable[[DataSpec], Dataset]:
        """What loads data sets; the last is kept, since the runs of a sweep mostly share one."""
        return lru_cache(maxsize=1)(partial(data.load, data_dir=self.machine.data_dir))


@dataclass(frozen=True)
class Task:
    """Something to run. call: picklable; it records its results, and may be called again after a failure.

    name: of the run or the measurement, in messages. runs: those that it trains. Where there are any, it watches
    `desk.stop` and leaves a checkpoint; any other task is interrupted.
    """

    name: str
    call: Callable[[Desk], None]
    runs: tuple[RunSpec, ...] = ()


def perform(task: Task, desk: Desk) -> str | None:
    """Run a task in this process and return a line that says why it failed, if it did. Raises Stopped."""
    desk.stop.at_once = not task.runs
    try:
        task.call(desk)
        return None
    except Stopped as stopped:
        stopped.signal = desk.stop.signal
        raise
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # even SystemExit is this task's failure alone
        LOG.debug("%s", task.name, exc_info=True)
        line = failure(task, error, desk.machine)
    finally:
        desk.stop.at_once = False
    gc.collect()  # what the failed task held on the device
    return line


def failure(task: Task, error: BaseException, machine: Machine) -> str:
    """Return one line that says which task failed, where and why."""
    if isinstance(error, StoreError | SpecError):
        return str(error)
    if is_out_of_memory(error):
        return f"{task.name}: out of memory on {machine.device}; {memory_advice(machine.checkpoint_activations)}"
    plugin = failed_plugin(error.__traceback__)
    who = f"plugin {plugin} failed" if plugin else "failed"
    return f"{task.name}: {' '.join([who, *getattr(error, '__notes__', ())])}: {with_kind(error)}"
