"""The way in: a probe trains, measures, judges, draws and writes, and its folder gives the same findings again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import resx
from resx import lab
from resx.engines import train_all
from resx.measurements.inputs import Specimen
from resx.probes import Findings, Measure, Probe, Settings
from resx.spec import SpecError, load_toml
from resx.store.run import read_run
from resx.training.machine import make_machine
from resx.training.resolve import resolve

FIELDS = {
    "preset": "digits",
    "dataset": "synthetic:classes=3,size=8,train=96,test=48",
    "width": 4,
    "steps": 4,
    "batch_size": 16,
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lab")


@pytest.fixture(scope="module")
def findings(results: Path) -> Findings:
    machine = make_machine(device="cpu", jobs=1, results=results)
    return resx.run("responses", grid={"depth": [8, 14]}, seeds=2, machine=machine, **FIELDS)


def folder_of(results: Path) -> Path:
    [folder] = (results / "findings").iterdir()
    return folder


def test_findings_come_back_equal_from_their_folder(results: Path, findings: Findings) -> None:
    again = lab.read(folder_of(results))
    assert again.settings == findings.settings
    assert again.verdicts == findings.verdicts
    assert again.answer == findings.answer
    pd.testing.assert_frame_equal(again.effects, findings.effects)
    assert again.tables.keys() == findings.tables.keys()
    for name, table in again.tables.items():
        pd.testing.assert_frame_equal(table, findings.tables[name])


def test_a_figure_is_drawn_from_the_folder_byte_for_byte(results: Path, findings: Findings, tmp_path: Path) -> None:
    folder = folder_of(results)
    for file in lab.draw(lab.read(folder), tmp_path)[0]:
        assert file.read_bytes() == (folder / "figures" / file.name).read_bytes(), file.name


def test_a_figure_that_fails_leaves_everything_else(
    results: Path, findings: Findings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(findings: Findings) -> None:
        raise ZeroDivisionError("no\nwidth")

    monkeypatch.setitem(lab.FIGURES._entries, "responses", fail)
    files, errors = lab.write(findings, tmp_path, folder_of(results))
    assert errors == ["figure responses could not be drawn: ZeroDivisionError: no width"]
    assert {"verdicts.csv", "README.md"} <= {file.name for file in files if file.exists()}


def test_the_page_is_written_by_the_program_and_keeps_what_a_person_wrote(results: Path, findings: Findings) -> None:
    folder = folder_of(results)
    path, text = folder / "README.md", (folder / "README.md").read_text()
    assert all(verdict.says in text for verdict in findings.verdicts)
    try:
        path.write_text(f"# Mine\n\nWhat I think.\n\n{text.partition(chr(10) * 2)[2]}And after.\n".replace("0.", "9."))
        lab.rewrite(folder)
        kept = path.read_text()
        assert kept.startswith("# Mine\n\nWhat I think.\n\n")
        assert kept.endswith("And after.\n")
        assert text.partition(chr(10) * 2)[2] in kept
    finally:
        path.write_text(text)


def test_the_folder_says_how_to_make_it_again(results: Path, findings: Findings) -> None:
    written = load_toml(folder_of(results) / "experiment.toml")
    assert written.probe == "responses"
    assert written.run == FIELDS
    assert written.grids == [{"depth": [8, 14], "seed": [0, 1]}] or written.grids == [
        {"seed": [0, 1], "depth": [8, 14]}
    ]
    machine = make_machine(device="cpu", jobs=1, results=results)
    again = lab.plan("responses", written, fields={}, machine=machine)
    assert {spec.run_id for spec in again.specs} == set(findings.frames["runs"]["run_id"])


def test_a_second_run_trains_and_measures_nothing(results: Path, findings: Findings) -> None:
    before = {file: file.stat().st_mtime_ns for file in results.glob("runs/*/*.json")}
    machine = make_machine(device="cpu", jobs=1, results=results)
    lines: list[str] = []
    plan = lab.plan("responses", fields=FIELDS, grid={"depth": [8, 14]}, seeds=[0, 1], machine=machine)
    lab.carry_out(plan, say=lines.append)
    assert lines == []
    assert {file: file.stat().st_mtime_ns for file in results.glob("runs/*/*.json")} == before


def test_findings_show_themselves_in_a_notebook(findings: Findings) -> None:
    page = findings._repr_html_()
    assert "Residual layers respond less" in page
    assert "<script" not in page


def test_an_experiment_of_another_probe_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.toml"
    path.write_text('probe = "degradation"\n[run]\npreset = "digits"\n')
    with pytest.raises(SpecError, match="of the probe 'degradation', not of 'paths'"):
        lab.plan("paths", path, fields={}, machine=make_machine(device="cpu"))


def test_comparisons_of_different_things_go_to_different_folders(tmp_path: Path) -> None:
    machine = make_machine(device="cpu", results=tmp_path)

    def name(**more: object) -> str:
        return lab.plan("degradation", fields={"preset": "digits", **more}, machine=machine).name

    assert name() == "degradation-digits"
    assert len({name(), name(lr=0.05), name(steps=100)}) == 3


def test_a_measurement_that_fails_is_named_and_leaves_the_others_alone(tmp_path: Path) -> None:
    machine = make_machine(device="cpu", jobs=1, results=tmp_path)
    outcomes = train_all(resolve([{**FIELDS, "depth": 8, "seed": seed} for seed in range(3)], machine), machine)

    def measure(specimen: Specimen, settings: Any) -> pd.DataFrame:
        if specimen.run.spec.seed == 1:
            raise ZeroDivisionError("nothing to divide by")
        return pd.DataFrame({"value": [specimen.run.spec.seed]})

    probe = Probe(plan=lambda request: [], measures={"mine": Measure(measure)})
    lines: list[str] = []
    measured = lab._measure(probe, outcomes, Settings(), machine, lines.append)
    assert [one.error for one in measured] == [
        None,
        f"mine: {outcomes[1].spec.run_id}: failed: ZeroDivisionError: nothing to divide by",
        None,
    ]
    tables = [read_run(tmp_path / "runs" / one.spec.run_id).load_probe("mine") for one in outcomes]
    assert [table is not None for table in tables] == [True, False, True]
