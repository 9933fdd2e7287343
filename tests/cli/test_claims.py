"""The ledger and the page from outside: exit codes, one line per mistake, a JSON document that keeps its form."""

from __future__ import annotations

import gzip
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
    assert "24 runs, 37 core-minutes on AMD" in out
    assert "does not show:" in out and "One recipe for all depths" in out


def test_a_statement_in_full_says_what_would_make_it_stronger(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = results.parent / "experiments"
    folder.mkdir()
    for name, preset in (("more", "small"), ("toy", "digits")):
        cost = f"# resx run {name}.toml\n# Not run yet: a seed takes about five core-hours. Six are needed.\n"
        (folder / f"{name}.toml").write_text(f'{cost}probe = "degradation"\n[run]\npreset = "{preset}"\n')
    assert run(["claims", "4", "--results", str(results)]) == 0
    out = " ".join(capsys.readouterr().out.partition("stronger here:")[2].split())
    assert "resx run experiments/more.toml: Not run yet: a seed takes about five core-hours" in out
    assert "toy" not in out  # toy experiments do not strengthen what is judged at a greater scale


def test_the_runs_of_another_experiment_count_among_the_costs(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(RESULTS / "responses-cifar", results / "responses-cifar")
    assert run(["claims", "3", "--json", "--results", str(results)]) == 0
    [entry] = json.loads(capsys.readouterr().out)["statements"]
    made = entry["evidence"][0]["experiment"]
    assert made["name"] == "responses-cifar" and made["runs"] == 24 and made["seconds"] > 1000


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


@pytest.mark.parametrize("harm", ["half a folder", "a damaged table", "renamed columns", "renamed claims"])
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
        old, new = ("criterion", "rule") if harm == "renamed columns" else (":plain-degrades", ":plain-is-worse")
        text = (broken / "verdicts.csv").read_text().replace(old, new, 1)
        (broken / "verdicts.csv").write_text(text)
    assert run(["claims", "--results", str(results)]) == 0
    said = capsys.readouterr()
    assert [line for line in said.err.splitlines() if "not available" in line and "broken" in line]
    assert "Traceback" not in said.err and "cifar-small" in said.out


@pytest.mark.parametrize("words", [["claims"], ["report"]])
def test_an_experiment_without_the_runs_that_it_uses_is_a_line(
    results: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(RESULTS / "responses-digits", results / "responses-digits")
    assert run([*words, "--results", str(results)]) == 0
    [line] = [one for one in capsys.readouterr().err.splitlines() if "not available" in one]
    assert "responses-digits" in line and f"needs {results / 'digits-depths'} next to it" in line


def test_results_of_another_version_are_a_line(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("responses-digits", "digits-depths"):
        shutil.copytree(RESULTS / name, results / name)
    file = results / "responses-digits" / "measurements" / "responses.csv.gz"
    text = gzip.decompress(file.read_bytes()).decode()
    file.write_bytes(gzip.compress(text.replace("layer", "place", 1).encode()))
    assert run(["report", "--results", str(results)]) == 0
    [line] = [one for one in capsys.readouterr().err.splitlines() if "not available" in one]
    assert "responses-digits: has no" in line and "this version" in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["claims", "9"], "no statement '9'"),
        (["report", "nothing-of-this-name"], "no experiment"),
        (["report", "cifar-small", "-o", "mine.txt"], "--force"),
        (["report", "--check", "mine.txt"], "mine.txt"),
        (["report", "cifar-small", "-o", "mine.txt/page.html"], "cannot be written"),
        (["report", "cifar-small", "-o", "results"], "is a folder"),
        (["plot", "degradation", "--out", "mine.txt/figure.png"], "cannot be written"),
        (["compare", "--report", "mine.txt"], "no page of"),
        (["probe", "responses", "--report", "mine.txt"], "no page of"),
        (["run", "digits.toml", "--report", "mine.txt/page.html"], "cannot be written"),
        (["compare", "--publish", "mine.txt"], "cannot be written"),
    ],
)
def test_a_mistake_is_one_line(results: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.txt").write_text("my thesis")
    Path("digits.toml").write_text('probe = "degradation"\n')
    assert run(words) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert said in line
    assert Path("mine.txt").read_text() == "my thesis"
    assert not (results / "runs").exists()  # said before anything is trained


def test_an_experiment_writes_its_page_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = "--dataset synthetic:classes=3,size=8,train=96,test=48 --preset digits --width 4 --batch-size 16 --jobs 1"
    words = ["compare", *tiny.split(), "--depths", "8,14", "--steps", "4", "--seeds", "1", "-q", "--report", "own.html"]
    assert run([*words, "--results", str(tmp_path)]) == 0
    assert run(["report", "--check", "own.html"]) == 0


@pytest.mark.parametrize(
    ("commands", "libraries"),
    [
        (
            [["claims"], ["claims", "4"], ["claims", "--json"]],
            {"torch", "numpy._core", "pandas.core", "scipy.special", "matplotlib"},  # parts that are loaded in earnest
        ),
        (
            [["report", "cifar-small"], ["plot"], ["plot", "degradation", "-q", "--results", "results/cifar-small"]],
            {"torch"},
        ),
    ],
    ids=["claims", "pages and figures"],
)
def test_large_libraries_are_not_waited_for(results: Path, commands: list[list[str]], libraries: set[str]) -> None:
    program = (
        f"import sys; from resx.cli import run\nfor words in {commands!r}:\n"
        f"    assert run(words) == 0, words\n    assert not {libraries!r} & set(sys.modules), words"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
