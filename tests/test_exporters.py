"""Runs in other people's tools, read back with the tools' own readers; skipped where a tool is absent."""

from __future__ import annotations

import json
import os
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from resx import exporters
from resx.cli import run as call
from resx.cli.runs.export import Format
from resx.exporters import EXPORTERS
from resx.spec import build_spec
from resx.store.run import RunFolder, find_runs, open_run, read_run

ROWS = [
    {"step": 0, "lr": 0.1, "train_error": 90.0, "test_error": 91.0},
    {"step": 100, "lr": 0.1, "running_loss": 1 / 3, "train_error": 40.5, "test_error": 42.25},
    {"step": 276, "lr": 0.01, "running_loss": 0.1, "train_error": 1.5, "test_error": 12.5},
]
COSTS = {"seconds": 1.5, "parameters": 75002.0}
BLOCK = 2**15  # bytes of a block in wandb's files


def record(results: Path, rows: list[dict[str, float]], status: str, **fields: Any) -> RunFolder:
    """Record a run, or go on with it, up to the last of these rows."""
    with open_run(results, build_spec({"preset": "digits", **fields})) as run:
        started = {"seconds": 1.5, "started": "2026-01-02T03:04:05+00:00"}
        run.record_attempt(started, replace=bool(run.attempts()))
        run.save_snapshot(0, {"w": torch.zeros(2)})
        run.save_checkpoint({"step": rows[-1]["step"], "network": {}}, rows)
        if status != "unfinished":
            run.save_predictions(np.zeros((4, 2), dtype=np.float32), np.arange(4))
            last = {"steps_done": int(rows[-1]["step"]), "train_error": rows[-1].get("train_error")}
            run.finish({"run_id": run.run_id, "status": status, "data_label": "digits", **last, **COSTS})
    return run


@dataclass(frozen=True)
class Seen:
    """What a tool shows of a run. points: (step, name, number), as often as it is there. times: in milliseconds."""

    status: str
    fields: dict[str, Any]
    points: Counter[tuple[int, str, float]]
    files: set[str]
    times: tuple[int, int | None] | None = None


@dataclass(frozen=True)
class Tool:
    name: str
    target: str
    statuses: dict[str, str]
    read: Callable[[], dict[str, Seen]]

    def export(self) -> int:
        return call(["runs", "export", "--format", self.name, self.target])


def mlflow_tool(folder: Path) -> Tool:
    """Making mlflow's database takes seconds: tests share it and have an experiment each."""
    tracking = pytest.importorskip("mlflow.tracking", reason="mlflow is not installed")
    pytest.importorskip("sqlalchemy", reason="mlflow keeps runs in SQLite through SQLAlchemy")

    database, experiment = Path(os.environ["MLFLOW_DIR"], "mlflow.db"), folder.name
    os.environ["MLFLOW_EXPERIMENT_NAME"] = experiment

    def read() -> dict[str, Seen]:
        client = tracking.MlflowClient(tracking_uri=f"sqlite:///{database}")
        seen = {}
        for run in client.search_runs([client.get_experiment_by_name(experiment).experiment_id]):
            key = run.info.run_id
            points = [
                (metric.step, name, metric.value)
                for name in run.data.metrics
                for metric in client.get_metric_history(key, name)
            ]
            listed = client.list_artifacts(key)
            files = [
                file for part in listed for file in (client.list_artifacts(key, part.path) if part.is_dir else [part])
            ]
            name = run.data.tags["resx.run_id"]
            assert name == run.info.run_name and name not in seen
            times = (run.info.start_time, run.info.end_time)
            seen[name] = Seen(run.info.status, run.data.params, Counter(points), {file.path for file in files}, times)
        return seen

    statuses = {"finished": "FINISHED", "diverged": "FAILED", "unfinished": "RUNNING"}
    return Tool("mlflow", str(database), statuses, read)


def trackio_tool(folder: Path) -> Tool:
    """Trackio reads its folder's name once, when it is imported: tests share it and have a project each."""
    trackio = pytest.importorskip("trackio", reason="trackio is not installed")
    store = pytest.importorskip("trackio.sqlite_storage").SQLiteStorage
    project = folder.name.replace("_", "-")

    def read() -> dict[str, Seen]:
        seen = {}
        for run in trackio.Api().runs(project):
            points = Counter(
                (log["step"], name, value)
                for log in store.get_logs(project, run.name)
                for name, value in log.items()
                if name not in ("step", "timestamp")
            )
            files = {entry["path"] for entry in store.get_artifact_manifest(project, run.name, "latest")["manifest"]}
            seen[run.name] = Seen(run.config["status"], run.config, points, files)
        return seen

    return Tool("trackio", project, {name: name for name in ("finished", "diverged", "unfinished")}, read)


def wandb_records(file: Path) -> Iterator[Any]:
    """Yield the records of a .wandb file: a log of LevelDB's form, with a header of 7 bytes, of wandb's messages."""
    from wandb.proto import wandb_internal_pb2

    data, place, parts = file.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if BLOCK - place % BLOCK < 7:  # no room for a header in this block
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            message = wandb_internal_pb2.Record()
            message.ParseFromString(parts)
            yield message
            parts = b""


def wandb_tool(folder: Path) -> Tool:
    pytest.importorskip("wandb", reason="wandb is not installed")

    def read() -> dict[str, Seen]:
        seen = {}
        for path in (folder / "wandb").glob("offline-run-*/run-*.wandb"):
            fields, points, status = {}, Counter(), ""
            for message in wandb_records(path):
                match message.WhichOneof("record_type"):
                    case "run":
                        fields |= {item.key: json.loads(item.value_json) for item in message.run.config.update}
                    case "exit":
                        status = str(message.exit.exit_code)
                    case "history":
                        items = {item.key or item.nested_key[0]: item.value_json for item in message.history.item}
                        points.update(
                            (message.history.step.num, name, json.loads(text))
                            for name, text in items.items()
                            if not name.startswith("_")
                        )
            files = path.parent / "files"
            names = {file.relative_to(files).as_posix() for file in files.rglob("*") if file.is_file()}
            run_id = path.stem.removeprefix("run-")
            assert run_id not in seen
            seen[run_id] = Seen(status, fields, points, names)
        assert not list((folder / "wandb").glob(".resx-*"))
        return seen

    return Tool("wandb", "resx-tests", {"finished": "0", "diverged": "1", "unfinished": "255"}, read)


@pytest.fixture(scope="module", autouse=True)
def _own_places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give the tools folders of their own, before any is imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_EXPERIMENT_NAME", "")  # each test sets it
        for name in ("MLFLOW_DIR", "TRACKIO_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_CONFIG_DIR"):
            patch.setenv(name, str(tmp_path_factory.mktemp("place")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.slow) for name in ("mlflow", "trackio", "wandb")])
def tool(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    monkeypatch.chdir(tmp_path)
    made: Tool = {"mlflow": mlflow_tool, "trackio": trackio_tool, "wandb": wandb_tool}[request.param](tmp_path)
    return made


def points_of(rows: list[dict[str, float]], status: str) -> Counter[tuple[int, str, float]]:
    points = Counter((int(row["step"]), name, value) for row in rows for name, value in row.items() if name != "step")
    if status != "unfinished":
        points.update((int(rows[-1]["step"]), name, value) for name, value in COSTS.items())
    return points


def test_every_exporter_is_a_format() -> None:
    assert set(EXPORTERS) < set(Format)


def test_a_tool_shows_what_is_recorded(tool: Tool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {"finished": ROWS, "diverged": [*ROWS[:2], {"step": 110, "lr": 0.1}], "unfinished": ROWS[:2]}
    runs = {status: record(tmp_path / "results", rows[status], status, seed=i) for i, status in enumerate(rows)}
    with open_run(tmp_path / "results", runs["finished"].spec) as run:
        run.save_probe("lesions", pd.DataFrame({"block": [1], "error": [2.0]}))
    assert call(["runs", "note", runs["finished"].run_id, "--tag", "lecture", "--text", "first try"]) == 0
    capsys.readouterr()
    assert tool.export() == 0
    printed = capsys.readouterr()
    assert printed.out == f"3 runs exported to {tool.target}, 3 of them with anything new\n"
    assert printed.err == ""
    seen = tool.read()
    assert seen.keys() == {run.run_id for run in runs.values()}
    for status, run in runs.items():
        there = seen[run.run_id]
        assert there.status == tool.statuses[status]
        assert there.points == points_of(rows[status], status)
        assert {key: str(there.fields[key]) for key in ("depth", "shortcut", "seed", "lr")} == {
            "depth": "20",
            "shortcut": "identity",
            "seed": str(run.spec.seed),
            "lr": str(run.spec.train.lr),
        }
        assert {"spec.json", "metrics.csv", "environment.json"} <= there.files
        assert ("result.json" in there.files) == ("curves.png" in there.files) == (status != "unfinished")
        assert not any(name.endswith((".pt", ".npz")) for name in there.files)
        ended = None if status == "unfinished" else 1767323046500
        assert there.times in (None, (1767323045000, ended))
    assert {"probes/lesions.csv", "notes.json"} <= seen[runs["finished"].run_id].files


def test_a_second_export_changes_nothing(tool: Tool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(tmp_path / "results", ROWS, "finished")
    assert tool.export() == 0
    before = tool.read()
    assert tool.export() == 0
    assert capsys.readouterr().out.endswith(", 0 of them with anything new\n")
    assert tool.read() == before


def test_a_run_that_grew_gets_what_is_new(tool: Tool, tmp_path: Path) -> None:
    for rows, status in ((ROWS[:1], "unfinished"), (ROWS, "unfinished"), (ROWS, "finished")):
        run = record(tmp_path / "results", rows, status)
        assert tool.export() == 0
        there = tool.read()[run.run_id]
        assert (there.status, there.points) == (tool.statuses[status], points_of(rows, status))
    with open_run(tmp_path / "results", run.spec) as run:
        run.save_probe("paths", pd.DataFrame({"block": [1]}))
    assert tool.export() == 0
    assert "probes/paths.csv" in tool.read()[run.run_id].files
    assert tool.read()[run.run_id].points == points_of(ROWS, "finished")


def test_what_a_kill_left_out_is_exported_by_the_next_one(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = record(tmp_path / "results", ROWS, "finished")
    with monkeypatch.context() as patch:
        patch.setattr(exporters.Content, "_draw", lambda content, folder: 1 / 0)  # in the middle of a run
        assert tool.export() == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert tool.export() == 0
    assert tool.read()[run.run_id].points == points_of(ROWS, "finished")
    assert "curves.png" in tool.read()[run.run_id].files


def test_numbers_that_contradict_those_that_are_there_are_refused(
    tool: Tool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(tmp_path / "results", ROWS, "finished")
    assert tool.export() == 0
    before = tool.read()
    again = record(tmp_path / "others", [*ROWS[:2], {**ROWS[2], "test_error": 12.25}], "finished")
    more = record(tmp_path / "others", ROWS, "finished", seed=1)
    if tool.name == "wandb":  # whose folder can be replaced until it is uploaded
        [folder] = (tmp_path / "wandb").glob("offline-run-*")
        (folder / f"run-{again.run_id}.wandb.synced").touch()
    capsys.readouterr()
    assert call(["runs", "export", "--format", tool.name, tool.target, "--results", "others"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert again.run_id in line and "delete the run there" in line
    assert tool.read()[again.run_id] == before[again.run_id]
    assert tool.read()[more.run_id].points == points_of(ROWS, "finished"), "the others are exported all the same"


@pytest.mark.parametrize("name", list(EXPORTERS))
def test_an_absent_package_is_one_line_that_names_the_extra(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record(tmp_path / "results", ROWS, "finished")
    monkeypatch.chdir(tmp_path)
    for module in (name, "mlflow.tracking", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, module, None)
    assert call(["runs", "export", "--format", name, "target"]) == 2
    assert capsys.readouterr().err == f"resx: {name} is not installed: pip install 'resx[{name}]'\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "target"), [("mlflow", "."), ("mlflow", "file:mlruns"), ("wandb", "a/b"), ("trackio", "")]
)
def test_a_target_that_is_none_is_one_line(
    name: str, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(name)
    record(tmp_path / "results", ROWS, "finished")
    monkeypatch.chdir(tmp_path)
    assert call(["runs", "export", "--format", name, target]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert os.listdir(tmp_path) == ["results"]


TRAIN = ["train", "--preset", "digits", "--depth", "8", "--steps", "40", "--eval-every", "5", "--quiet"]


def test_a_run_is_followed_while_it_trains(tool: Tool, tmp_path: Path) -> None:
    assert call([*TRAIN, "--track", f"{tool.name}:{tool.target}"]) == 0
    [run] = [read_run(path) for path in find_runs(tmp_path / "results")]
    [there] = tool.read().values()
    assert there.status == tool.statuses["finished"]
    assert {step for step, _, _ in there.points} == {int(row[0]) for row in run.rows()}
    assert max(there.points.values()) == 1
    assert tool.export() == 0
    assert tool.read() == {run.run_id: there}, "an export has nothing to add"


def test_what_is_shown_grows_and_a_tool_that_fails_does_not_stop_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shown: list[tuple[int, bool]] = []

    def write(run: RunFolder) -> bool:
        shown.append((len(run.rows()), run.result is not None))
        if len(shown) == limit:
            raise ConnectionError("the server has gone\nand more")
        return True

    monkeypatch.setitem(EXPORTERS._entries, "board", lambda target: write)
    limit = -1
    assert call([*TRAIN, "--track", "board:here", "--results", str(tmp_path / "one")]) == 0
    assert shown == sorted(shown) and len(shown) > 1
    assert (shown[0][1], shown[-1]) == (False, (9, True))
    shown, limit = [], 1
    assert call([*TRAIN, "--track", "board:here", "--results", str(tmp_path / "two")]) == 0
    assert len(shown) == 1
    [line] = [message for message in caplog.messages if "board" in message]
    assert line.startswith("board: ConnectionError: the server has gone; `resx runs export")


@pytest.mark.parametrize("track", ["mlflow", "nowhere:x", "mlflow:http://me:secret@host"])
def test_a_tool_that_cannot_follow_is_refused_before_training(
    track: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call([*TRAIN, "--track", track, "--results", str(tmp_path)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "secret" not in line
    assert not list(tmp_path.iterdir())
