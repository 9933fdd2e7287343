"""What was not committed is never read as if it were: damage, files of other runs, kills in the middle of a commit."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from resx.spec import RunSpec
from resx.store import manifest
from resx.store.files import StoreError
from resx.store.manifest import Committed, Damaged, Manifest, commit, forget, read_manifest
from resx.store.mend import problems
from resx.store.run import RunFolder, finished_result, open_run, read_record, read_run


def record(results: Path, seed: int) -> RunFolder:
    """Make a finished run of two evaluations whose numbers depend on the seed."""
    with open_run(results, RunSpec(seed=seed)) as run:
        rows = [{"step": step, "test_error": seed + step / 7} for step in (0, 276)]
        run.save_snapshot(0, {"w": torch.full((50,), float(seed))})
        run.save_snapshot(276, {"w": torch.full((50,), seed + 0.5)})
        logits = np.random.default_rng(seed).normal(size=(100, 2)).astype(np.float32)  # its middle is no header
        run.save_predictions(logits, np.arange(100))
        run.save_checkpoint({"step": 276, "w": torch.full((50,), seed + 0.5)}, rows)
        run.finish(
            {"run_id": run.run_id, "status": "finished", "steps_done": 276, "test_error": rows[-1]["test_error"]}
        )
    run.save_probe("lesions", pd.DataFrame({"block": [1, 2, 3], "error": [seed, 2.0, 3.0]}))
    return read_run(run.path)


def flip(path: Path, other: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def cut_a_line(path: Path, other: Path) -> None:
    path.write_bytes(b"\n".join(path.read_bytes().split(b"\n")[:-2]) + b"\n")


def empty(path: Path, other: Path) -> None:
    path.write_bytes(b"")


def remove(path: Path, other: Path) -> None:
    path.unlink()


def swap(path: Path, other: Path) -> None:
    shutil.copy(other, path)


def swap_named(path: Path, other: Path) -> None:
    """Put another run's file here, with this run's id in it."""
    old, new = other.parent.name.encode(), path.parent.name.encode()
    path.write_bytes(other.read_bytes().replace(old, new))


def conflict(path: Path, other: Path) -> None:
    path.write_bytes(b"<<<<<<< HEAD\n" + path.read_bytes() + b"=======\n>>>>>>> theirs\n")


HARMS = [flip, cut_a_line, empty, remove, swap, swap_named, conflict]
READERS: dict[str, Callable[[RunFolder], object]] = {
    "spec.json": lambda run: read_run(run.path),
    "checkpoint.pt": lambda run: run.load_checkpoint(),
    "metrics.csv": lambda run: run.rows(),
    "predictions.npz": lambda run: run.load_predictions(),
    "result.json": lambda run: run.result,
    "snapshots/step-0000000.pt": lambda run: run.load_weights(0),
    "snapshots/step-0000276.pt": lambda run: run.load_weights(),
    "probes/lesions.csv": lambda run: run.read_probe("lesions"),
}


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("name", READERS)
def test_nothing_but_what_was_committed_is_read(tmp_path: Path, name: str, harm: Callable[[Path, Path], None]) -> None:
    run, other = record(tmp_path, 1), record(tmp_path, 2)
    assert problems(run.path) == []
    harm(run.path / name, other.path / name)
    with pytest.raises(StoreError, match=name.rpartition("/")[2]):
        READERS[name](run)
    assert any(name in line for line in problems(run.path))
    assert problems(other.path) == []


@pytest.mark.parametrize("harm", [flip, empty, remove, swap, swap_named])
def test_a_damaged_manifest_is_named_and_made_again(tmp_path: Path, harm: Callable[[Path, Path], None]) -> None:
    run, other = record(tmp_path, 1), record(tmp_path, 2)
    row, rows = read_record(run.path).row, run.rows()
    harm(run.path / "manifest.json", other.path / "manifest.json")
    assert read_record(run.path).row["status"] == "damaged"
    assert finished_result(run.spec, tmp_path) is None
    with pytest.raises(StoreError, match=r"manifest\.json|not what was committed"):
        read_run(run.path)
    with open_run(tmp_path, run.spec):  # whoever may write makes it anew
        pass
    assert problems(run.path) == []
    assert (read_record(run.path).row, run.rows(), list(run.snapshots())) == (row, rows, [0, 276])
    assert run.probes() == [] and (run.path / "probes" / "lesions.csv.damaged").exists(), "nothing says whose it is"


@pytest.mark.parametrize("name", ["spec.json", "result.json", "metrics.csv"])
def test_a_damaged_run_is_a_row_that_says_so(tmp_path: Path, name: str) -> None:
    run = record(tmp_path, 1)
    assert read_record(run.path, curve=True).row["status"] == "finished"
    (run.path / name).write_text("")
    damaged = read_record(run.path, curve=True)
    assert damaged.row["status"] == "damaged"
    assert damaged.damage is not None and name in damaged.damage
    assert damaged.row.get("test_error") is None
    assert finished_result(run.spec, tmp_path) is None


@pytest.mark.parametrize("harm", [flip, cut_a_line, remove, swap, swap_named, conflict])
@pytest.mark.parametrize("name", [name for name in READERS if name not in ("spec.json", "probes/lesions.csv")])
def test_without_a_manifest_only_what_is_surely_the_runs_is_read(
    tmp_path: Path, name: str, harm: Callable[[Path, Path], None]
) -> None:
    run, other = record(tmp_path, 1), record(tmp_path, 2)
    (run.path / "manifest.json").unlink()
    harm(run.path / name, other.path / name)
    with open_run(tmp_path, run.spec):
        pass
    if harm is remove and not name.startswith("snapshots/"):
        assert name not in Committed(run.path).names(), "what is gone is made again by training, not missed"
        return
    with pytest.raises(StoreError):
        READERS[name](run)
    assert any(name in line for line in problems(run.path))


@pytest.mark.parametrize("gone", [[], ["checkpoint.pt"]])
@pytest.mark.parametrize("copy", [swap, swap_named])
def test_a_folder_of_another_runs_files_is_never_served(
    tmp_path: Path, copy: Callable[[Path, Path], None], gone: list[str]
) -> None:
    run, other = record(tmp_path, 1), record(tmp_path, 2)
    for name in READERS.keys() - {"spec.json"}:
        copy(run.path / name, other.path / name)
    for name in ["manifest.json", *gone]:
        (run.path / name).unlink()
    for _ in range(2):
        assert finished_result(run.spec, tmp_path) is None
        assert read_record(run.path).row["status"] == "damaged"
        assert problems(run.path) != []
        with open_run(tmp_path, run.spec):
            pass


def test_weights_and_outputs_of_an_older_version_are_read_where_a_manifest_vouches_for_them(tmp_path: Path) -> None:
    run = record(tmp_path, 1)
    weights, (logits, labels) = {"w": torch.ones(3)}, run.load_predictions()
    contents = {}
    for name, save in (
        ("snapshots/step-0000276.pt", lambda file: torch.save(weights, file)),
        ("predictions.npz", lambda file: np.savez_compressed(file, logits=logits, labels=labels)),
    ):
        buffer = io.BytesIO()
        save(buffer)
        contents[name] = buffer.getvalue()
    commit(run.path, contents)
    assert torch.equal(run.load_weights()["w"], weights["w"]) and len(run.load_predictions()[0]) == 100
    (run.path / "manifest.json").unlink()
    with open_run(tmp_path, run.spec):
        pass
    for name in contents:
        with pytest.raises(StoreError):
            READERS[name](run)


def test_which_weights_were_kept_the_manifest_says(tmp_path: Path) -> None:
    """As of a run that went on with another `--snapshots`."""
    run = record(tmp_path, 1)
    for step in (0, 276):
        forget(run.path, [f"snapshots/step-{step:07d}.pt"])
        (run.path / f"snapshots/step-{step:07d}.pt").unlink()
        assert problems(run.path) == []


@pytest.mark.parametrize("step", ["-inf", "inf", "nan", "-1", "0.5", ""])
def test_a_step_is_a_whole_number(tmp_path: Path, step: str) -> None:
    run = record(tmp_path, 1)
    header, row = (run.path / "metrics.csv").read_text().splitlines()[:2]
    commit(run.path, {"metrics.csv": f"{header}\n{step},{row.partition(',')[2]}\n".encode()})
    with pytest.raises(Damaged, match=r"metrics\.csv"):
        run.rows()


def test_a_result_does_not_overrule_the_spec(tmp_path: Path) -> None:
    run = record(tmp_path, 1)
    result = json.loads((run.path / "result.json").read_text())
    changed = json.dumps({**result, "depth": "x", "seed": [7], "folder": 3}).encode()
    commit(run.path, {"result.json": changed})
    row = read_record(run.path).row
    assert (row["depth"], row["seed"], row["folder"]) == (run.spec.model.depth, run.spec.seed, str(run.path))


@pytest.mark.parametrize("writes", range(4))
def test_a_commit_that_is_killed_leaves_the_old_or_the_new(
    tmp_path: Path, writes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "x"
    old, new = {"spec.json": b"old", "metrics.csv": b"old"}, {"spec.json": b"new", "metrics.csv": b"new"}
    commit(folder, old)
    left = writes

    def write(path: Path, content: bytes | str) -> None:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        original(path, content)

    original = manifest.write_atomic
    monkeypatch.setattr(manifest, "write_atomic", write)
    with pytest.raises(KeyboardInterrupt):
        commit(folder, new)
    for name in old:
        assert Committed(folder).read(name) in (b"old", b"new")
    monkeypatch.undo()
    commit(folder, {"metrics.csv": b"newer"})
    assert Committed(folder).read("metrics.csv") == b"newer"
    assert Committed(folder).read("spec.json") in (b"old", b"new")
    (folder / "spec.json").write_bytes(b"old" if (folder / "spec.json").read_bytes() == b"new" else b"new")
    with pytest.raises(Damaged):  # once the next commit is made, only one of them is right
        Committed(folder).read("spec.json")


def test_what_a_kill_left_before_its_commit_is_not_read(tmp_path: Path) -> None:
    with open_run(tmp_path, RunSpec()) as run:
        run.save_checkpoint({"step": 0}, [])
        run.save_snapshot(0, {"w": torch.ones(2)})
    (run.path / "snapshots" / "step-0000005.pt").write_bytes(b"whatever")
    assert list(read_run(run.path).snapshots()) == [0]


def test_a_manifest_reaches_no_file_elsewhere(tmp_path: Path) -> None:
    text = Manifest(tmp_path.name, {"../secret.csv": (1, "x")}).to_text()
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(Damaged):
        read_manifest(tmp_path)
