"""The check of a page: every verdict, estimate, interval and p is computed again from the tables inside it."""

from __future__ import annotations

from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

from resx.ledger import Evidence, Experiment, entries, from_findings
from resx.report.data import unpack
from resx.report.numbers import of_entries, of_findings
from resx.spec import SpecError


@dataclass(frozen=True)
class Check:
    """How many of a page's numbers agree with its tables, and a line for each that does not."""

    agree: int
    total: int
    wrong: tuple[str, ...]


def check(path: Path) -> Check:
    """Compare what a page shows with what its tables give. Raises SpecError where it is no page of resx."""
    try:
        reader = _Reader()
        reader.feed(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read ({error})") from error
    if not reader.data or not reader.shown:
        raise SpecError(f"{path}: not a page of `resx report`, or cut short")
    expected: dict[str, str] = {}
    evidence: list[Evidence] = []
    for place, (name, findings) in enumerate(unpack("".join(reader.data)).items()):
        expected |= of_findings(str(place), findings)
        evidence += from_findings(Experiment(name, path, "", 0, 0.0, "", False), findings)
    if any(key.startswith("statement|") for key, _ in reader.shown):
        expected |= of_entries(entries(evidence))
    wrong = []
    for key, text in reader.shown:
        if key not in expected:
            wrong.append(f"{key}: shows '{text}', which no table gives")
        elif " ".join(expected[key].split()) != " ".join(text.split()):
            wrong.append(f"{key}: shows '{text}', the tables give '{expected[key]}'")
    shown = {key for key, _ in reader.shown}
    wrong += [f"{key}: is missing, the tables give '{text}'" for key, text in expected.items() if key not in shown]
    total = len(reader.shown) + sum(key not in shown for key in expected)
    return Check(total - len(wrong), total, tuple(wrong))


class _Reader(HTMLParser):
    """Collects the texts of elements with data-key, of cells by table, row and column, and the packed tables."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.shown: list[tuple[str, str]] = []
        self.data: list[str] = []
        self.open: list[tuple[str, str]] = []  # tag and key of elements with a key
        self.cells = ""  # what the keys of a table's cells begin with
        self.row = self.column = -1
        self.in_data = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note where a keyed element or the tables begin."""
        values = dict(attrs)
        if tag in ("td", "tr") and self.open and self.open[-1][0] == "td":  # a cell may be left unclosed
            self.open.pop()
        if tag == "table":
            self.cells = values.get("data-cells") or ""
        elif tag == "tbody":
            self.row = -1  # not that of the headings
        elif tag == "tr":
            self.row, self.column = self.row + 1, -1
        elif tag == "td":
            self.column += 1
        key = values.get("data-key") or (tag == "td" and self.cells and f"{self.cells}|{self.row}|{self.column}")
        if key:
            self.open.append((tag, key))
            self.shown.append((key, ""))
        self.in_data = values.get("id") == "resx-tables"

    def handle_endtag(self, tag: str) -> None:
        """Note where an element ends."""
        if self.open and (self.open[-1][0] == tag or (self.open[-1][0] == "td" and tag in ("tr", "tbody"))):
            self.open.pop()
        self.in_data = False

    def handle_data(self, data: str) -> None:
        """Take the text of the innermost keyed element, or of the tables."""
        if self.in_data:
            self.data.append(data)
        elif self.open:
            key, text = self.shown[-1]
            self.shown[-1] = (key, text + data)
