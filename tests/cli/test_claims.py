"""The ledger and the page from outside: exit codes, one line per mistake, a JSON document that keeps its form."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from resx.cli import run
from resx.ledger import STATEMENTS

RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a results folder with one published experiment."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(RESULTS / "cifar-small", tmp_path / "results" / "cifar-small")
    return tmp_path / "results"


def test_every_statement_has_a_line(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["claims", "--results", str(results)]) == 0
    out = capsys.readouterr().out
    assert all(f" {one.number} " in out for one in STATEMENTS)
    assert "cifar-small" in out and "nothing recorded" in out


def test_a_statement_in_full_says_how_to_repeat_it(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["claims", "4", "--results", str(results)]) == 0
    out = capsys.readouterr().out
    assert "criterion:" in out and "resx run experiments/cifar-small.toml" in out and "published" in out


def test_the_json_document_keeps_its_form(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["claims", "--json", "--results", str(results)]) == 0
    statements = json.loads(capsys.readouterr().out)["statements"]
    assert [one["number"] for one in statements] == [one.number for one in STATEMENTS]
    keys = {"number", "text", "verdict", "scale", "fact", "disagrees", "missing", "evidence"}
    assert all(set(one) == keys for one in statements)
    [fourth] = [one for one in statements if one["number"] == "4"]
    evidence = fourth["evidence"][0]
    assert set(evidence) == {"claim", "part", "says", "criterion", "verdict", "scale", "effects", "experiment"}
    assert set(evidence["effects"][0]) >= {"name", "mean", "low", "high", "n", "p"}
    assert set(evidence["experiment"]) == {"name", "command", "runs", "seconds", "hardware", "own"}


def test_without_results_every_statement_is_not_available(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["claims", "--json", "--results", str(tmp_path)]) == 0
    statements = json.loads(capsys.readouterr().out)["statements"]
    assert {one["verdict"] for one in statements} == {"not available", "counted", "cited"}


@pytest.mark.parametrize("harm", ["half a folder", "a damaged table", "renamed columns"])
def test_what_cannot_be_read_is_a_line_and_the_rest_is_shown(
    results: Path, harm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = results / "broken"
    shutil.copytree(results / "cifar-small", broken)
    if harm == "half a folder":
        (broken / "runs.csv").unlink()
    elif harm == "a damaged table":
        (broken / "verdicts.csv").write_bytes(b"\x00\xff")
    else:
        text = (broken / "verdicts.csv").read_text().replace("criterion", "rule", 1)
        (broken / "verdicts.csv").write_text(text)
    assert run(["claims", "--results", str(results)]) == 0
    said = capsys.readouterr()
    assert [line for line in said.err.splitlines() if "not available" in line and "broken" in line]
    assert "Traceback" not in said.err and "cifar-small" in said.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["claims", "9"], "no statement '9'"),
        (["report", "nothing-of-this-name"], "no experiment"),
        (["report", "cifar-small", "-o", "mine.txt"], "--force"),
        (["report", "--check", "mine.txt"], "mine.txt"),
    ],
)
def test_a_mistake_is_one_line(results: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.txt").write_text("my thesis")
    assert run(words) == 2
    assert said in capsys.readouterr().err
    assert Path("mine.txt").read_text() == "my thesis"


def test_a_page_that_cannot_be_written_is_one_line(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.txt").write_text("my thesis")
    assert run(["report", "cifar-small", "-o", "mine.txt/page.html"]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_an_experiment_writes_its_page_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = "--dataset synthetic:classes=3,size=8,train=96,test=48 --preset digits --width 4 --batch-size 16 --jobs 1"
    words = ["compare", *tiny.split(), "--depths", "8,14", "--steps", "4", "--seeds", "1", "-q", "--report", "own.html"]
    assert run([*words, "--results", str(tmp_path)]) == 0
    assert run(["report", "--check", "own.html"]) == 0


@pytest.mark.parametrize("words", [["claims"], ["report", "cifar-small"]])
def test_torch_is_not_imported(results: Path, words: list[str]) -> None:
    program = f"import sys; from resx.cli import run; code = run({words!r}); sys.exit(code or 'torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=120)
