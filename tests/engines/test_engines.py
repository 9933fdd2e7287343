"""What every engine keeps: the same bytes, failures that are named and leave the others alone, nothing done twice."""

from __future__ import annotations

import multiprocessing
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import metrics, specs_of

from resx import engines, lab
from resx.engines import here, processes, run_tasks, train_all
from resx.engines.signals import stop_signals
from resx.engines.tasks import Task
from resx.probes import load_probe
from resx.spec import RunSpec
from resx.store.files import LeftToOthers
from resx.store.run import open_run, read_run
from resx.training.loop import Stopped
from resx.training.machine import Machine

FAILURES = {
    "ValueError('no')": "ValueError: no",
    "SystemExit(0)": "SystemExit: 0",
    "RecursionError('deep')": "RecursionError: deep",
    "OSError(5, 'broken')": "OSError: [Errno 5] broken",
}


@pytest.mark.parametrize("error", FAILURES)
def test_a_plugin_that_fails_late_ends_its_run_alone(tmp_path: Path, plugin: Callable[[str], Path], error: str) -> None:
    file = plugin(f"raise {error}")
    machine = Machine(results=tmp_path / "results", plugin=file)
    specs = specs_of(machine, {"shortcut": "mine:bad=true", "steps": 60}, {"shortcut": "mine"})
    bad, good = train_all(specs, machine)
    assert good.result and good.error is None
    assert bad.result is None
    assert f"plugin {file} failed at step " in str(bad.error)
    assert str(bad.error).endswith(FAILURES[error])
    assert "\n" not in str(bad.error)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate")])
def test_too_little_memory_is_a_line_with_advice(tmp_path: Path, error: Exception) -> None:
    def fail(desk: Any) -> None:
        raise error

    [line] = here.run([Task("a run", fail)], Machine(results=tmp_path)).values()
    assert line.startswith("a run: out of memory on cpu; use ")


def test_a_killed_worker_fails_its_run_alone_and_the_same_command_goes_on(
    tmp_path: Path, plugin: Callable[[str], Path]
) -> None:
    """Two workers; afterwards the bytes of runs that were left alone."""
    flag = tmp_path / "flag"
    flag.touch()
    file = plugin(f"Path({str(flag)!r}).exists() and os.kill(os.getpid(), signal.SIGKILL)")
    machine = Machine(results=tmp_path / "killed", plugin=file, jobs=2)
    specs = specs_of(machine, {"shortcut": "mine:bad=true", "steps": 60}, {"shortcut": "mine"})
    outcomes = train_all(specs, machine)
    assert [outcome.result is not None for outcome in outcomes] == [False, True]
    assert "killed by signal 9" in str(outcomes[0].error) and specs[0].run_id in str(outcomes[0].error)
    flag.unlink()
    assert all(outcome.result for outcome in train_all(specs, machine))
    train_all(specs, Machine(results=tmp_path / "alone", plugin=file))
    for spec in specs:
        assert metrics(tmp_path / "killed", spec) == metrics(tmp_path / "alone", spec)


def test_a_worker_that_dies_between_two_tasks_is_replaced(tmp_path: Path) -> None:
    machine = Machine(results=tmp_path)
    specs = specs_of(machine, {}, {"seed": 1})
    tasks = [engines._task([spec]) for spec in specs]

    def kill(name: str) -> None:
        for process in multiprocessing.active_children():
            process.kill()
            process.join()

    assert processes.run(tasks, [machine], ended=kill) == {}
    outcomes = train_all(specs, machine, lambda progress: pytest.fail("both are finished"))
    assert all(outcome.result for outcome in outcomes)


def _place(connection: Connection) -> None:
    connection.send((os.getcwd(), os.environ.get("COLOUR")))


def test_a_process_has_the_folder_and_the_environment_of_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for colour in ("red", "blue"):  # the second is a fork of what the first has started
        (tmp_path / colour).mkdir()
        monkeypatch.chdir(tmp_path / colour)
        monkeypatch.setenv("COLOUR", colour)
        process, connection = processes.start(_place)
        assert connection.recv() == (str(tmp_path / colour), colour)
        process.join()


def test_a_script_that_guards_nothing_is_run_once(tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text(
        "import resx\nprint('run')\n"
        "findings = resx.compare(preset='digits', depths=[8], steps=2, results='here', jobs=2)\n"
        "print(len(findings.frames['runs']))\n"
    )
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout.split()) == (0, ["run", "2"]), done.stderr


@pytest.mark.parametrize(("jobs", "tasks", "workers"), [(12, 2, 2), (2, 5, 2), (1, 3, 0), (4, 1, 0)])
def test_there_are_never_more_workers_than_tasks(
    monkeypatch: pytest.MonkeyPatch, jobs: int, tasks: int, workers: int
) -> None:
    counts = []
    monkeypatch.setattr(processes, "run", lambda tasks, places, *others: counts.append(len(places)) or {})
    monkeypatch.setattr(here, "run", lambda *others: counts.append(0) or {})
    run_tasks([Task(str(number), print) for number in range(tasks)], Machine(jobs=jobs))
    assert counts == [workers]


def test_several_cards_have_a_worker_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert [place.device for place in Machine(device="cuda", jobs=10).places()] == ["cuda:0", "cuda:1", "cuda:2"]
    assert [place.device for place in Machine(device="cuda:1", jobs=10).places()] == ["cuda:1"]
    assert engines._shared(Machine(device="cuda", jobs=10), 12).jobs == 4, "no card is left without runs"
    assert engines._shared(Machine(device="cuda:1", jobs=10), 12).jobs == 10


def test_data_is_fetched_once_before_workers_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def fail(tasks: list[Task], *others: object) -> dict[str, str]:
        order.append("workers")
        return {task.name: "failed" for task in tasks}

    monkeypatch.setattr(engines.data, "fetch", lambda spec, root: order.append(spec.dataset))
    monkeypatch.setattr(processes, "run", fail)
    machine = Machine(results=tmp_path, jobs=2)
    specs = specs_of(machine, {}, {"seed": 1}, {"depth": 14})
    train_all(specs, machine)
    assert order == [specs[0].data.dataset, "workers"]


def test_a_callers_settings_do_not_matter_and_do_not_change(tmp_path: Path) -> None:
    [spec] = specs_of(Machine(), {})
    train_all([spec], Machine(results=tmp_path / "plain"))
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    threads = torch.get_num_threads()
    torch.manual_seed(5)
    drawn = torch.get_rng_state()
    try:
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(2)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            [outcome] = train_all([spec], Machine(results=tmp_path / "strange"))
            assert torch.get_default_dtype() == torch.float64
            assert torch.get_num_threads() == 2
            assert not torch.is_grad_enabled() and torch.is_autocast_enabled("cpu")
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_num_threads(threads)
    assert outcome.result, outcome.error
    assert metrics(tmp_path / "strange", spec) == metrics(tmp_path / "plain", spec)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert torch.equal(torch.get_rng_state(), drawn)


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_signals() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert not stop.asked()
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.signal == signal.SIGTERM
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_interrupts_what_leaves_no_checkpoint(tmp_path: Path, number: int) -> None:
    after: list[str] = []

    def measure(desk: Any) -> None:
        os.kill(os.getpid(), number)
        signal.sigtimedwait([], 1)
        after.append("went on")

    with pytest.raises(Stopped) as caught:
        here.run([Task("a measurement", measure), Task("another", measure)], Machine(results=tmp_path))
    assert caught.value.signal == number
    assert after == []


def test_a_signal_lets_training_leave_its_checkpoint(tmp_path: Path) -> None:
    machine = Machine(results=tmp_path)
    [spec] = specs_of(machine, {"steps": 40})
    with pytest.raises(Stopped) as caught:
        train_all([spec], machine, lambda progress: os.kill(os.getpid(), signal.SIGTERM))
    assert caught.value.signal == signal.SIGTERM and caught.value.run_id == spec.run_id
    assert (tmp_path / "runs" / spec.run_id / "checkpoint.pt").exists()


def test_what_cannot_be_sent_to_a_process_fails_alone(tmp_path: Path) -> None:
    machine = Machine(results=tmp_path, jobs=2)
    [spec] = specs_of(machine, {})
    errors = run_tasks([Task("a closure", lambda desk: None), engines._task([spec])], machine)
    assert list(errors) == ["a closure"] and "failed" in errors["a closure"]
    assert (tmp_path / "runs" / spec.run_id / "result.json").exists()


def test_what_another_process_trains_is_left_to_it_or_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another has the lock the rest is trained; then it is waited for, or left where that is asked."""
    monkeypatch.setattr(engines, "POLL", 0.01)
    machine = Machine(results=tmp_path)
    specs = specs_of(machine, {}, {"seed": 1})
    trained: list[str] = []
    with open_run(tmp_path, specs[0]), pytest.raises(LeftToOthers) as caught:
        train_all(specs, replace(machine, wait=False), lambda progress: trained.append(progress.run_id))
    assert set(trained) == {specs[1].run_id}, "the rest is trained"
    who = f"by process {os.getpid()} on {platform.node()}"
    assert str(caught.value) == f"{specs[0].run_id} is being trained {who}: skipped, the rest is done"

    fork = multiprocessing.get_context("fork")
    seen = fork.Event()
    say_once = engines.say_once
    monkeypatch.setattr(engines, "say_once", lambda line: (say_once(line), seen.set()))
    other = fork.Process(target=_hold, args=(tmp_path, specs[0], seen))
    other.start()
    while not engines.holder(tmp_path, specs[0].run_id):
        other.join(0.01)
    assert all(outcome.result for outcome in train_all(specs, machine))
    other.join()
    who = f"by process {other.pid} on {platform.node()}"
    assert [line for line in caplog.messages if "waiting" in line] == [
        f"{specs[0].run_id}: being trained {who}, waiting"
    ]


def _hold(results: Path, spec: RunSpec, seen: Any) -> None:
    with open_run(results, spec):
        seen.wait(60)


@pytest.mark.parametrize(("needed", "calls"), [(1, 1), (2, 2), (9, 2)])
def test_what_another_process_let_go_before_it_was_looked_for_is_tried_again(
    tmp_path: Path, needed: int, calls: int
) -> None:
    tries: list[str] = []
    errors: dict[str, str] = {}
    engines.share(
        {"a run": "a-run"},
        "trained",
        lambda left: tries.extend(left) or {},
        lambda name: len(tries) >= needed,
        Machine(results=tmp_path),
        errors,
    )
    assert (len(tries), errors) == (calls, {})


def _work_through(results: Path, probe: str) -> None:
    machine = Machine(results=results)
    outcomes = train_all(specs_of(machine, *({"seed": seed} for seed in range(4))), machine)
    chosen = load_probe(probe)
    lab._measure(chosen, outcomes, chosen.settings(), machine, lambda line: None)


def test_processes_on_one_grid_share_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is trained twice, and what is recorded is what one process alone records."""
    monkeypatch.setattr(engines, "POLL", 0.01)
    fork = multiprocessing.get_context("fork").Process
    together = [fork(target=_work_through, args=(tmp_path / "shared", "responses")) for _ in range(3)]
    for process in together:
        process.start()
    for process in together:
        process.join()
    assert [process.exitcode for process in together] == [0, 0, 0]
    _work_through(tmp_path / "alone", "responses")
    names = sorted(path.name for path in (tmp_path / "alone" / "runs").iterdir())
    shared = [read_run(tmp_path / "shared" / "runs" / name) for name in names]
    assert [len(run.attempts()) for run in shared] == [1, 1, 1, 1], "nothing is trained twice"
    for run in shared:
        for file in ("metrics.csv", "probes/responses.csv"):
            assert (run.path / file).read_bytes() == (tmp_path / "alone" / "runs" / run.run_id / file).read_bytes()
