"""What a study is made of: the order it is given, its measures, and the findings it returns.

Everything that a study says is computed from tables, so it can be said again from recorded runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd
import torch

from resx.data import Dataset
from resx.spec import Experiment, RunSpec, SpecError, did_you_mean
from resx.stats import Estimate
from resx.store.run import RunFolder

Frames = Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class Order:
    """What a study was asked for. base: flat fields of every run, preset included; grid, over the study's own.

    settings: the study's [study] keys and options, its defaults filled in. resolve: flat fields -> complete specs.
    """

    base: Mapping[str, Any]
    seeds: Sequence[int]
    settings: Mapping[str, Any]
    grid: Mapping[str, Sequence[Any]]
    resolve: Callable[[Sequence[Mapping[str, Any]]], list[RunSpec]]

    def runs(self, **grid: Sequence[Any]) -> list[RunSpec]:
        """Return the specs of a grid over the seeds: what was asked for as grid or as fields goes before this one's."""
        own = {key: list(values) for key, values in grid.items() if key not in self.base}
        asked = {key: list(values) for key, values in self.grid.items()}
        cells = Experiment("", self.base, {**own, **asked, "seed": list(self.seeds)}, {})
        return self.resolve(cells.combinations())


@dataclass(frozen=True)
class Measure:
    """A probe of one run. probe(run, dataset, settings, device) returns a tidy table, kept with the run.

    refuses(spec) says in a few words why a run cannot bear the probe, or returns None. keys: the settings that change
    what is measured; a recorded table that was measured with others is measured again. diverged: a diverged run is
    measured too, on the weights that it kept before; otherwise it is left out. wants(spec, settings): which of the
    study's runs the probe is meant for; the others are passed over without a word.
    """

    probe: Callable[[RunFolder, Dataset, Mapping[str, Any], torch.device], pd.DataFrame]
    refuses: Callable[[RunSpec], str | None] = lambda spec: None
    keys: Sequence[str] = ()
    diverged: bool = False
    wants: Callable[[RunSpec, Mapping[str, Any]], bool] = lambda spec, settings: True


@dataclass(frozen=True)
class Verdict:
    """One hypothesis, judged. criterion: what supports and what refutes it, written down before the runs.

    word: supported, refuted, screening or inconclusive (resx.stats.word).
    """

    hypothesis: str
    criterion: str
    estimates: Sequence[Estimate]
    word: str


@dataclass(frozen=True)
class Findings:
    """What a study says: tables by name (printed and written as CSV), verdicts, and the answer in words."""

    tables: Mapping[str, pd.DataFrame]
    verdicts: Sequence[Verdict] = ()
    answer: str = ""


@dataclass(frozen=True)
class Study:
    """plan: the runs it needs. judge: tables in (runs, curves, one per measure), findings out.

    figures: names in resx.figures.FIGURES that are drawn from the same tables. defaults: settings and their defaults:
    primary outcome, family, margin and the study's own options; nothing else is accepted. seeds: how many by default.
    """

    plan: Callable[[Order], list[RunSpec]]
    judge: Callable[[Frames, Mapping[str, Any]], Findings]
    figures: Sequence[str]
    measures: Mapping[str, Measure] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    seeds: int = 2

    def settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the defaults with what was given over them. Raises SpecError for an unknown key or a wrong type."""
        errors = [
            f"no setting '{key}'{did_you_mean(key, self.defaults)}; there are {', '.join(self.defaults)}"
            for key in given
            if key not in self.defaults
        ]
        values = dict(self.defaults)
        for key in given.keys() & self.defaults.keys():
            default, value = self.defaults[key], given[key]
            if isinstance(value, str) and isinstance(default, int | float) and not isinstance(default, bool):
                try:
                    value = type(default)(value)
                except ValueError:
                    errors.append(f"setting '{key}' must be a {type(default).__name__}, not '{value}'")
            if isinstance(default, float) and isinstance(value, int):
                value = float(value)
            if type(value) is not type(default):
                errors.append(f"setting '{key}' must be a {type(default).__name__}, not {given[key]!r}")
            values[key] = value
        if errors:
            raise SpecError(list(dict.fromkeys(errors)))
        return values


def planned(study: Study, order: Order) -> list[RunSpec]:
    """Return the runs of a study, each once.

    Raises SpecError for what the study cannot bear, and for a field that was asked for but changes none of its runs.
    """
    specs = _plan(study, order)
    recorded = [spec.flat() for spec in specs]
    asked = [
        (key, [value], replace(order, base=_rest(order.base, key)))
        for key, value in order.base.items()
        if key != "preset"
    ]
    asked += [(key, list(values), replace(order, grid=_rest(order.grid, key))) for key, values in order.grid.items()]
    for key, values, without in asked:
        if all(any(flat.get(key) == value for flat in recorded) for value in values):
            continue
        try:
            unread = _plan(study, without) == specs
        except SpecError:  # it could not do without
            unread = False
        if unread:
            text = ", ".join(map(str, values))
            raise SpecError(f"{key}: this study chooses it by itself, so '{text}' changes nothing; leave it out")
    return specs


def _plan(study: Study, order: Order) -> list[RunSpec]:
    return list(dict.fromkeys(study.plan(order)))


def _rest(fields: Mapping[str, Any], left_out: str) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key != left_out}
