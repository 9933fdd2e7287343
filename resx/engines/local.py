"""RunSpecs in, finished runs out: several at a time, each resumable, a failure of one leaving the others alone.

On a CPU every network trains on one thread in a process of its own, as many processes as `jobs`: measured, two
processes of one thread beat one of two, and the numbers do not depend on how many there are. On a GPU networks that
share data and schedule train side by side in one process, as branches of one CUDA graph, at most `jobs` of them.
"""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from resx import data, model
from resx.data import Dataset
from resx.model.subset import check_active_blocks
from resx.registry import load_plugin
from resx.spec import DataSpec, RunSpec, SpecError, build_spec
from resx.store import StoreError, open_run, read_run, results_root
from resx.training.initial import TRANSFORMS
from resx.training.loop import Progress, Stopped, train_networks
from resx.training.memory import memory_advice, memory_needed, memory_warning

Report = Callable[[Progress], None]
LOG = logging.getLogger("resx")
COHORT = 10  # networks at a time on a GPU: one seed of five depths, plain and residual


@dataclass(frozen=True)
class Machine:
    """Where and how runs are made; nothing here can change a number of a CPU run.

    results: the folder that holds runs/. data_dir: where data sets lie. jobs: runs at a time. plugin: a user's file.
    checkpoint_activations: less memory, more time, the same numbers.
    """

    results: Path = field(default_factory=results_root)
    data_dir: Path | None = None
    device: str = "cpu"
    jobs: int = 1
    allow_change: bool = False
    plugin: Path | None = None
    checkpoint_activations: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of a run. result: its result.json; error: one line where it failed."""

    spec: RunSpec
    result: Mapping[str, Any] | None = None
    error: str | None = None

    def summary(self, results: Path) -> dict[str, Any]:
        """Return what `--json` prints of a run; errors in percent, None where there is no number."""
        result = self.result or {}
        return {
            "run_id": self.spec.run_id,
            "status": result.get("status", "failed"),
            "steps": result.get("steps_done"),
            "train_error": result.get("train_error"),
            "test_error": result.get("test_error"),
            "seconds": result.get("seconds"),
            "folder": str(results / "runs" / self.spec.run_id),
        }


def default_device() -> str:
    """Return `cuda` where there is one, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def make_machine(
    *, device: str | None = None, jobs: int | None = None, results: Path | None = None, **settings: Any
) -> Machine:
    """Fill in what the user left open: the device, as many jobs as it takes. Raises SpecError for an absent device."""
    device = device or default_device()
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise SpecError(f"--device: no '{device}'; write cpu, cuda or cuda:N") from error
    if kind not in ("cpu", "cuda"):
        raise SpecError(f"--device: '{device}' is not supported; write cpu, cuda or cuda:N")
    if kind == "cuda" and not torch.cuda.is_available():
        raise SpecError("--device: this machine has no CUDA device (or torch cannot see one); use --device cpu")
    if jobs is not None and jobs < 1:
        raise SpecError(f"--jobs: must be at least 1, not {jobs}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    at_a_time = jobs or (COHORT if kind == "cuda" else cores)
    return Machine(results=results_root(results), device=device, jobs=at_a_time, **settings)


def resolve(fields: Iterable[Mapping[str, Any]], machine: Machine) -> list[RunSpec]:
    """Turn flat fields into complete specs: names checked, parts' defaults filled in, data and plugin hashed.

    Raises SpecError with every mistake of every spec, each once.
    """
    plugin = load_plugin(machine.plugin) if machine.plugin else None
    specs: list[RunSpec] = []
    errors: dict[str, None] = {}
    completed: dict[DataSpec, DataSpec] = {}  # a folder is hashed once, not once a run
    for item in fields:
        try:
            spec = build_spec({**item, "plugin": plugin}, (model.check_names, data.check_names, _check_run))
            if spec.data not in completed:
                completed[spec.data] = data.complete(spec.data, machine.data_dir)
            update = {"model": model.complete(spec.model), "data": completed[spec.data]}
            specs.append(spec.model_copy(update=update))
            if spec.train.active_blocks is not None:
                check_active_blocks(specs[-1].model, spec.train.active_blocks)
            if spec.train.precision == "tf32" and not machine.device.startswith("cuda"):
                raise SpecError("precision: tf32 needs a CUDA device; use fp32")
        except SpecError as error:
            errors |= dict.fromkeys(error.errors)
    if errors:
        raise SpecError(errors)
    return list(dict.fromkeys(specs))


def _check_run(fields: Mapping[str, Any]) -> list[str]:
    start = fields.get("init_from")
    name = start.get("transform") if isinstance(start, dict) else getattr(start, "transform", None)
    return TRANSFORMS.check(name) if name else []


def train_all(specs: Sequence[RunSpec], machine: Machine, report: Report = lambda progress: None) -> list[Outcome]:
    """Train what is not finished yet and return the outcome of every spec, in the order given.

    A diverged run is an outcome; a failed one has `error`. Raises Stopped, with checkpoints left, on Ctrl-C or SIGTERM.
    """
    errors: dict[str, str] = {}
    todo = [spec for spec in specs if finished_result(spec, machine.results) is None]
    todo.sort(key=lambda spec: spec.model.depth * spec.train.steps, reverse=True)  # the longest first: none waits alone
    for generation in _generations(todo):
        if machine.device.startswith("cuda") or machine.jobs == 1 or len(generation) == 1:
            errors |= _train_here(generation, machine, report)
        else:
            errors |= _train_in_processes(generation, machine, report)
    return [Outcome(spec, finished_result(spec, machine.results), errors.get(spec.run_id)) for spec in specs]


def _generations(todo: Sequence[RunSpec]) -> Iterator[list[RunSpec]]:
    """Yield the specs in groups: a run that starts from another's weights comes after it."""
    left = list(todo)
    while left:
        ids = {spec.run_id for spec in left}
        ready = [spec for spec in left if spec.init_from is None or spec.init_from.run not in ids]
        yield ready
        left = [spec for spec in left if spec not in ready]


def left_to_train(specs: Sequence[RunSpec], machine: Machine) -> dict[str, int]:
    """Return the steps of every run that is not finished yet, by its id. Raises StoreError where one is damaged."""
    return {spec.run_id: spec.train.steps for spec in specs if finished_result(spec, machine.results) is None}


def finished_result(spec: RunSpec, results: Path) -> dict[str, Any] | None:
    """Return the recorded result of a spec, or None where it is not finished. Raises StoreError where damaged."""
    path = results / "runs" / spec.run_id
    return read_run(path).result if (path / "result.json").exists() else None


def train(spec: RunSpec | None = None, *, machine: Machine | None = None, **fields: Any) -> dict[str, Any]:
    """Train one network, or return it where it is finished already: the Python face of `resx train`.

    Give a RunSpec or flat fields (`train(preset="digits", depth=56, shortcut="none")`). Returns the content of
    result.json with the folder. Raises SpecError for bad input, StoreError where training failed.
    """
    machine = machine or make_machine()
    given = spec.flat() if spec else {}
    [resolved] = resolve([{**given, **fields}], machine)
    [outcome] = train_all([resolved], machine)
    if outcome.result is None:
        raise StoreError(outcome.error or f"{resolved.run_id}: did not finish")
    return {**outcome.result, "folder": str(machine.results / "runs" / resolved.run_id)}


# --- one process ---------------------------------------------------------------------------------------------------


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list instead of dying, so that a checkpoint can be left."""
    received: list[int] = []
    try:
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in before:
            signal.signal(number, lambda got, frame: received.append(got))
    except ValueError:  # not the main thread: whoever runs us handles signals
        yield received
        return
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread, as every network on a CPU does, and restore what was set."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _train_here(todo: Sequence[RunSpec], machine: Machine, report: Report) -> dict[str, str]:
    errors: dict[str, str] = {}
    datasets = _Datasets(machine.data_dir)
    with _stop_signals() as received, one_thread():
        groups = list(reversed(cohorts(todo, datasets, machine)))
        while groups:
            group = groups.pop()
            try:
                _train_group(group, datasets, machine, report, lambda: bool(received))
                continue
            except (StoreError, SpecError) as error:
                failure = str(error)
            except Stopped as stopped:
                stopped.signal = received[0]
                raise
            gc.collect()  # what the failed group held on the device
            if len(group) == 1:
                errors[group[0].run_id] = failure
            else:  # one of them fails, or they do not fit together: the others go on without it
                half = len(group) // 2
                groups += [group[half:], group[:half]]
    return errors


def cohorts(specs: Sequence[RunSpec], datasets: Callable[[DataSpec], Dataset], machine: Machine) -> list[list[RunSpec]]:
    """Group specs that can train side by side on a GPU: same data, batch and schedule, as many as fit.

    On a CPU every spec is alone. Logs a line for a run whose memory will probably not suffice.
    """
    if not machine.device.startswith("cuda"):
        return [[spec] for spec in specs]
    alike: dict[Any, list[RunSpec]] = {}
    for spec in specs:
        train = spec.train
        key = (spec.data, train.steps, train.batch_size, train.eval_every, train.precision)
        alike.setdefault(key, []).append(spec)
    free, _ = torch.cuda.mem_get_info(machine.device)
    needs: dict[Any, int] = {}
    groups: list[list[RunSpec]] = []
    for members in alike.values():
        dataset = datasets(members[0].data)
        images = dataset.train_x.nbytes + dataset.test_x.nbytes
        taken = 0
        for position, spec in enumerate(members):
            if spec.model not in needs:
                needs[spec.model] = images + memory_needed(
                    spec, dataset.input_shape, dataset.n_outputs, machine.checkpoint_activations
                )
            need = needs[spec.model]
            warning = memory_warning(need, free, machine.checkpoint_activations)
            if warning:
                LOG.warning("%s: %s", spec.run_id, warning)
            if position == 0 or len(groups[-1]) == machine.jobs or taken + need > free:
                groups.append([])
                taken = 0
            groups[-1].append(spec)
            taken += need
        needs.clear()  # the next data set's inputs are of another size
    return groups


class _Datasets:
    """Loads data sets, and keeps the last, since the runs of a sweep mostly share one."""

    def __init__(self, data_dir: Path | None) -> None:
        self.data_dir = data_dir
        self.last: tuple[DataSpec, Dataset] | None = None

    def __call__(self, spec: DataSpec) -> Dataset:
        if self.last is None or self.last[0] != spec:
            self.last = (spec, data.load(spec, self.data_dir))
        return self.last[1]


def _train_group(
    specs: Sequence[RunSpec],
    datasets: _Datasets,
    machine: Machine,
    report: Report,
    should_stop: Callable[[], bool],
) -> None:
    """Train specs that share data and schedule side by side in this process. Raises StoreError out of memory, too."""
    try:
        with ExitStack() as stack:
            folders = [stack.enter_context(open_run(machine.results, spec)) for spec in specs]
            train_networks(
                folders,
                datasets(specs[0].data),
                device=torch.device(machine.device),
                results=machine.results,
                allow_change=machine.allow_change,
                checkpointed=machine.checkpoint_activations,
                report=report,
                should_stop=should_stop,
            )
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "DefaultCPUAllocator" not in str(error):
            raise
        advice = memory_advice(machine.checkpoint_activations)
        raise StoreError(f"{specs[0].run_id}: out of memory on {machine.device}; {advice}") from None


# --- several processes ---------------------------------------------------------------------------------------------


@dataclass
class _Worker:
    process: Any
    connection: Connection
    spec: RunSpec | None = None


def _train_in_processes(todo: Sequence[RunSpec], machine: Machine, report: Report) -> dict[str, str]:
    """Hand runs to worker processes; a worker that dies fails its run, and another takes its place."""
    errors: dict[str, str] = {}
    waiting = list(reversed(todo))
    workers: list[_Worker] = []
    stopped: Stopped | None = None
    with _stop_signals() as received:
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
    datasets = _Datasets(machine.data_dir)
    with _stop_signals() as received:
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
                _train_group([spec], datasets, machine, connection.send, should_stop)
            except Stopped as stopped:
                answer = stopped
            except (StoreError, SpecError) as error:
                answer = str(error)
            except OSError:  # the parent is gone, and with it whoever reads this
                return
            connection.send(answer)
