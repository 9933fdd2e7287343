"""Tasks on a Ray that is started here: the same bytes, a killed process tried again, failures named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from small_runs import metrics, specs_of

from resx.engines import ray, train_all
from resx.engines.remote import absolute
from resx.registry import read_plugin
from resx.spec import SpecError
from resx.training.machine import Machine, make_machine

missing = pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed; `make test-engines` installs it")


def needs_ray(test: Callable[..., None]) -> Callable[..., None]:
    return pytest.mark.slow(missing(test))


@needs_ray
def test_a_killed_task_goes_on(tmp_path: Path, plugin: Callable[[str], Path]) -> None:
    """One run's process is killed in mid run, once; the bytes are those of this process."""
    flag = tmp_path / "flag"
    flag.touch()
    kill = f"flag = Path({str(flag)!r}); flag.exists() and (flag.unlink(), os.kill(os.getpid(), signal.SIGKILL))"
    file = plugin(kill)
    machine = Machine(results=tmp_path / "ray", plugin=file, jobs=2, engine="ray")
    specs = specs_of(machine, {"shortcut": "mine:bad=true", "steps": 60}, {"shortcut": "mine"})
    steps: dict[str, int] = {}
    outcomes = train_all(specs, machine, lambda progress: steps.update({progress.run_id: progress.step}))
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert not flag.exists()
    assert steps == {specs[0].run_id: 60, specs[1].run_id: 6}
    train_all(specs, Machine(results=tmp_path / "alone", plugin=file))
    for spec in specs:
        assert metrics(tmp_path / "ray", spec) == metrics(tmp_path / "alone", spec)


@needs_ray
def test_a_failed_task_is_named(tmp_path: Path, plugin: Callable[[str], Path]) -> None:
    broken = plugin("raise ValueError('no')")
    machine = Machine(results=tmp_path / "ray", plugin=broken, jobs=1, engine="ray")
    [bad] = specs_of(machine, {"shortcut": "mine:bad=true", "steps": 60})
    [outcome] = train_all([bad], machine)
    assert bad.run_id in str(outcome.error) and "ValueError: no" in str(outcome.error)


@needs_ray
def test_runs_come_back_from_where_the_folder_and_the_plugin_are_not(
    tmp_path: Path, plugin: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The plugin's file is gone when tasks run, and they see another results folder."""
    file = plugin("pass")
    machine = Machine(results=tmp_path / "ray", plugin=(read_plugin(file),), jobs=2, engine="ray")
    specs = specs_of(machine, {"shortcut": "mine"})
    children = specs_of(machine, {"init_from": {"run": specs[0].run_id, "transform": "same"}})
    train_all(specs + children, Machine(results=tmp_path / "alone", plugin=file))
    file.unlink()
    there = replace(absolute(machine), results=tmp_path / "there")
    monkeypatch.setattr(ray, "absolute", lambda machine: there)
    outcomes = train_all(specs + children, machine)
    assert [outcome.error for outcome in outcomes] == [None, None]
    for spec in specs + children:
        assert metrics(tmp_path / "ray", spec) == metrics(tmp_path / "alone", spec)
    assert [path.name for path in (tmp_path / "there" / "runs").iterdir()] == [specs[0].run_id]
    assert [path.name for path in (tmp_path / "ray").iterdir()] == ["runs"], "marks and bundles are removed"
    assert [line for line in caplog.messages if "do not see" in line and "1 tasks" in line]


@pytest.mark.parametrize("settings", [{"address": "auto"}, {"gpus_per_task": 0.5}])
def test_what_is_for_ray_alone_is_refused_elsewhere(settings: dict[str, object]) -> None:
    with pytest.raises(SpecError, match="--engine ray"):
        make_machine(device="cpu", **settings)
    with pytest.raises(SpecError, match="gpus-per-task"):
        make_machine(device="cpu", engine="ray", gpus_per_task=2)
