"""Probes: questions asked of runs. Which runs, which measurements, which claims, and what the answer does not show.

A probe is one file of this folder that defines `PROBE`; its name is the file's, its help the file's docstring with its
claims, and `resx probe NAME` runs it. This file is the contract: what a probe is made of, the request that it answers,
and the findings that it returns. It and the probes' files import no torch, so `--help` and drawing do not wait for it.
"""

from __future__ import annotations

import ast
import html
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from pydantic import ValidationError
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from resx import claims, paper
from resx.claims import Claim, Combination, Contrast, Verdict
from resx.spec import MAX_RUNS, Foreign, Frozen, RunSpec, SpecError, TrainSpec, did_you_mean, without

if TYPE_CHECKING:
    from resx.measurements.inputs import Specimen

Frames = Mapping[str, "pd.DataFrame"]  # runs, curves, and a table per measurement, each with run_id
Tables = Mapping[str, "pd.DataFrame"]  # a probe's own tidy tables, by name


class _Measured(dict[str, "pd.DataFrame"]):
    """Frames in which a table that was not measured is an error with the command that measures it."""

    def __init__(self, frames: Frames, probe: str) -> None:
        super().__init__(frames)
        self.probe = probe

    def __missing__(self, name: str) -> pd.DataFrame:
        raise SpecError(f"{self.probe}: '{name}' is not measured on these runs; `resx probe {self.probe}` measures it")


CLAIM_COLUMNS = ("claim", "verdict", "mean", "95 % interval", "seeds", "p (family)")
# the look of tables in a terminal
TABLE: dict[str, Any] = {"title_justify": "left", "title_style": "bold", "header_style": "bold", "box": SIMPLE_HEAD}

MeasureFunction = Callable[["Specimen", Any], "pd.DataFrame"]


class Settings(Frozen):
    """A probe's settings: a field each, with its default."""


@dataclass(frozen=True)
class Request:
    """What a probe is asked for.

    base: flat fields of every run, preset included. grids: each a grid over the probe's own, the runs of all of them
    are wanted. settings: an instance of the probe's Settings. resolve: flat fields -> complete specs.
    """

    base: Mapping[str, Any]
    seeds: Sequence[int]
    settings: Any
    resolve: Callable[[Sequence[Mapping[str, Any]]], list[RunSpec]]
    grids: Sequence[Mapping[str, Sequence[Any]]] = ({},)

    @property
    def grid(self) -> Mapping[str, Sequence[Any]]:
        """The one grid of a probe that takes no union of several. Raises SpecError where there are several."""
        if len(self.grids) > 1:
            raise SpecError("[[grid]]: this probe takes one [grid], not several")
        return self.grids[0]

    def runs(self, **own: Sequence[Any]) -> list[RunSpec]:
        """Return the specs of a grid over the seeds; what was asked for as grid or as field goes before `own`."""
        cells = []
        for grid in self.grids:
            defaults = {key: list(values) for key, values in own.items() if key not in self.base}
            given = {key: list(values) for key, values in grid.items()}
            fields = {**defaults, "seed": list(self.seeds), **given}
            if math.prod(map(len, fields.values())) > MAX_RUNS:
                raise SpecError(f"more than {MAX_RUNS:,} runs in one command; make the grid smaller")
            cells += [{**self.base, **dict(zip(fields, values, strict=True))} for values in product(*fields.values())]
        return self.resolve(cells)


# fields of networks on images, which a probe of other networks chooses by itself
OF_IMAGES = (
    *("adapter", "widths", "stride_in", "padding", "activation", "init", "active_blocks"),
    *("image_size", "label", "reference"),
)


@dataclass(frozen=True)
class Measure:
    """A measurement of one run, recorded with it.

    function(specimen, settings) returns a tidy table. refuses(spec) says in a few words why a run cannot
    serve it, or returns None. keys: the settings that change what is measured; a recorded table that was measured with
    others is measured again. diverged: a diverged run is measured too, on the weights that it kept before. wants(spec,
    settings): which of the probe's runs it is meant for; the others are passed over without a word.
    """

    function: MeasureFunction
    refuses: Callable[[RunSpec], str | None] = lambda spec: None
    keys: Sequence[str] = ()
    diverged: bool = False
    wants: Callable[[RunSpec, Any], bool] = lambda spec, settings: True


@dataclass(frozen=True)
class Part:
    """A probe within another one: its settings, and which frames are its own."""

    probe: str
    settings: Callable[[Any], Any]
    frames: Callable[[Frames], Frames] = lambda frames: frames


@dataclass(frozen=True)
class Probe:
    """A question, as data and pure functions.

    plan: the runs it needs. tables(frames, settings): tidy tables by name; those with a `seed` column hold, a row a
    cell and seed, what contrasts are made of. shown: the tables that are printed and put on a page. labels: words for
    quantities. extras: contrasts by family that no claim names, judged with those of the claims. symbols(tables,
    settings): values of {name} in claims, besides {deep}, {shallow} and the settings. comment(findings): what only this
    probe can say. limits: what it does not show. figures: names in resx.figures.FIGURES. parts: probes
    that a combined claim rests on, by the name under which it refers to their claims. drawn: tables that only figures
    read. adopts: whether it can be asked of networks that others trained, instead of those that it plans. chooses:
    fields that it chooses by itself, so that asking for them is refused and its help does not offer them.
    """

    plan: Callable[[Request], list[RunSpec]]
    tables: Callable[[Frames, Any], dict[str, pd.DataFrame]] = lambda frames, settings: {}
    claims: Sequence[Claim | Combination] = ()
    settings: type[Frozen] = Settings
    figures: Sequence[str] = ()
    shown: Sequence[str] = ()
    measures: Mapping[str, Measure] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    extras: Callable[[Tables, Any], Mapping[str, Sequence[Contrast]]] = lambda tables, settings: {}
    symbols: Callable[[Tables, Any], Mapping[str, Any]] = lambda tables, settings: {}
    comment: Callable[[Findings], Sequence[str]] = lambda findings: ()
    limits: str = ""
    seeds: int = 2
    parts: Mapping[str, Part] = field(default_factory=dict)
    drawn: Sequence[str] = ()
    adopts: bool = False
    chooses: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Refuse, when the package is imported, a combined claim that rests on a claim which does not exist."""
        for claim in self.claims:
            for part in claim.parts if isinstance(claim, Combination) else ():
                name, _, key = part.partition(":")
                check_key(f"{self.parts[name].probe}:{key}")


@dataclass(frozen=True)
class Findings:
    """All that a probe returns. Everything printed, drawn or written is a view of it.

    frames: what it was judged from. tables: the probe's own. effects: a row per effect. verdicts: with keys
    `probe:key`. answer: sentences, the conclusion first. parts: the findings of the probes within this one.
    """

    probe: str
    settings: Frozen
    frames: Frames
    tables: Tables = field(default_factory=dict)
    effects: pd.DataFrame = field(default_factory=lambda: pd.DataFrame())
    verdicts: Sequence[Verdict] = ()
    answer: Sequence[str] = ()
    scale: str = ""
    parts: Mapping[str, Findings] = field(default_factory=dict)

    def verdict(self, key: str) -> Verdict | None:
        """Return the verdict on a claim by its key within this probe, or None where it was not judged."""
        return next((one for one in self.verdicts if one.key == f"{self.probe}:{key}"), None)

    def judged(self) -> list[tuple[str, Verdict]]:
        """Return (part, verdict) of all verdicts; the part is empty for this probe's own, which come first."""
        return [(part, verdict) for part, one in {"": self, **self.parts}.items() for verdict in one.verdicts]

    def verdicts_table(self) -> pd.DataFrame:
        """Return a row per verdict and effect; `part` names the probe within this one, empty for this one's own."""
        return self._of_parts(lambda one: claims.verdicts_table(one.verdicts))

    def effects_table(self) -> pd.DataFrame:
        """Return a row per effect, with `part` as in `verdicts_table`."""
        return self._of_parts(lambda one: one.effects)

    def evidence_table(self) -> pd.DataFrame:
        """Return `verdicts_table` with the family of each effect, then the effects that no verdict rests on."""
        verdicts, effects = self.verdicts_table(), self.effects_table()
        names = ["part", "effect"]
        others = effects[~effects.set_index(names).index.isin(verdicts.set_index(names).index)]
        return pd.concat([verdicts.merge(effects, how="left"), others], ignore_index=True)

    def _of_parts(self, table_of: Callable[[Findings], pd.DataFrame]) -> pd.DataFrame:
        tables = [table_of(one).assign(part=part) for part, one in {"": self, **self.parts}.items()]
        table = pd.concat([one for one in tables if len(one)] or tables[:1], ignore_index=True)
        return table[["part", *table.columns.drop("part")]]

    def __str__(self) -> str:
        return "\n".join(self.answer)

    def __rich__(self) -> Table:
        """Return the verdicts as a table for a terminal."""
        table = Table(title=f"claims, {claims.at_scale(self.scale)}, effects paired by seed", **TABLE)
        for column in CLAIM_COLUMNS:
            table.add_column(column, justify="left" if column in CLAIM_COLUMNS[:2] else "right")
        for row in self.claim_rows():
            table.add_row(*map(escape, row))
        return table

    def _repr_html_(self) -> str:
        """Return the verdicts and the answer for a notebook."""
        rows = pd.DataFrame(self.claim_rows(), columns=list(CLAIM_COLUMNS)).to_html(index=False, border=0)
        lines = "".join(f"<li>{html.escape(line)}</li>" for line in self.notes())
        return f"<p>{html.escape(self.probe)}, {claims.at_scale(self.scale)}</p>{rows}<ul>{lines}</ul>"

    def claim_rows(self) -> list[list[str]]:
        """Return the cells under CLAIM_COLUMNS: of a verdict on several effects, how many of them lie above 0."""
        rows = []
        for _, verdict in self.judged():
            deciding = verdict.estimates[: verdict.deciding]
            above = f"{sum(one.mean > 0 for one in deciding)} of {len(deciding)} above 0" if deciding else "its parts"
            cells = [above, "–", "–", "–"]
            if len(deciding) == 1:
                [one] = deciding
                cells = [one.middle, one.interval, str(one.n), "–" if one.p is None else f"{one.p:.3f}"]
            rows.append([verdict.says, verdict.word, *cells])
        return rows

    def drawings(self) -> dict[str, tuple[str, Findings]]:
        """Return what can be drawn, by the file's name: the figure's name, and the findings that it draws."""
        own = {name: (name, self) for name in load_probe(self.probe).figures}
        parts = [(key, name, drawing) for key, part in self.parts.items() for name, drawing in part.drawings().items()]
        names = [name for _, name, _ in parts]
        return own | {name if names.count(name) == 1 else f"{name}-{key}": drawing for key, name, drawing in parts}

    def notes(self) -> list[str]:
        """Return the sentences of the answer that are no verdicts."""
        said = {str(verdict) for _, verdict in self.judged()}
        return [line for line in self.answer if line.partition(": ")[2] not in said and line not in said]


def judge(name: str, frames: Frames, settings: Frozen) -> Findings:
    """Return a probe's findings from tables: nothing is trained or measured, and equal tables give equal findings.

    Runs without an outcome, unfinished and damaged ones, are not judged. A part with nothing to judge is left out with
    a sentence that says why. Raises SpecError where there is nothing to judge at all: no run, a measurement that none
    of them has, or, for a probe that measures trained networks, no run that finished.
    """
    probe, there = load_probe(name), frames
    runs, status = there["runs"], there["runs"]["status"]
    if status.empty:
        raise SpecError("no finished run to judge")
    frames = of_runs(there, runs.loc[status.isin(["finished", "diverged"]), "run_id"])
    needs_finished = any(not measure.diverged for measure in probe.measures.values())
    if frames["runs"].empty or ("finished" not in set(status) and needs_finished):
        counts = ", ".join(f"{count} {word}" for word, count in status.value_counts().items())
        raise SpecError(f"{name}: no run finished, so there is nothing to judge ({counts}); try a smaller --lr")
    parts: dict[str, Findings] = {}
    refused: list[str] = []
    for key, part in probe.parts.items():
        own = part.frames(frames)
        if own["runs"].empty:
            continue
        try:
            parts[key] = judge(part.probe, own, part.settings(settings))
        except SpecError as error:
            refused += [f"{key}: not judged: {line}" for line in error.errors]
    if refused and not parts:
        raise SpecError(refused)
    tables = probe.tables(_Measured(frames, name), settings)
    findings = conclude(name, settings, tables, parts, claims.scale(frames["runs"]))
    return replace(findings, frames=there, answer=[*of_others(frames["runs"]), *findings.answer, *refused])


def of_runs(frames: Frames, ids: Collection[str]) -> Frames:
    """Return the frames of these runs alone."""
    return {key: frame[frame["run_id"].isin(ids)] for key, frame in frames.items()}


def conclude(name: str, settings: Frozen, tables: Tables, parts: Mapping[str, Findings], scale: str) -> Findings:
    """Return the findings that follow from a probe's own tables and from the findings of its parts.

    Their answer: a sentence per verdict, what only the probe can say, the answers of its parts, and the limits.
    """
    probe = load_probe(name)
    symbols = {**_depths(tables), **settings.model_dump(), **probe.symbols(tables, settings)}
    simple = [claim for claim in probe.claims if isinstance(claim, Claim)]
    effects, verdicts = claims.judge(simple, probe.extras(tables, settings), tables, symbols, probe.labels)
    judged = {
        f"{key}:{verdict.key.partition(':')[2]}": verdict for key, part in parts.items() for verdict in part.verdicts
    }
    combined = [claims.combine(claim, judged) for claim in probe.claims if isinstance(claim, Combination)]
    marked = [replace(one, key=f"{name}:{one.key}", scale=scale) for one in [*combined, *verdicts]]
    findings = Findings(name, settings, {}, tables, effects, marked, (), scale, parts)
    answer = [*map(str, marked), *probe.comment(findings)]
    answer += [f"{key}: {line}" for key, part in parts.items() for line in part.answer]
    return replace(findings, answer=[*answer, *filter(None, [probe.limits])])


def of_others(runs: pd.DataFrame) -> list[str]:
    """Return a sentence per network that others trained: its error measured here next to the published one."""
    lines = []
    for run in runs.to_dict("records") if "foreign" in runs else ():
        foreign = run["foreign"]
        if not isinstance(foreign, Foreign):
            continue
        measured = "no error" if pd.isna(run["test_error"]) else f"{run['test_error']:.2f} % test error"
        published = paper.PUBLIC_NETWORKS.get(foreign.network)
        note = "nothing is known here of its training"
        if published:
            note = f"{published.value:.2f} % published ({published.source}: {published.note})"
        lines.append(f"{foreign}, trained by others: {measured} measured on {run['test_images']:,.0f} images, {note}.")
    return lines


def _depths(tables: Tables) -> dict[str, int]:
    depths = [int(depth) for table in tables.values() if {"depth", "seed"} <= set(table) for depth in table["depth"]]
    return {"deep": max(depths), "shallow": min(depths)} if depths else {}


def settings_of(kind: type[Frozen], whole: Any, **own: Any) -> Any:
    """Return the settings of a part: its own, and those of the whole by their names."""
    return kind.model_validate({name: getattr(whole, name) for name in kind.model_fields if name not in own} | own)


def parse_settings(probe: Probe, given: Mapping[str, Any]) -> Frozen:
    """Return a probe's settings with what was given over the defaults; text is read as a flag's value.

    A list is written with commas between. Raises SpecError, a line per unknown key and per wrong value.
    """
    fields = probe.settings.model_fields
    errors = [
        f"no setting '{key}'{did_you_mean(key, fields)}; there are {', '.join(fields) or 'none'}"
        for key in given
        if key not in fields
    ]
    values = {key: _read(value, fields[key].default) for key, value in given.items() if key in fields}
    try:
        settings = probe.settings.model_validate(values)
    except ValidationError as error:
        for item in error.errors():
            errors.append(f"setting '{item['loc'][0]}': {item['msg']}, not {values[str(item['loc'][0])]!r}")
    if errors:
        raise SpecError(errors)
    return settings


def _read(value: Any, default: Any) -> Any:
    if isinstance(default, tuple) and isinstance(value, str):
        return [item.strip() for item in value.split(",") if item.strip()]
    return value


def planned(probe: Probe, request: Request) -> list[RunSpec]:
    """Return the runs of a probe, each once.

    Raises SpecError for runs that the probe cannot use, for a field that changes none of its runs, and for a recipe of
    several values, which would count as seeds.
    """
    for grid in request.grids:
        for key in grid.keys() & TrainSpec.model_fields.keys():
            if len(set(map(str, grid[key]))) > 1:
                raise SpecError(f"{key}: networks that are compared are trained alike; give one value, not several")
    specs = _plan(probe, request)
    recorded = [spec.flat() for spec in specs]
    requests: list[tuple[str, list[Any], Request]] = [
        (key, [value], replace(request, base=without(request.base, key)))
        for key, value in without(request.base, "preset").items()
    ]
    for grid in request.grids:
        for key, values in grid.items():
            others = tuple(without(one, key) if one is grid else one for one in request.grids)
            requests.append((key, list(values), replace(request, grids=others)))
    for key, values, without_it in requests:
        if all(any(flat.get(key) == value for flat in recorded) for value in values):
            continue
        try:
            unread = _plan(probe, without_it) == specs
        except SpecError:  # it could not do without
            unread = False
        if unread:
            text = ", ".join(map(str, values))
            raise SpecError(f"{key}: this probe chooses it by itself, so '{text}' changes nothing; leave it out")
    return specs


def _plan(probe: Probe, request: Request) -> list[RunSpec]:
    if any(cell.get("foreign") for cell in (request.base, *request.grids)):  # and so for no others
        if not probe.adopts:
            raise SpecError("--network: this probe takes no networks that others trained")
        specs = replace(request, seeds=[0]).runs()
        names = [(str(spec.foreign), spec.model.depth) for spec in specs]
        for name, _ in {one: None for one in names if names.count(one) > 1}:
            raise SpecError(f"--network: {name} is there with several weights; compare one network of a name at a time")
        return specs
    return list(dict.fromkeys(probe.plan(request)))


@cache
def probe_names() -> dict[str, str]:
    """Return each probe's name and docstring, read without importing it."""
    names = {}
    for file in sorted(Path(__file__).parent.glob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        targets = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
        if any(isinstance(target, ast.Name) and target.id == "PROBE" for target in targets):
            names[file.stem] = ast.get_docstring(tree) or ""
    return names


def load_probe(name: str) -> Probe:
    """Return a probe by its name. Raises SpecError with the nearest known one."""
    names = probe_names()
    if name not in names:
        raise SpecError(f"no probe '{name}'{did_you_mean(name, names)}; there are {', '.join(names)}")
    probe: Probe = import_module(f"{__name__}.{name}").PROBE
    return probe


def check_key(key: str) -> None:
    """Raise KeyError where there is no claim `probe:key`."""
    name, _, own = key.partition(":")
    if own not in {claim.key for claim in load_probe(name).claims}:
        raise KeyError(f"no claim '{key}'")


def is_claim(key: str) -> bool:
    """Return whether a verdict's key is that of a claim which there is now."""
    name, _, own = key.partition(":")
    return name in probe_names() and any(claims.is_of(own, claim.key) for claim in load_probe(name).claims)
