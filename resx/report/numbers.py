"""What a page says of an experiment, as text by key: written on the page, and recomputed when a page is checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from resx.ledger import Entry
from resx.probes import Findings
from resx.probes.page import formatted, shown_tables


def of_findings(experiment: str, findings: Findings) -> dict[str, str]:
    """Return every text that follows from an experiment's tables: verdicts, effects, sentences, cells of tables."""
    texts: dict[str, str] = {}
    for part, verdict in findings.judged():
        key = f"{experiment}|{part}|{verdict.key}"
        texts |= {f"{key}|word": verdict.word, f"{key}|scale": verdict.scale, f"{key}|says": verdict.says}
        texts[f"{key}|criterion"] = verdict.criterion
        for place, one in enumerate(verdict.estimates):
            p = "–" if one.p is None else f"{one.p:.3f}"
            cells = {"name": one.name, "mean": one.middle, "interval": one.interval, "n": str(one.n), "p": p}
            texts |= {f"{key}|{place}|{name}": text for name, text in cells.items()}
    texts |= {f"{experiment}|answer|{place}": line for place, line in enumerate(findings.notes())}
    for name, table in shown_tables(findings).items():
        _, rows = formatted(table)
        texts |= {f"{experiment}|{name}|{i}|{j}": cell for i, row in enumerate(rows) for j, cell in enumerate(row)}
    return texts


def of_entries(entries: Sequence[Entry]) -> dict[str, str]:
    """Return statements' words and scales as they are shown, and how many have each word."""
    texts: dict[str, str] = {}
    for entry in entries:
        key = f"statement|{entry.statement.number}"
        texts |= {f"{key}|word": entry.word, f"{key}|scale": "–" if entry.statement.fact else entry.scale}
    words = Counter(entry.word for entry in entries)
    return texts | ({"words": ", ".join(f"{count} {word}" for word, count in words.most_common())} if entries else {})
