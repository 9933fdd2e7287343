"""`resx list` and `resx plot` without a name: what there is, by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from resx.cli import run

KNOWN = {
    "shortcuts": "identity",
    "adapters": "subsample",
    "presets": "digits",
    "figures": "depth",
    "probes": "degradation",
    "datasets": "cifar10",
}


@pytest.mark.parametrize("kind", KNOWN)
def test_every_name_has_a_line(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list", kind, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert KNOWN[kind] in {row["name"] for row in rows}
    assert all(row["summary"] for row in rows)
    assert kind == "presets" or [row for row in rows if not row["summary"].endswith((".", "?"))] == [], "cut off"


def test_arguments_stand_with_their_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    run(["list", "shortcuts", "--json"])
    arguments = {row["name"]: row["arguments"] for row in json.loads(capsys.readouterr().out)}
    assert arguments["scaled"] == "alpha=0.5"


def test_plot_without_a_name_lists_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plot", "--results", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "degradation" in out and "no runs" in out


def test_an_ending_that_is_not_written_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published = Path(__file__).parents[2] / "results" / "digits-depths"
    assert run(["plot", "curves", "--results", str(published), "--out", str(tmp_path / "a.jpg")]) == 2
    assert capsys.readouterr().err.strip() == "resx: --out: no '.jpg' is written; end it with .pdf, .svg, .png"
    assert run(["plot", "depth", "--results", str(published), "--no-title", "--out", str(tmp_path / "a.png")]) == 0
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
