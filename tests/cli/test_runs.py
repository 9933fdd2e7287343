"""`resx runs`: what is recorded is found, compared, checked, noted on and removed, damaged or not."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from resx.cli import run as call
from resx.spec import build_spec
from resx.store.run import RunFolder, open_run

OUTCOMES = {"train_error": 1.5, "test_error": 12.5}


def record(results: Path, *, finished: bool = True, error: float = 12.5, **fields: Any) -> RunFolder:
    with open_run(results, build_spec(fields)) as run:
        run.record_attempt({"seconds": 1.0, "hardware": "a machine"}, replace=False)
        for step in (0, 1, 276):
            run.save_snapshot(step, {"w": torch.full((3,), float(step))})
        run.save_predictions(np.zeros((4, 2), dtype=np.float32), np.arange(4))
        outcomes = {**OUTCOMES, "test_error": error}
        state = {"step": 276, "network": {"w": torch.full((3,), 276.0)}}
        run.save_checkpoint(state, [{"step": 276, **outcomes}])
        if finished:
            run.finish({"run_id": run.run_id, "status": "finished", "steps_done": 276, "seconds": 1.0, **outcomes})
        run.save_probe("lesions", pd.DataFrame({"block": [1], "error": [2.0]}))
    return run


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, RunFolder]:
    """Three finished runs and one that is not."""
    monkeypatch.chdir(tmp_path)
    results = tmp_path / "results"
    return {
        "plain": record(results, depth=20, shortcut="none", error=30.0),
        "residual": record(results, depth=20, error=9.0),
        "deep": record(results, depth=56, error=8.0),
        "open": record(results, depth=56, shortcut="none", finished=False),
    }


def listed(capsys: pytest.CaptureFixture[str], *options: str) -> list[dict[str, Any]]:
    assert call(["runs", "list", "--json", *options]) == 0
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return rows


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--where", "depth=20", "--sort", "test_error"], ["residual", "plain"]),
        (["--where", "depth=20", "--where", "depth=56.0", "--where", "shortcut=none"], ["open", "plain"]),
        (["--sort", "-test_error"], ["plain", "residual", "deep", "open"]),
        (["--status", "unfinished"], ["open"]),
        (["--where", "status=finished", "--where", "test_error=8"], ["deep"]),
        (["--where", "seed=7"], []),
    ],
)
def test_runs_are_found_by_their_fields(
    runs: dict[str, RunFolder], options: list[str], names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row["run_id"] for row in listed(capsys, *options)]
    expected = [runs[name].run_id for name in names]
    assert rows == expected if "--sort" in options else sorted(rows) == sorted(expected)


def test_a_list_of_80_columns_cuts_no_name_and_shows_what_differs(runs: dict[str, RunFolder]) -> None:
    code = "import pty, sys; sys.exit(pty.spawn([sys.executable, '-m', 'resx', 'runs', 'list']))"
    environment = {**os.environ, "COLUMNS": "80", "TERM": "dumb"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    for run in runs.values():
        assert run.run_id[-8:] in done.stdout
    assert "depth" in done.stdout and "shortcut" in done.stdout
    assert all(len(line.rstrip("\r")) <= 80 for line in done.stdout.splitlines())


def test_candidates_are_named_where_several_match(
    runs: dict[str, RunFolder], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["runs", "show", "plain"]) == 2
    line = capsys.readouterr().err
    assert runs["plain"].run_id in line and runs["open"].run_id in line


@pytest.mark.parametrize("name", ["", " ", ".", "..", "runs", "../results"])
def test_no_odd_name_removes_a_run(runs: dict[str, RunFolder], name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["runs", "rm", "--yes", name]) == 2
    assert all(run.path.exists() for run in runs.values())
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_whatever_lies_in_the_place_of_a_run_is_removed_by_its_name(runs: dict[str, RunFolder]) -> None:
    places = [run.path for run in runs.values()]
    for place in places[:2]:
        call(["runs", "rm", "--yes", place.name])
    places[0].write_text("a file")
    places[1].symlink_to("nowhere")
    (places[2] / ".lock").unlink()
    (places[2] / ".lock").mkdir()
    for place in places[:3]:
        assert call(["runs", "rm", "--yes", place.name]) == 0
        assert not os.path.lexists(place)
    assert places[3].exists()


def test_only_what_is_meant_is_removed(runs: dict[str, RunFolder], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["runs", "rm", "--yes"]) == 2
    assert call(["runs", "rm", "--unfinished", "--yes"]) == 0
    assert call(["runs", "rm", "--where", "depth=20", "--where", "shortcut=none", "--yes"]) == 0
    assert {name for name, run in runs.items() if run.path.exists()} == {"residual", "deep"}


def test_old_runs_are_listed_and_removed_after_a_question(
    runs: dict[str, RunFolder], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, days in (("open", 8), ("plain", 9)):
        for path in [*runs[name].path.iterdir(), runs[name].path]:
            os.utime(path, (time.time() - days * 86400,) * 2)
    rows = listed(capsys, "--older", "7", "--sort", "written")
    assert [row["run_id"] for row in rows] == [runs["plain"].run_id, runs["open"].run_id]
    assert listed(capsys, "--older", "10") == []
    for answer, left in (("n\n", True), ("y\n", False)):
        monkeypatch.setattr("sys.stdin", io.StringIO(answer))
        assert call(["runs", "rm", "--unfinished", "--older", "7"]) == 0
        assert ("nothing was removed" in capsys.readouterr().err) is left
        assert runs["open"].path.exists() is left
    assert runs["plain"].path.exists()


def test_runs_are_compared(runs: dict[str, RunFolder], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["runs", "diff", runs["plain"].run_id, runs["residual"].run_id, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert set(content) == {"shortcut", "test_error"}


def test_notes_and_tags_are_no_part_of_a_run(runs: dict[str, RunFolder], capsys: pytest.CaptureFixture[str]) -> None:
    run_id = runs["deep"].run_id
    assert call(["runs", "note", run_id, "--tag", "lecture", "--tag", "old", "--text", "first [b]try"]) == 0
    assert call(["runs", "note", run_id, "--untag", "old"]) == 0
    assert "first [b]try" in capsys.readouterr().out
    [row] = listed(capsys, "--tag", "lecture")
    assert (row["run_id"], row["tags"], row["note"]) == (run_id, ["lecture"], "first [b]try")
    assert call(["runs", "check"]) == 0
    assert call(["runs", "note", run_id, "--tag", "two words"]) == 2


@pytest.mark.parametrize("name", ["spec.json", "result.json", "manifest.json"])
def test_a_damaged_run_is_listed_and_can_be_removed(
    runs: dict[str, RunFolder], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = runs["deep"]
    (damaged.path / name).write_text("")
    rows = {row["run_id"]: row for row in listed(capsys)}
    assert rows[damaged.run_id]["status"] == "damaged"
    assert [row["status"] for row in rows.values()].count("finished") == 2
    assert call(["runs", "list"]) == 0
    assert name in capsys.readouterr().err
    assert call(["runs", "show", damaged.run_id]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert call(["runs", "export", "curves.csv"]) == 0
    assert call(["runs", "rm", "--yes", damaged.run_id]) == 0
    assert not damaged.path.exists()


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_tables_that_are_exported_have_the_fields_of_the_runs(ending: str, runs: dict[str, RunFolder]) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    read = pd.read_parquet if ending == "parquet" else pd.read_csv
    tables = {}
    for name in ("runs", "curves"):
        assert call(["runs", "export", f"{name}.{ending}", "--table", name]) == 0
        tables[name] = read(f"{name}.{ending}")
    assert set(tables["runs"]["run_id"]) == {run.run_id for run in runs.values()}
    assert {"depth", "shortcut", "seed", "status", "test_error"} <= set(tables["runs"])
    curves = tables["curves"]
    assert {"step", "lr", "initial_lr", "depth", "shortcut", "seed"} <= set(curves)
    for run in runs.values():
        own = curves[curves["run_id"] == run.run_id]
        assert list(own["step"]) == [row[0] for row in run.rows()]
        assert set(own["depth"]) == {run.spec.model.depth} and set(own["initial_lr"]) == {run.spec.train.lr}


def test_check_says_what_is_wrong_and_repair_mends_it(
    runs: dict[str, RunFolder], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("manifest.json", "metrics.csv", "environment.json"):
        file = runs["deep"].path / name
        before = file.read_bytes()
        file.write_text("damaged")
        assert call(["runs", "check"]) == 1
        assert name in capsys.readouterr().err
        assert call(["runs", "check", "--repair"]) == 0, capsys.readouterr().err
        assert call(["runs", "check"]) == 0
        if name == "metrics.csv":
            assert file.read_bytes() == before
    (runs["deep"].path / "snapshots" / "step-0000001.pt").unlink()
    assert call(["runs", "check", "--repair"]) == 1
    assert "step-0000001.pt: is missing" in capsys.readouterr().err


def test_weights_in_between_can_go(runs: dict[str, RunFolder], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["runs", "gc", "--snapshots", "ends", "--yes"]) == 0
    assert list(runs["deep"].snapshots()) == [0, 276]
    assert list(runs["open"].snapshots()) == [0, 1, 276], "a run that is not finished may need them"
    assert call(["runs", "gc", "--snapshots", "none", "--yes"]) == 0
    assert list(runs["deep"].snapshots()) == []
    assert torch.equal(runs["deep"].load_weights()["w"], torch.full((3,), 276.0)), "the checkpoint has the last"
    assert call(["runs", "check"]) == 0


def test_leftovers_of_kills_go(runs: dict[str, RunFolder]) -> None:
    path = runs["deep"].path
    left = [path / ".spec.json.abc.tmp", path / "snapshots" / "step-0000005.pt", path.with_name(".removed-1") / "x"]
    for file in left:
        file.parent.mkdir(exist_ok=True)
        file.write_text("x")
    assert call(["runs", "gc"]) == 0
    assert not any(file.exists() for file in left)
    assert call(["runs", "check"]) == 0


def test_a_copy_of_a_run_is_no_run(runs: dict[str, RunFolder], capsys: pytest.CaptureFixture[str]) -> None:
    os.symlink(runs["deep"].path, runs["deep"].path.with_name(f"{runs['deep'].run_id}.bak"))
    assert len(listed(capsys)) == 4


def test_no_name_of_a_folder_writes_control_characters(runs: dict[str, RunFolder]) -> None:
    (runs["deep"].path.parent / "\x1b[2Jx").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "resx", "runs", "list"], stdin=subprocess.DEVNULL, capture_output=True, timeout=120
    )
    assert b"left out" in done.stderr and b"\x1b" not in done.stderr


def test_points_are_not_doubled_in_a_second_export(runs: dict[str, RunFolder]) -> None:
    pytest.importorskip("tensorboard")
    for _ in range(2):
        assert call(["runs", "export", "--format", "tensorboard", "events"]) == 0
        assert len(list((Path("events") / runs["deep"].run_id).iterdir())) == 1


def test_reading_records_waits_for_no_large_library(runs: dict[str, RunFolder]) -> None:
    run_id = runs["deep"].run_id
    commands = [
        ["runs", "list"],
        ["runs", "list", "--json"],
        ["runs", "show", run_id],
        ["runs", "diff", run_id, run_id],
        ["runs", "rm", "-y", run_id],
        ["data"],
        ["models"],
    ]
    libraries = {"torch", "pandas", "scipy", "matplotlib", "sklearn"}
    program = (
        f"import sys; from resx.cli import run\nfor words in {commands!r}:\n"
        f"    assert run(words) == 0, words\n    assert not {libraries!r} & set(sys.modules), words"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_any_encoding_will_do(tmp_path: Path, encoding: str) -> None:
    results = tmp_path / "Läufe–×"
    record(results, label=None, depth=20)
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    for words in (["list"], ["show", "residual"]):
        done = subprocess.run(
            [sys.executable, "-m", "resx", "runs", *words, "--results", str(results)],
            env=environment,
            capture_output=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", [["runs", "list"], ["data"], ["list", "presets", "--json"]])
def test_who_reads_may_go(runs: dict[str, RunFolder], words: list[str]) -> None:
    """As in `resx runs list | head`."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "resx", *words]
    with os.fdopen(writer, "wb") as gone:
        done = subprocess.run(command, stdout=gone, stderr=subprocess.PIPE, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_full_disk_behind_stdout_is_one_line(runs: dict[str, RunFolder]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "resx", "runs", "list"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=120
        )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1 and "stdout" in done.stderr


def test_markup_is_no_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "old[copy]"
    record(results, dataset="folder", label="[/b] $x$", content="abc")
    record(results, dataset="folder", label="[red]", content="abc")
    assert call(["runs", "list", "--results", str(results)]) == 0
    out = capsys.readouterr().out
    assert "old[copy]" in out and "[/b] $x$" in out


PUBLISHED = Path(__file__).parents[2] / "results" / "digits-depths"


@pytest.mark.parametrize(
    "words",
    [
        ["show", "plain"],
        ["diff", "plain", "residual"],
        ["note", "plain", "--tag", "a"],
        ["check"],
        ["rm", "--yes", "--where", "depth=56"],
        ["gc"],
        ["export", "a.csv"],
        ["export", "a.zip", "--format", "bundle"],
    ],
    ids=" ".join,
)
def test_what_needs_folders_of_runs_says_that_a_published_experiment_has_none(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(["runs", *words, "--results", str(PUBLISHED)]) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith(f"resx: {PUBLISHED}: a published experiment") and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_published_experiment_is_listed_under_its_own_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["runs", "list", "--results", str(PUBLISHED)]) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith(f"runs in {PUBLISHED}")
