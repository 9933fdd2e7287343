"""Live run folders and published experiments give the same tables, and a damaged one is never served."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

import resx
from resx.spec import RunSpec, SpecError, build_spec, load_toml
from resx.store.files import StoreError
from resx.store.run import METRICS, OUTCOMES, find_runs, open_run, read_run
from resx.store.tables import export_tables, load_environments, load_frames, load_runs, write_frames

SPECS = [
    build_spec({"depth": depth, "shortcut": "none", "seed": seed, "lr": 0.1 / 3, "label": label, "adapter": adapter})
    for depth, label, adapter in ((8, "0123", None), (14, 'a "b", c', "subsample+pad+fold-sum"))
    for seed in (0, 1)
]
CHILD = build_spec({"seed": 5, "active_blocks": 2, "init_from": {"run": SPECS[0].run_id, "transform": "deepen"}})
UNFINISHED = build_spec({"seed": 6})
ATTEMPT = {"command": "resx train --seed 1", "commit": "827990965737", "torch": "2.11.0", "threads": 1, "seconds": 1.5}


def make_run(results: Path, spec: RunSpec, *, finished: bool = True) -> None:
    with open_run(results, spec) as run:
        attempt = {**ATTEMPT, "first_step": 0, "last_step": 3}
        run.record_attempt(attempt, replace=False)
        if spec.seed == 1:
            run.record_attempt({**attempt, "commit": "827990965738"}, replace=False)
        rows = [{"step": float(step), "lr": 0.02, "train_loss": 1 / 3 + step, "test_error": 100.0} for step in (0, 3)]
        run.save_checkpoint({"step": 3}, rows)
        run.save_probe("gains", pd.DataFrame({"block": [1, 2], "gain": [1 / 3, float("inf")], "settings": '{"n": 4}'}))
        if finished:
            outcomes = {"train_loss": 1e-7 / 3, "train_error": 0.0, "test_error": 200 / 3, "val_loss": None}
            counts = {"parameters": 2_516_608, "test_images": 297, "data_label": "digits", "reference": None}
            run.finish({"run_id": run.run_id, "status": "finished", "seconds": 3.0, **outcomes, **counts})


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Six runs; the last is not finished."""
    for spec in (*SPECS, CHILD):
        make_run(tmp_path / "live", spec)
    make_run(tmp_path / "live", UNFINISHED, finished=False)
    return tmp_path / "live"


def publish(results: Path, folder: Path, uses: list[str], specs: list[RunSpec]) -> Path:
    ids = [spec.run_id for spec in specs]
    write_frames(load_frames(results, ids), load_environments(results, ids), folder, uses=uses)
    return folder


def assert_same(first: dict[str, pd.DataFrame], second: dict[str, pd.DataFrame]) -> None:
    assert set(first) == set(second)
    for name, frame in first.items():
        ours, theirs = (table.drop(columns="folder", errors="ignore") for table in (frame, second[name]))
        assert_frame_equal(ours, theirs, check_exact=True, obj=name)


def test_both_forms_give_equal_tables(results: Path, tmp_path: Path) -> None:
    export_tables([read_run(path) for path in find_runs(results)], tmp_path / "published")
    published = load_frames(tmp_path / "published")
    assert_same(load_frames(results), published)
    assert_frame_equal(load_environments(results), load_environments(tmp_path / "published"), check_like=True)
    assert set(published["runs"]["drops"]) == {(0.5, 0.75)}
    assert published["runs"].set_index("run_id")["init_from"][CHILD.run_id] == CHILD.init_from
    assert published["runs"].set_index("run_id")["lr"][SPECS[0].run_id] == 0.1 / 3
    runs, curves = load_runs(tmp_path / "published")
    assert_same({"runs": runs, "curves": curves}, {name: published[name] for name in ("runs", "curves")})


def test_blocks_whose_names_look_like_numbers_keep_them(results: Path, tmp_path: Path) -> None:
    run = read_run(results / "runs" / SPECS[0].run_id)
    names = ["1.1", "1.10", "2"]
    run.save_probe("lesions", pd.DataFrame({"blocks": ["", *names], "name": ["stem", *names], "error": 1.0}))
    for source in (results, publish(results, tmp_path / "published", [], SPECS)):
        table = load_frames(source)["lesions"]
        assert list(table["name"]) == ["stem", *names]
        assert list(table["blocks"].dropna()) == names


def test_what_made_a_run_in_several_attempts_is_kept(results: Path) -> None:
    made = load_environments(results).set_index("run_id")
    assert made["commit"][SPECS[1].run_id] == "827990965737; 827990965738"
    assert made["torch"].tolist() == ["2.11.0"] * len(made)


def test_only_what_is_asked_for_is_opened(results: Path) -> None:
    (results / "runs" / SPECS[1].run_id / "metrics.csv").write_text("damaged")
    (results / "runs" / SPECS[0].run_id / "probes" / "other.csv").write_bytes(b"\xff")
    frames = load_frames(results, [SPECS[0].run_id], ["gains"])
    assert frames["gains"]["run_id"].unique().tolist() == frames["runs"]["run_id"].tolist() == [SPECS[0].run_id]
    assert set(load_frames(results, [SPECS[0].run_id], ())) == {"runs", "curves"}
    with pytest.raises(StoreError, match="no run plain-0"):
        load_frames(results, ["plain-0"])


def test_nothing_recorded_is_an_empty_table_with_all_columns(tmp_path: Path, results: Path) -> None:
    runs, curves = load_runs(tmp_path / "nothing")
    assert runs.empty
    assert list(runs) == list(load_runs(results)[0])
    assert list(curves) == ["run_id", *METRICS]


def test_a_run_of_another_experiment_is_stored_once(results: Path, tmp_path: Path) -> None:
    publish(results, tmp_path / "first", [], SPECS[:2])
    folder = publish(results, tmp_path / "second", ["first"], [*SPECS[1:], CHILD])
    assert SPECS[1].run_id not in (folder / "runs.csv").read_text()
    assert json.loads((folder / "fields.json").read_text())["uses"] == {"first": [SPECS[1].run_id]}
    ids = [spec.run_id for spec in (*SPECS[1:], CHILD)]
    assert_same(load_frames(results, ids), load_frames(folder))
    assert_same(load_frames(results, ids[:1]), load_frames(folder, ids[:1]))
    only = publish(results, tmp_path / "third", ["first"], SPECS[:1])
    assert_same(load_frames(results, [SPECS[0].run_id]), load_frames(only))
    (tmp_path / "first" / "runs.csv").unlink()
    with pytest.raises(StoreError, match=r"first/runs\.csv"):
        load_frames(folder)


def test_a_run_with_other_outcomes_there_is_stored_again(results: Path, tmp_path: Path) -> None:
    first = publish(results, tmp_path / "first", [], SPECS[:2])
    (first / "runs.csv").write_text((first / "runs.csv").read_text().replace("66.66666666666667", "66.6"))
    folder = publish(results, tmp_path / "second", ["first", "absent"], SPECS[1:])
    assert_same(load_frames(results, [spec.run_id for spec in SPECS[1:]]), load_frames(folder))


def test_tables_do_not_hide_live_runs(results: Path) -> None:
    with pytest.raises(SpecError, match="holds runs"):
        export_tables([read_run(path) for path in find_runs(results)], results)
    assert len(load_runs(results)[0]) == 6


def test_a_table_is_written_in_the_same_bytes_and_old_ones_go(results: Path, tmp_path: Path) -> None:
    first = publish(results, tmp_path / "first", [], SPECS)
    contents = {file: file.read_bytes() for file in first.rglob("*.*")}
    (first / "measurements" / "old.csv.gz").write_bytes(b"")
    frames = load_frames(first, measurements=["gains"])
    write_frames(frames, load_environments(first), first)
    assert {file: file.read_bytes() for file in first.rglob("*.*")} == contents


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-30])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)


def edit_field(file: Path) -> None:
    file.write_text(file.read_text().replace(",14,", ",20,"))


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("runs.csv", cut),
        ("runs.csv", flip),
        ("runs.csv", edit_field),
        ("runs.csv", Path.unlink),
        ("fields.json", cut),
        ("curves.csv.gz", cut),
        ("curves.csv.gz", flip),
        ("curves.csv.gz", Path.unlink),
        ("measurements/gains.csv.gz", cut),
        ("measurements/gains.csv.gz", flip),
    ],
)
def test_a_damaged_table_is_named(results: Path, tmp_path: Path, name: str, harm: Callable[[Path], None]) -> None:
    folder = publish(results, tmp_path / "published", [], SPECS)
    harm(folder / name)
    with pytest.raises(StoreError) as caught:
        load_frames(folder)
    assert str(folder / name) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("harm", [cut, lambda file: file.write_text("step\nx\n"), lambda file: file.write_bytes(b"")])
@pytest.mark.parametrize("name", ["metrics.csv", "result.json", "spec.json"])
def test_a_damaged_live_run_is_named_and_the_others_are_read(
    results: Path, tmp_path: Path, name: str, harm: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    before = load_frames(results)
    file = results / "runs" / CHILD.run_id / name
    harm(file)
    runs, curves = load_runs(results)
    assert str(file) in caplog.text
    assert runs.set_index("run_id")["status"][CHILD.run_id] == "damaged"
    assert runs.set_index("run_id").loc[CHILD.run_id, list(OUTCOMES)].isna().all()
    assert CHILD.run_id not in set(curves["run_id"])
    after = load_frames(results)
    for key, frame in before.items():
        ours, theirs = (table[table["run_id"] != CHILD.run_id].reset_index(drop=True) for table in (after[key], frame))
        assert_frame_equal(ours, theirs, check_exact=True, check_dtype=False, obj=key)
    if name != "spec.json":  # without it the run is left out of the tables
        with pytest.raises(StoreError, match=f"{CHILD.run_id}: damaged"):
            write_frames(after, load_environments(results), tmp_path / "published")


ROOT = Path(resx.__file__).parent.parent
PUBLISHED = sorted(file.parent for file in (ROOT / "results").glob("*/fields.json"))


def contents(folder: Path) -> dict[str, bytes]:
    """Return the tables of a published experiment; unpacked, since other versions of zlib pack otherwise."""
    files = [folder / "runs.csv", folder / "fields.json", *sorted(folder.glob("curves.*"))]
    files += sorted((folder / "measurements").glob("*"))
    return {
        file.name: gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes() for file in files
    }


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda folder: folder.name)
def test_what_is_published_is_written_again_from_its_tables(folder: Path, tmp_path: Path) -> None:
    frames = load_frames(folder)
    assert frames["runs"]["status"].isin(["finished", "diverged"]).all()
    trained = frames["runs"][(frames["runs"]["steps"] > 1) & frames["runs"]["foreign"].isna()]
    assert set(frames["curves"]["run_id"]) == set(trained["run_id"])
    assert all(set(frame["run_id"]) <= set(frames["runs"]["run_id"]) for frame in frames.values())
    made = load_environments(folder)
    assert made[["command", "commit", "torch", "hardware"]].notna().all(axis=None)
    uses = load_toml(ROOT / "experiments" / f"{folder.name}.toml").uses
    for name in uses:
        (tmp_path / name).symlink_to(folder.parent / name)
    write_frames(frames, made, tmp_path / folder.name, uses=uses)
    assert contents(tmp_path / folder.name) == contents(folder)


def test_no_run_is_published_twice_and_the_whole_is_small() -> None:
    assert PUBLISHED
    columns = ["run_id", *OUTCOMES]  # a run that was made again on another CPU has other digits
    runs = pd.concat([pd.read_csv(folder / "runs.csv").reindex(columns=columns) for folder in PUBLISHED])
    assert not runs.duplicated().any()
    files = [file for folder in (*PUBLISHED, ROOT / "results" / "bench") for file in folder.rglob("*.*")]
    assert len(files) < 300
    assert sum(file.stat().st_size for file in files) < 12 * 10**6
