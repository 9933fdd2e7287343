"""A run that was interrupted anywhere gives the same bytes as one that was not, and nothing recorded is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import forks
import pytest

from resx.engines import train_all
from resx.lab import train
from resx.spec import RunSpec
from resx.store.files import StoreError
from resx.store.mend import problems
from resx.store.run import open_run, read_run
from resx.training import loop, step
from resx.training.machine import Machine
from resx.training.resolve import resolve

SMALL = {
    "dataset": "synthetic:classes=3,size=8,train=96,test=48",
    "depth": 8,
    "width": 4,
    "steps": 120,
    "batch_size": 16,
    "eval_every": 7,
    "eval_images": 40,
    "augment": "crop-flip",
}


def small(**fields: Any) -> RunSpec:
    [spec] = resolve([{**SMALL, **fields}], Machine())
    return spec


def run_path(results: Path, spec: RunSpec) -> Path:
    return results / "runs" / spec.run_id


@pytest.mark.parametrize("kills", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_a_run_that_is_killed_again_and_again_gives_the_same_bytes(kills: int, tmp_path: Path) -> None:
    spec = small(steps=240)  # more than ten killed attempts can take
    train_all([spec], Machine(results=tmp_path / "whole"))
    script = Path(__file__).with_name("kill_and_resume.py")
    said = tmp_path / "said"
    process = forks.python(script.read_text(), str(tmp_path / "killed"), spec.model_dump_json(), str(kills), err=said)
    process.join(120)
    assert process.exitcode == 0, said.read_text()
    whole, killed = run_path(tmp_path / "whole", spec), run_path(tmp_path / "killed", spec)
    assert (killed / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()
    began = [attempt["first_step"] for attempt in read_run(killed).attempts()]
    assert len(began) == kills + 1
    assert began[-1] > 0, "no attempt got as far as a checkpoint: nothing was resumed"
    assert set(read_run(killed).snapshots()) == set(read_run(whole).snapshots())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunSpec, bytes]:
    """A run with random numbers inside the network too, and its metrics."""
    spec, results = small(active_blocks=2), tmp_path_factory.mktemp("whole")
    train_all([spec], Machine(results=results))
    return spec, (run_path(results, spec) / "metrics.csv").read_bytes()


@pytest.mark.parametrize("stop_at", [0, 1, 33, 64, 119])
def test_stopped_at_any_step_a_run_goes_on_the_same(
    tmp_path: Path, undisturbed: tuple[RunSpec, bytes], stop_at: int
) -> None:
    spec, metrics = undisturbed
    seen = 0

    def count_steps(*args: Any) -> None:
        nonlocal seen
        seen += 1

    with open_run(tmp_path / "stopped", spec) as folder, pytest.raises(loop.Stopped):
        original = step.train_step
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(step, "train_step", lambda *args: (original(*args), count_steps()))
            train_here(folder, spec, tmp_path / "stopped", lambda: seen >= stop_at)
    assert run_path(tmp_path / "stopped", spec).joinpath("result.json").exists() is False
    train_all([spec], Machine(results=tmp_path / "stopped"))
    assert (run_path(tmp_path / "stopped", spec) / "metrics.csv").read_bytes() == metrics


def train_here(folder: Any, spec: RunSpec, results: Path, should_stop: Any) -> None:
    from resx import data

    dataset = data.load(spec.data, None)
    loop.train_networks([folder], dataset, Machine(results=results), should_stop=should_stop)


def test_a_finished_run_is_returned_not_trained_again(tmp_path: Path) -> None:
    spec = small(steps=3)
    machine = Machine(results=tmp_path)
    train_all([spec], machine)
    path = run_path(tmp_path, spec)
    before = {file: file.stat().st_mtime_ns for file in path.iterdir()}
    train_all([spec], machine)
    assert {file: file.stat().st_mtime_ns for file in path.iterdir()} == before


def test_a_resume_on_another_torch_is_refused(tmp_path: Path) -> None:
    spec = small(steps=3)
    machine = Machine(results=tmp_path)
    train_all([spec], machine)
    path = run_path(tmp_path, spec)
    (path / "result.json").unlink()
    attempts = json.loads((path / "environment.json").read_text())
    attempts[-1]["torch"] = "0.0"
    (path / "environment.json").write_text(json.dumps(attempts))
    [outcome] = train_all([spec], machine)
    assert outcome.result is None
    assert "--allow-change" in str(outcome.error)
    [outcome] = train_all([spec], Machine(results=tmp_path, allow_change=True))
    assert outcome.result is not None
    assert len(read_run(path).attempts()) == 2, "the change is recorded"


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    spec, other = small(steps=3), small(steps=3, depth=14)
    train_all([spec, other], Machine(results=tmp_path, jobs=1))
    path = run_path(tmp_path, spec)
    (path / "result.json").unlink()
    (path / "checkpoint.pt").write_bytes((run_path(tmp_path, other) / "checkpoint.pt").read_bytes())
    [outcome] = train_all([spec], Machine(results=tmp_path))
    assert "belongs to" in str(outcome.error)


def test_one_failing_run_leaves_the_others_alone(tmp_path: Path) -> None:
    specs = [small(steps=3, seed=seed) for seed in range(3)]
    broken = run_path(tmp_path, specs[1])
    broken.mkdir(parents=True)
    (broken / "checkpoint.pt").write_text("no checkpoint")
    outcomes = train_all(specs, Machine(results=tmp_path, jobs=1))
    assert [outcome.result is not None for outcome in outcomes] == [True, False, True]


def test_processes_give_the_numbers_of_one_process(tmp_path: Path) -> None:
    specs = [small(steps=9, seed=seed) for seed in range(2)]
    for jobs in (1, 2):
        train_all(specs, Machine(results=tmp_path / str(jobs), jobs=jobs))
    for spec in specs:
        one, two = (run_path(tmp_path / jobs, spec) / "metrics.csv" for jobs in ("1", "2"))
        assert one.read_bytes() == two.read_bytes()


def test_train_says_why_it_failed(tmp_path: Path) -> None:
    spec = small(steps=3)
    run_path(tmp_path, spec).mkdir(parents=True)
    (run_path(tmp_path, spec) / "checkpoint.pt").write_text("no checkpoint")
    with pytest.raises(StoreError, match=r"checkpoint\.pt"):
        train(spec, machine=Machine(results=tmp_path))


@pytest.mark.parametrize("name", ["spec.json", "metrics.csv", "predictions.npz", "result.json", "manifest.json"])
@pytest.mark.parametrize("content", [None, b"\x00 no such file"])
def test_training_again_mends_what_can_be_made_again(tmp_path: Path, name: str, content: bytes | None) -> None:
    spec, machine = small(steps=3), Machine(results=tmp_path)
    train_all([spec], machine)
    path = run_path(tmp_path, spec)
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    if content is None:
        (path / name).unlink()
    else:
        (path / name).write_bytes(content)
    train_all([spec], machine)
    timed = {"result.json", "environment.json", "manifest.json", "checkpoint.pt"}  # or, the last, not byte for byte
    after = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    assert {file.name for file in before if after.get(file) != before[file]} <= timed
    assert problems(path) == []


def test_damage_in_the_checkpoint_is_seen_before_it_is_used(tmp_path: Path) -> None:
    spec, machine = small(steps=3), Machine(results=tmp_path)
    train_all([spec], machine)
    path = run_path(tmp_path, spec)
    (path / "result.json").unlink()
    data = bytearray((path / "checkpoint.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (path / "checkpoint.pt").write_bytes(data)
    [outcome] = train_all([spec], machine)
    assert outcome.result is None
    assert "checkpoint.pt" in str(outcome.error) and "resx runs rm" in str(outcome.error)
