"""Runs travel in one file, and a file from elsewhere is checked whole before anything of it is taken in."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from resx.spec import RunSpec, SpecError
from resx.store import bundle as bundles
from resx.store.bundle import export_bundle, import_bundle
from resx.store.files import StoreError
from resx.store.mend import problems
from resx.store.run import RunFolder, find_runs, open_run, read_run


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    with open_run(tmp_path / "results", RunSpec(seed=7)) as folder:
        folder.record_attempt({"command": f"resx train --spec {tmp_path}/x.toml", "seconds": 1.0}, replace=False)
        folder.save_snapshot(0, {"w": torch.zeros(2)})
        folder.save_predictions(np.zeros((4, 2), dtype=np.float32), np.arange(4))
        folder.save_checkpoint({"step": 276}, [{"step": 276, "train_error": 12.5}])
        folder.finish({"run_id": folder.run_id, "status": "finished", "steps_done": 276, "train_error": 12.5})
        folder.save_probe("lesions", pd.DataFrame({"block": [1], "error": [2.0]}))
    return read_run(folder.path)


@pytest.fixture
def packed(run: RunFolder, tmp_path: Path) -> Path:
    export_bundle([run], tmp_path / "runs.zip")
    return tmp_path / "runs.zip"


def test_a_bundle_travels(run: RunFolder, packed: Path, tmp_path: Path) -> None:
    assert import_bundle(packed, tmp_path / "elsewhere") == ([run.run_id], [])
    there = tmp_path / "elsewhere" / "runs" / run.run_id
    files = {file.relative_to(there).as_posix() for file in there.rglob("*") if file.is_file()}
    assert files >= {"spec.json", "checkpoint.pt", "metrics.csv", "result.json", "manifest.json", "probes/lesions.csv"}
    changed = {name for name in files if (there / name).read_bytes() != (run.path / name).read_bytes()}
    assert changed == {"environment.json", "manifest.json"}, "the command is without paths of this machine"
    assert problems(there) == []
    (there / "metrics.csv").write_text("mine")
    assert import_bundle(packed, tmp_path / "elsewhere") == ([], [run.run_id])
    assert (there / "metrics.csv").read_text() == "mine"


def test_a_bundle_describes_itself_as_an_ro_crate(run: RunFolder, packed: Path) -> None:
    """What version 1.1 asks for: the descriptor, the root with a date, and data, linked from the root."""
    with zipfile.ZipFile(packed) as file:
        crate, names = json.loads(file.read("ro-crate-metadata.json")), file.namelist()
    assert crate.keys() == {"@context", "@graph"}
    assert crate["@context"] == "https://w3id.org/ro/crate/1.1/context"
    entities = {entity["@id"]: entity for entity in crate["@graph"]}
    assert len(entities) == len(crate["@graph"]) and all("@type" in entity for entity in entities.values())
    descriptor, root = entities.pop("ro-crate-metadata.json"), entities.pop("./")
    assert descriptor["@type"] == "CreativeWork" and descriptor["about"] == {"@id": "./"}
    assert descriptor["conformsTo"] == {"@id": "https://w3id.org/ro/crate/1.1"}
    assert root["@type"] == "Dataset" and root["name"] and root["description"]
    assert datetime.datetime.fromisoformat(root["datePublished"])
    assert [part["@id"] for part in root["hasPart"]] == list(entities) == [f"{run.run_id}/"]
    for key, entity in entities.items():
        assert entity["@type"] == "Dataset" and any(name.startswith(key) for name in names)


def test_a_bundle_without_a_description_is_taken_in(run: RunFolder, packed: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(packed) as file, zipfile.ZipFile(tmp_path / "old.zip", "w") as old:
        for name in file.namelist():
            if "/" in name:
                old.writestr(name, file.read(name))
    assert import_bundle(tmp_path / "old.zip", tmp_path / "elsewhere") == ([run.run_id], [])


def test_no_path_of_this_machine_travels(packed: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(packed) as file:
        assert not any(str(tmp_path).encode() in file.read(name) for name in file.namelist())


@pytest.mark.parametrize("date", [0, 5_000_000_000])  # 1970 and 2128: a zip file holds 1980 to 2107
def test_a_bundle_does_not_depend_on_the_files_times(run: RunFolder, packed: Path, tmp_path: Path, date: int) -> None:
    for file in run.path.rglob("*"):
        os.utime(file, (date, date))
    export_bundle([run], tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == packed.read_bytes()


def test_a_damaged_run_does_not_travel(run: RunFolder, tmp_path: Path) -> None:
    (run.path / "metrics.csv").write_text("")
    with pytest.raises(StoreError, match=r"metrics\.csv"):
        export_bundle([run], tmp_path / "bad.zip")
    assert not (tmp_path / "bad.zip").exists()


def refused(file: Path, results: Path) -> str:
    """Import a bundle that must be refused; return the line, and see that nothing is left of it."""
    with pytest.raises(SpecError) as caught:
        import_bundle(file, results)
    assert len(caught.value.errors) == 1 and "\n" not in str(caught.value)
    assert file.name in str(caught.value)
    assert not list((results / "runs").glob("*")) and not list((results / "runs").glob(".*"))
    return str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "../evil.txt",
        "/evil.txt",
        "{run}/../../evil.txt",
        "{run}/evil.py",
        "{run}/snapshots/../../x.pt",
        "{run}/probes/a/b.csv",
        "{run}/probes/\x1b[31m.csv",
        "{run}/",
    ],
)
def test_a_bundle_cannot_write_elsewhere(run: RunFolder, packed: Path, tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(packed, "a") as file:
        file.writestr(name.format(run=run.run_id), "x")
    assert "\x1b" not in refused(packed, tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()


def changed(packed: Path, name: str, content: bytes | None, *, manifest: bool) -> Path:
    """Write a bundle with one file changed or left out; with a manifest that says it is right, or with none."""
    target = packed.with_name("changed.zip")
    with zipfile.ZipFile(packed) as old, zipfile.ZipFile(target, "w") as new:
        contents = {member: old.read(member) for member in old.namelist() if "/" in member}
        [run_id] = {member.partition("/")[0] for member in contents}
        contents[f"{run_id}/{name}"] = content  # type: ignore[assignment]
        files = {key.partition("/")[2]: data for key, data in contents.items() if data is not None}
        del files["manifest.json"]
        stamps = {key: bundles.stamp(data) for key, data in files.items()}
        if manifest:
            files["manifest.json"] = bundles.Manifest(run_id, stamps).to_text().encode()
        for key, data in files.items():
            new.writestr(f"{run_id}/{key}", data)
    return target


SPEC_TEXT = '{"run_id": "x", "spec": {"data": {"label": "\\u001b[31m"}}}'


@pytest.mark.parametrize("manifest", [True, False])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("spec.json", None),
        ("spec.json", b"{}"),
        ("spec.json", b"[" * 100_000),
        ("spec.json", SPEC_TEXT.encode()),
        ("spec.json", json.dumps({"spec": RunSpec(seed=8).model_dump(mode="json")}).encode()),
        ("result.json", b"[]"),
        ("result.json", b'{"status": "finished"}'),
        ("result.json", b'{"run_id": "%s", "status": "finished", "train_error": "12"}'),
        ("result.json", b'{"run_id": "%s", "status": "finished", "train_error": NaN}'),
        ("result.json", b'{"run_id": "%s", "status": "finished", "data_label": 3}'),
        ("result.json", b'{"run_id": "%s", "status": "finished", "data_label": "\\u001b[2J"}'),
        ("result.json", b'{"run_id": "%s", "status": "finished", "steps_done": 1e3}'),
        ("metrics.csv", b""),
        ("metrics.csv", b"\x00\xff\x00"),
        ("metrics.csv", b"step,loss\n1,2\n"),
        ("predictions.npz", b""),
        ("predictions.npz", b"PK\x03\x04"),
        ("checkpoint.pt", b"no tensors"),
        ("snapshots/step-0000000.pt", b""),
        ("probes/lesions.csv", b""),
        ("probes/lesions.csv", b"\x00\xff\xfe"),
        ("environment.json", b'{"a": 1}'),
        ("environment.json", b'[{"seconds": "long"}]'),
    ],
)
def test_what_the_readers_cannot_read_is_refused(
    packed: Path, tmp_path: Path, name: str, content: bytes | None, manifest: bool
) -> None:
    with zipfile.ZipFile(packed) as file:
        run_id = file.namelist()[0].partition("/")[0].encode()
    content = content.replace(b"%s", run_id) if content else content
    refused(changed(packed, name, content, manifest=manifest), tmp_path / "elsewhere")


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-200])


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1
    file.write_bytes(data)


def double(file: Path) -> None:
    with zipfile.ZipFile(file, "a") as bundle, pytest.warns(UserWarning, match="Duplicate"):
        bundle.writestr(bundle.namelist()[0], "again")


def encrypt(file: Path) -> None:
    set_directory(file, 8, struct.pack("<H", 1))


def compress_strangely(file: Path) -> None:
    set_directory(file, 10, struct.pack("<H", 99))


def swell(file: Path) -> None:
    set_directory(file, 24, struct.pack("<L", 4_000_000_000))


def set_directory(file: Path, place: int, value: bytes) -> None:
    """Change a field of every member in the directory of a zip file."""
    data = file.read_bytes()
    position = data.find(b"PK\x01\x02")
    while position >= 0:
        data = data[: position + place] + value + data[position + place + len(value) :]
        position = data.find(b"PK\x01\x02", position + 4)
    file.write_bytes(data)


@pytest.mark.parametrize(
    "harm",
    [cut, flip, double, encrypt, compress_strangely, swell, lambda file: file.write_bytes(b"no zip at all"), os.unlink],
)
def test_a_damaged_or_hostile_file_is_named(packed: Path, tmp_path: Path, harm: Callable[[Path], None]) -> None:
    harm(packed)
    refused(packed, tmp_path / "elsewhere")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.zip")
    refused(tmp_path / "pipe.zip", tmp_path / "elsewhere")


def test_many_members_are_refused_at_once(run: RunFolder, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as file:
        for number in range(2000):
            file.writestr(f"{run.run_id}/snapshots/step-{number:07d}.pt", b"")
    begun = time.monotonic()
    assert "more than 500 files" in refused(tmp_path / "many.zip", tmp_path / "elsewhere")
    assert time.monotonic() - begun < 30


def test_what_a_killed_import_left_is_no_run_and_goes(run: RunFolder, packed: Path, tmp_path: Path) -> None:
    left = tmp_path / "elsewhere" / "runs" / ".import-0123"
    shutil.copytree(run.path, left / run.run_id)
    assert find_runs(tmp_path / "elsewhere") == []
    import_bundle(packed, tmp_path / "elsewhere")
    assert [path.name for path in (tmp_path / "elsewhere" / "runs").iterdir()] == [run.run_id]


def test_a_folder_with_a_lock_alone_is_no_run(run: RunFolder, packed: Path, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere" / "runs" / run.run_id
    place.mkdir(parents=True)
    (place / ".lock").touch()
    assert import_bundle(packed, tmp_path / "elsewhere") == ([run.run_id], [])
    assert problems(place) == []


def test_two_imports_at_once_leave_each_other_alone(
    run: RunFolder, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "elsewhere"
    check = bundles._check

    def check_and_import(path: Path, source: Path) -> None:
        monkeypatch.setattr(bundles, "_check", check)
        assert import_bundle(packed, results) == ([run.run_id], [])  # a second, while the first is under way
        check(path, source)

    monkeypatch.setattr(bundles, "_check", check_and_import)
    assert import_bundle(packed, results) == ([], [run.run_id])
    assert problems(results / "runs" / run.run_id) == []
