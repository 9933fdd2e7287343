"""What is killed on any engine, or finds its disk full, loses nothing: the bytes of an undisturbed run."""

from __future__ import annotations

import random
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import kill_engines
import pytest
from small_runs import metrics, specs_of

from resx.engines import train_all
from resx.store.run import read_run
from resx.training.machine import Machine

PACKAGES = {"local": "torch", "slurm": "submitit", "ray": "ray"}


def skip_without(engine: str) -> None:
    if find_spec(PACKAGES[engine]) is None:
        pytest.skip(f"{PACKAGES[engine]} is not installed; `make test-engines` installs it")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")
def test_what_is_killed_goes_on(tmp_path: Path) -> None:
    """A worker and the driver, each once; the script does it on every engine, and for longer."""
    random.seed(1)
    specs = kill_engines.small_sweep(Machine())
    assert kill_engines.disturb("local", tmp_path / "killed", specs, kill_engines.VICTIMS["local"]) > 0
    kill_engines.compare(tmp_path / "killed", tmp_path / "whole", specs)


@pytest.mark.parametrize(
    "engine", ["local", pytest.param("slurm", marks=pytest.mark.slow), pytest.param("ray", marks=pytest.mark.slow)]
)
def test_a_full_disk_in_a_worker_loses_nothing(tmp_path: Path, plugin: Callable[[str], Path], engine: str) -> None:
    """From the middle of a run on, its process can write no file of more than a kilobyte."""
    skip_without(engine)
    flag = tmp_path / "flag"
    flag.touch()
    full = "__import__('resource').setrlimit(__import__('resource').RLIMIT_FSIZE, (1000, 1000))"
    file = plugin(f"Path({str(flag)!r}).exists() and {full}")
    machine = Machine(results=tmp_path / "full", plugin=file, jobs=2, engine=engine)
    specs = specs_of(machine, {"shortcut": "mine:bad=true", "steps": 60}, {"shortcut": "mine"})
    outcomes = train_all(specs, machine)
    assert [outcome.result is not None for outcome in outcomes] == [False, True]
    assert f"{specs[0].run_id}/" in str(outcomes[0].error) and "cannot be written: " in str(outcomes[0].error)
    assert "\n" not in str(outcomes[0].error)
    run = read_run(tmp_path / "full" / "runs" / specs[0].run_id)
    assert run.rows() and run.load_checkpoint()
    flag.unlink()
    assert all(outcome.result for outcome in train_all(specs, machine))
    train_all(specs, Machine(results=tmp_path / "alone", plugin=file))
    for spec in specs:
        assert metrics(tmp_path / "full", spec) == metrics(tmp_path / "alone", spec)
