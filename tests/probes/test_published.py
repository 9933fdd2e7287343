"""The published experiments judged again: every verdict of the first edition, and every committed file that follows."""

from __future__ import annotations

import math
import re
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from resx import lab
from resx.probes import Findings
from resx.report.check import check
from resx.report.data import documents, pack

RESULTS = Path(__file__).parents[2] / "results"
PAGE = RESULTS / "report.html"
FIRST_EDITION = pd.read_csv(Path(__file__).with_name("published_verdicts.csv"))
EXPERIMENTS = sorted(file.parent.name for file in RESULTS.glob("*/experiment.toml"))
# What is judged otherwise since: the ensemble claim asks for equivalence, half of the paths is interpolated, gains are
# taken depth by depth, and a fact has no seeds.
CHANGED = (
    "is better than",
    "shorter than the middle",
    "Depth adds paths",
    "Leaving the shortcut out",
    "Gains away from 1",
    "puts out the same",
    "mean of these networks",
)


@cache
def findings(name: str) -> Findings:
    return lab.read(RESULTS / name)


@pytest.mark.parametrize("name", sorted(FIRST_EDITION["experiment"].unique()))
def test_a_verdict_of_the_first_edition_is_still_there(name: str) -> None:
    table = findings(name).verdicts_table()
    missing = []
    for row in FIRST_EDITION[FIRST_EDITION["experiment"] == name].to_dict("records"):
        if any(words in f"{row['hypothesis']} {row['measured']}" for words in CHANGED):
            continue
        same = (table["mean"] - row["mean"]).abs() < 1e-5 * max(1, abs(row["mean"]))
        same |= (table["mean"] + row["mean"]).abs() < 1e-5 * max(1, abs(row["mean"]))
        if pd.notna(row["p"]):
            same &= (table["p"] - row["p"]).abs() < 1e-5
        if not (same & (table["word"] == row["word"])).any():
            missing.append((row["hypothesis"], row["measured"], row["word"], row["mean"], row["p"]))
    assert missing == []


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_what_is_committed_follows_from_the_tables(name: str, tmp_path: Path) -> None:
    folder = RESULTS / name
    for file in ("experiment.toml", "README.md"):
        (tmp_path / file).write_bytes((folder / file).read_bytes())
    files, _ = lab.write(findings(name), tmp_path, folder, publish=True)
    tables = {file.name for file in files if file.suffix == ".csv"}
    assert {file.name for file in folder.glob("*.csv")} == {"runs.csv", *tables}, "nothing writes the others any more"
    for file in files:
        committed = folder / file.relative_to(tmp_path)
        assert file.read_bytes() == committed.read_bytes(), f"{committed}: `make results` writes it again"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_what_is_said_has_no_symbol_left_in_it(name: str) -> None:
    table = findings(name).verdicts_table()
    text = "\n".join([*table["criterion"], *table["says"], *table["effect"], *findings(name).answer])
    assert re.findall(r"\{.*?\}", text) == []


@cache
def tables_of_the_page() -> dict[str, Any]:
    return documents(re.findall(r'id="resx-tables">([^<]*)<', PAGE.read_text(encoding="utf-8"))[0])


def test_the_page_holds_these_experiments() -> None:
    assert sorted(tables_of_the_page()) == EXPERIMENTS, "`make report` writes the page again"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_page_holds_the_tables_that_are_committed(name: str) -> None:
    committed = documents(pack({name: findings(name)}))[name]
    assert _alike(tables_of_the_page().get(name), committed), "`make report` writes the page again"


def _alike(one: Any, other: Any) -> bool:
    """Whether two documents are equal but for the last digits: numpy's log10 is not the same on every processor."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, str) and isinstance(other, str) and "," in one and one != other:  # lines of CSV
        return _alike(re.split("[,\n]", one), re.split("[,\n]", other))
    try:
        return one == other or math.isclose(float(one), float(other), rel_tol=1e-9, abs_tol=1e-12)
    except (TypeError, ValueError):
        return False


def test_the_page_agrees_with_its_tables() -> None:
    assert check(PAGE).wrong == ()


def test_results_stay_small() -> None:
    files = [file for name in [*EXPERIMENTS, "bench"] for file in (RESULTS / name).rglob("*") if file.is_file()]
    assert len(files) < 300
    assert sum(file.stat().st_size for file in files) < 12 * 2**20
