"""The page: complete, self-contained, and checked against the tables inside it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from resx.probes import Findings
from resx.report import build
from resx.report.check import check
from resx.report.data import pack, unpack
from resx.spec import SpecError

RESULTS = Path(__file__).parents[2] / "results"
NAMES = ("digits-depths", "responses-digits")


@pytest.fixture(scope="module")
def content() -> build.Content:
    parts = [build.of_folder(RESULTS / name) for name in NAMES]
    findings = {name: one for part in parts for name, one in part.findings.items()}
    experiments = {name: one for part in parts for name, one in part.experiments.items()}
    evidence = [item for name in NAMES for item in build.ledger.from_findings(experiments[name], findings[name])]
    return build.Content(build.ledger.entries(evidence), experiments, findings)


@pytest.fixture(scope="module")
def page(content: build.Content) -> str:
    return build.html(content, "A page")


def test_the_page_agrees_with_its_tables(page: str, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(page)
    outcome = check(path)
    assert outcome.wrong == ()
    assert outcome.agree == outcome.total > 300


@pytest.mark.parametrize(
    "pattern",
    [
        r'\|mean">([-+]\d\.\d)',
        r'\|p">(0\.\d)',
        r'\|word">(support)',
        r'statement\|1\|word">(\w)',
        r'\|n">(6)<',
        r'data-cells=".*?<tr>(?:<td>[^<]*){4}<td>([1-6])',
    ],
)
def test_an_altered_number_is_found(page: str, tmp_path: Path, pattern: str) -> None:
    match = re.search(pattern, page, re.DOTALL)
    assert match
    path = tmp_path / "page.html"
    path.write_text(f"{page[: match.start(1)]}7{page[match.end(1) :]}")
    outcome = check(path)
    assert len(outcome.wrong) == 1
    assert outcome.agree == outcome.total - 1


def test_a_number_that_was_taken_out_is_found(page: str, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(re.sub(r'<span data-key="0\|answer\|0">.*?</span>', "", page))
    assert any("is missing" in line for line in check(path).wrong)


def test_altered_tables_are_found(content: build.Content, page: str, tmp_path: Path) -> None:
    findings = dict(content.findings)
    one = findings["digits-depths"]
    outcomes = one.tables["outcomes"].copy()
    outcomes["train_error"] += outcomes["depth"] / 100
    findings["digits-depths"] = Findings(one.probe, one.settings, one.frames, {**one.tables, "outcomes": outcomes})
    path = tmp_path / "page.html"
    path.write_text(page.replace(pack(content.findings), pack(findings)))
    assert check(path).wrong


@pytest.mark.parametrize("text", ["", "<html></html>", 'x<script type="text/plain" id="resx-tables">AAAA</script>'])
def test_what_is_no_page_is_a_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(text)
    with pytest.raises(SpecError, match="page"):
        check(path)


def test_tables_come_back_as_they_were(content: build.Content) -> None:
    for name, findings in unpack(pack(content.findings)).items():
        assert findings.answer == content.findings[name].answer
        assert findings.verdicts == content.findings[name].verdicts


def test_the_page_asks_for_nothing_and_links_only_to_itself(page: str) -> None:
    assert "default-src 'none'" in page
    assert re.findall(r'(?:src|href)="(?!#)([^"]*)"', re.sub(r'xlink:href="#', 'href="#', page)) == []
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'<a href="#([^"]+)"', page)) <= set(ids)
    assert set(re.findall(r'(?:xlink:href="#|url\(#)([^")]+)', page)) <= set(ids)
    assert len(page.encode()) < 1_500_000


def test_every_figure_says_what_it_shows(page: str) -> None:
    figures = re.findall(r'<svg role="img" aria-label="([^"]+)"', page)
    assert len(figures) >= len(NAMES)
    assert all(figures)


def test_a_users_text_is_text(content: build.Content) -> None:
    name = "<script>alert(1)</script>"
    changed = build.Content((), {name: content.experiments[NAMES[0]]}, {name: content.findings[NAMES[0]]})
    page = build.html(changed, name)
    assert page.count("<script") == 2
    assert "&lt;script&gt;alert" in page


def test_a_file_that_is_no_page_is_not_overwritten(page: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.html"
    path.write_text("my thesis")
    with pytest.raises(SpecError, match="--force"):
        build.save(page, path, force=False)
    build.save(page, path, force=True)
    build.save(page, path, force=False)
    assert path.read_text() == page


def test_markdown_goes_between_the_marks(content: build.Content, tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text("Before\n<!-- resx claims -->\nold\n<!-- end -->\nAfter\n")
    build.save(build.markdown(content), path, force=False)
    text = path.read_text()
    assert text.startswith("Before\n")
    assert text.endswith("<!-- end -->\nAfter\n")
    assert "old" not in text
    assert "Deeper plain networks" in text
