"""Jobs of a queue, through submitit's executor for one machine: the same bytes, failures named, killed and resumed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from small_runs import is_gone, metrics, specs_of

from resx.engines import run_tasks, slurm, train_all
from resx.engines.tasks import Task
from resx.spec import SpecError
from resx.store.files import LeftToOthers
from resx.training.machine import Machine, make_machine

needs_submitit = pytest.mark.skipif(find_spec("submitit") is None, reason="submitit is not installed")


@needs_submitit
def test_jobs_give_the_bytes_of_this_process_are_found_again_and_go_on_where_one_was_killed(
    tmp_path: Path, plugin: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who submits and goes is led back to the jobs by `queued.json`; none is submitted twice."""
    import submitit

    flag = tmp_path / "flag"
    flag.touch()
    file = plugin(f"Path({str(flag)!r}).exists() and os.kill(os.getpid(), signal.SIGKILL)")
    machine = Machine(results=tmp_path / "jobs", plugin=file, jobs=2, engine="slurm")
    specs = specs_of(machine, {"shortcut": "mine:bad=true", "steps": 60}, {"shortcut": "mine"})
    with pytest.raises(LeftToOthers, match="2 tasks are left to jobs"):
        train_all(specs, replace(machine, detach=True))
    with monkeypatch.context() as patch:
        # submitit asks a queue where a job is; of processes it knows that only where it started them itself
        known = submitit.LocalJob.get_info
        patch.setattr(
            submitit.LocalJob,
            "get_info",
            lambda job, mode="": known(job) if is_gone(int(job.job_id)) else {"jobState": "RUNNING"},
        )
        patch.setattr(submitit.LocalExecutor, "_submit_command", lambda *given: pytest.fail("submitted twice"))
        outcomes = train_all(specs, machine)
    assert [outcome.result is not None for outcome in outcomes] == [False, True]
    assert specs[0].run_id in str(outcomes[0].error) and "ended without a result" in str(outcomes[0].error)
    flag.unlink()
    assert all(outcome.result for outcome in train_all(specs, machine))
    train_all(specs, Machine(results=tmp_path / "alone", plugin=file))
    for spec in specs:
        assert metrics(tmp_path / "jobs", spec) == metrics(tmp_path / "alone", spec)
    with pytest.raises(SpecError, match="no srun here"):
        train_all(specs_of(machine, {"seed": 2}, {"seed": 3}, {"seed": 4}), replace(machine, detach=True))


def test_a_job_that_is_to_end_leaves_a_checkpoint_and_is_queued_again(tmp_path: Path) -> None:
    """SLURM sends SIGUSR2 before it ends a job; submitit's handler queues it again, once training has stopped."""
    queued: list[bool] = []
    machine = Machine(results=tmp_path)
    [spec] = specs_of(machine, {"steps": 40})
    checkpoint = tmp_path / "runs" / spec.run_id / "checkpoint.pt"
    before = signal.signal(signal.SIGUSR2, lambda number, frame: queued.append(checkpoint.exists()))

    def train(desk: Any) -> None:
        from resx.engines.here import train_group

        os.kill(os.getpid(), signal.SIGUSR2)
        train_group([spec], desk)

    try:
        assert slurm.Remote(Task("a run", train, (spec,)), machine)() is None
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert queued == [True]
    assert not (checkpoint.parent / "result.json").exists()


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", {}),
        ("partition=gpu,time=02:00:00", {"slurm_partition": "gpu", "timeout_min": 120}),
        ("gres=gpu:1,max_parallel=4", {"slurm_gres": "gpu:1", "slurm_array_parallelism": 4}),
        ("time=1-00:30:01,mail_type=END", {"timeout_min": 1471, "slurm_additional_parameters": {"mail-type": "END"}}),
        ("time=90", {"timeout_min": 90}),
        ("time=10:30", {"timeout_min": 11}),
    ],
)
def test_what_jobs_ask_for(text: str, options: dict[str, Any]) -> None:
    assert slurm.parse_options(text) == options


@pytest.mark.parametrize("text", ["partition", "time=soon", "time=0", "max_parallel=0", "=x"])
def test_what_cannot_be_asked_for_is_one_line(text: str) -> None:
    with pytest.raises(SpecError, match="--slurm"):
        slurm.parse_options(text)


def test_an_engine_that_does_not_exist_is_refused() -> None:
    with pytest.raises(SpecError, match="did you mean 'slurm'"):
        run_tasks([Task("a run", print)], Machine(engine="slrum"))
    with pytest.raises(SpecError, match="--engine slurm"):
        make_machine(device="cpu", slurm="partition=gpu")
