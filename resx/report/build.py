"""From a results folder to a page: findings judged from their tables, entries of the ledger, figures, text."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, StrictUndefined

from resx import lab, ledger, paper
from resx.claims import at_scale
from resx.figures import FIGURES
from resx.ledger import Entry, Evidence, Experiment
from resx.probes import Findings
from resx.probes.page import formatted, shown_tables
from resx.report.data import pack
from resx.report.numbers import of_entries, of_findings
from resx.report.svg import inline
from resx.spec import SpecError
from resx.stats import MIN_SEEDS
from resx.store.files import StoreError, refuse_unwritable, write_atomic
from resx.store.tables import load_environments

Say = Callable[[str], None]


@dataclass(frozen=True)
class Content:
    """What a page is made of. problems: experiments that could not be read, and why."""

    entries: Sequence[Entry]
    experiments: Mapping[str, Experiment]
    findings: Mapping[str, Findings]
    problems: Sequence[str] = ()


def folders(results: Path) -> list[Path]:
    """Return the folders of experiments: published ones, then one's own."""
    return [
        file.parent for pattern in ("*", "findings/*") for file in sorted(results.glob(f"{pattern}/experiment.toml"))
    ]


def of_results(results: Path, say: Say = lambda line: None) -> Content:
    """Return the ledger and every experiment that it rests on, judged from its tables."""
    experiments, findings, evidence, problems = {}, {}, [], []
    for folder in folders(results):
        say(f"judging {folder.name}")
        try:
            findings[folder.name] = lab.read(folder)
            experiments[folder.name] = ledger.describe(folder, own=folder.parent != results)
            evidence += ledger.from_findings(experiments[folder.name], findings[folder.name])
        except (StoreError, SpecError) as error:
            problems.append(f"{folder.name}: {error}")
    return Content(ledger.entries(evidence), experiments, findings, problems)


def of_folder(folder: Path) -> Content:
    """Return one experiment. Raises StoreError where the folder holds no findings."""
    return Content((), {folder.name: ledger.describe(folder, own=True)}, {folder.name: lab.read(folder)})


_IMPLIED = re.compile(r'</t[dhr]>| rowspan="1"')  # what a browser adds by itself


def html(content: Content, title: str) -> str:
    """Return the page: one file that asks for nothing, works without a network, without JavaScript and on paper."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    folder = files("resx.report")
    template, style, script = ((folder / f"page.{kind}").read_text("utf-8") for kind in ("html", "css", "js"))
    places = {name: str(place) for place, name in enumerate(content.findings)}  # short names of experiments, for keys
    texts = {
        key: text for name, one in content.findings.items() for key, text in of_findings(places[name], one).items()
    }
    texts |= of_entries(content.entries)
    deciding = {item.experiment.name for entry in content.entries for item in _deciding(entry)}
    shown = {
        name: _experiment(places[name], name, content, drawn=name in deciding or not content.entries)
        for name in content.findings
    }
    page = environment.from_string(template).render(
        title=title,
        style=style,
        script=script,
        entries=[_entry(entry, places, content, shown) for entry in content.entries],
        experiments=shown,
        problems=content.problems,
        published=_published() if content.entries else [],
        totals=_totals(content) if content.findings else {},
        min_seeds=MIN_SEEDS,
        text=texts,
        tables=pack(content.findings),
    )
    return _IMPLIED.sub("", page)


def _deciding(entry: Entry) -> list[Evidence]:
    """Return the strongest evidence on each of a statement's claims, in the order of their strength."""
    strongest: dict[str, Evidence] = {}
    for item in entry.evidence:
        strongest.setdefault(item.claim, item)
    return list(strongest.values())


def _entry(
    entry: Entry, places: Mapping[str, str], content: Content, shown: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return what the template shows of a statement: its claims, what they do not show, and the figure that decides.

    The first row of a claim has the claim's key as its anchor.
    """
    deciding = _deciding(entry)
    claims = []
    for item in entry.evidence:
        key = f"{places[item.experiment.name]}|{item.part}|{item.claim}"
        claims.append({"key": key, "item": item, "anchor": item.claim if item in deciding else ""})
    return {
        "entry": entry,
        "key": f"statement|{entry.statement.number}",
        "claims": claims,
        "limits": ledger.limits(entry),
        "figure": _figure(deciding[0], content, shown) if deciding else None,
    }


def _figure(item: Evidence, content: Content, shown: Mapping[str, Mapping[str, Any]]) -> dict[str, str] | None:
    """Return where a page has the figure that a piece of evidence, or its part of a probe, is drawn in: id and box."""
    name = item.experiment.name
    findings = content.findings[name]
    drawings = [own for _, own in findings.drawings().values()]
    source = findings.parts[item.part] if item.part else findings
    place = next((place for place, own in enumerate(drawings) if own is source), 0)
    figures = [figure for _, figure in shown[name]["figures"]]
    match = re.match(r'<svg id="([^"]*)".*? viewBox="([^"]*)"', figures[place]) if figures else None
    return {"experiment": name, "id": match.group(1), "box": match.group(2)} if match else None


def _experiment(place: str, name: str, content: Content, *, drawn: bool) -> dict[str, Any]:
    """Return what the template shows of an experiment; drawn: with its figures, which a page of all has no room for."""
    findings, experiment = content.findings[name], content.experiments[name]
    keys = [(f"{place}|{part}|{verdict.key}", part, verdict) for part, verdict in findings.judged()]
    says = {verdict.key: verdict.says for _, _, verdict in keys}
    figures = [
        (figure, inline(FIGURES[kind](own), f"f{place}{chr(97 + count)}", next(iter(says.values()), figure)))
        for count, (figure, (kind, own)) in enumerate(findings.drawings().items())
        if drawn
    ]
    commits = {str(value) for value in load_environments(experiment.folder).get("commit", []) if value}
    return {
        "name": name,
        "made": experiment,
        "scale": at_scale(findings.scale),
        "verdicts": keys,
        "place": place,
        "notes": [(f"{place}|answer|{number}", line) for number, line in enumerate(findings.notes())],
        "figures": figures,
        "tables": [(title, *formatted(table)) for title, table in shown_tables(findings).items()],
        "commits": ", ".join(sorted(commits)),
        "seeds": "" if findings.frames["runs"]["foreign"].notna().all() else _ranges(findings.frames["runs"]["seed"]),
    }


def _ranges(seeds: Iterable[int]) -> str:
    """Return numbers in order, those that follow each other as one: '0–5, 1001–1009'."""
    ranges: list[list[int]] = []
    for seed in sorted({int(seed) for seed in seeds}):
        if ranges and seed == ranges[-1][1] + 1:
            ranges[-1][1] = seed
        else:
            ranges.append([seed, seed])
    return ", ".join(f"{low}–{high}" if high > low else f"{low}" for low, high in ranges)


def _totals(content: Content) -> dict[str, str]:
    """Return how much all experiments took together, each run counted once."""
    runs = pd.concat([one.frames["runs"] for one in content.findings.values()]).drop_duplicates("run_id")
    machines = sorted({made.hardware for made in content.experiments.values() if made.hardware})
    return {
        "experiments": f"{len(content.findings)}",
        "runs": f"{len(runs):,}",
        "hours": f"{runs['seconds'].sum() / 3600:.0f}",
        "machines": "; ".join(machines),
    }


def _published() -> list[tuple[str, list[str], list[list[str]]]]:
    """Return the papers' tables."""
    rows = [_row(f"{kind}-{depth}", one) for (kind, depth), one in paper.CIFAR_TEST_ERROR.items()]
    rows += [
        _row("residual-110, mean", paper.RESNET_110_MEAN, f"{paper.RESNET_110_MEAN.runs} runs"),
        _row("plain-110", paper.PLAIN_110_TEST_ERROR),
        _row("residual-1202, training error", paper.RESNET_1202_TRAINING_ERROR),
    ]
    rows += [_row(f"{kind}-{depth}", one) for (kind, depth), one in paper.CIFAR_REPLICATIONS.items()]
    low, high = paper.RESNET_56_BAND
    rows.append(["residual-56, where a faithful one should end", f"{low} to {high}", "replications", "M", ""])
    errors = [
        [name, f"{one.top1}", "–" if one.top5 is None else f"{one.top5}", one.source]
        for name, one in (
            *((f"{kind}-{depth}", one) for (kind, depth), one in paper.IMAGENET_DEGRADATION.items()),
            *paper.IMAGENET_10_CROP.items(),
            ("ResNet-152, single model", paper.RESNET_152_SINGLE_MODEL),
        )
    ]
    table_1 = [[name, _number(one), one.note] for name, one in paper.IDENTITY_TABLE_1.items()]
    return [
        ("CIFAR-10: test error (%)", ["network", "error", "source", "mark", "note"], rows),
        ("ImageNet: validation error (%), 10-crop", ["network", "top-1", "top-5", "source"], errors),
        ("Identity Mappings, table 1: ResNet-110 on CIFAR-10", ["shortcut", "error (%)", "note"], table_1),
    ]


def _row(name: str, one: paper.Reported, note: str = "") -> list[str]:
    deviation = "" if one.std is None else f" ± {one.std}"
    return [name, _number(one) + deviation, one.source + ", read off" * one.read_off, one.mark, one.note or note]


def _number(one: paper.Reported) -> str:
    return "–" if math.isnan(one.value) else f"{one.value:g}"


def markdown(content: Content) -> str:
    """Return the ledger as a Markdown table."""
    lines = ["| | statement | verdict | scale | effect | experiments |", "|---|---|---|---|---|---|"]
    for entry in content.entries:
        links = ", ".join(f"[{name}](results/{name})" for name in entry.experiments) or "–"
        lines.append(f"| {' | '.join([*entry.row, entry.effect, links])} |")
    return "\n".join(lines) + "\n"


MARKS = ("<!-- resx claims -->", "<!-- end -->")  # in a README: what stands between them is the program's
OURS = '<meta name="generator" content="resx report">'


def refuse(path: Path, *, force: bool = False, marks: bool = False) -> None:
    """Raise SpecError where no page may be written: for a check before anything is trained or drawn.

    A page of ours is overwritten; with marks, so is a Markdown file that has them; anything else where force is given.
    """
    refuse_unwritable(path)
    if path.is_dir():
        raise SpecError(f"{path}: is a folder; name a file")
    old = _old(path)
    if old and OURS not in old and not (marks and MARKS[0] in old) and not force:
        raise SpecError(f"{path}: is there and is no page of `resx report`; choose another name, or add --force")


def save(text: str, path: Path, *, force: bool = False) -> None:
    """Write a page, or the ledger between the marks of a Markdown file that has them.

    Raises SpecError as `refuse` does, and StoreError where the disk is full.
    """
    marks = not text.startswith("<!doctype")
    refuse(path, force=force, marks=marks)
    (begin, end), old = MARKS, _old(path)
    if marks and begin in old:
        before, _, rest = old.partition(begin)
        text = f"{before}{begin}\n\n{text}\n{end}{rest.partition(end)[2]}"
    write_atomic(path, text)


def _old(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
