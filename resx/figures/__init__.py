"""Figures by name, and the choice of the runs that go into one.

Every file of this folder that registers a `draw(findings) -> Figure` is a figure. It draws what a probe returned, its
tables and settings, and computes nothing that stands in a table; so a published folder is enough to draw it again.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import wraps

import pandas as pd
from matplotlib.figure import Figure

from resx.figures import style
from resx.registry import Registry
from resx.spec import FIELDS, SpecError, did_you_mean

Frames = Mapping[str, pd.DataFrame]


def _in_one_look(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Return a figure that is drawn with this project's settings of matplotlib, whatever the user's."""

    @wraps(draw)
    def drawn(findings: object) -> Figure:
        with style.context():
            return draw(findings)

    return drawn


FIGURES: Registry[Callable[..., Figure]] = Registry("figure", adapt=_in_one_look)


def select(frames: Frames, **filters: object) -> dict[str, pd.DataFrame]:
    """Return the frames with only those runs that every filter admits; an empty filter admits all.

    filters: a value or several by the spec's flat field names (`depth=20`, `depth=[20, 56]`). A shortcut matches with
    or without its arguments, a data set by its name or its label; `run` matches ids by how they begin or end.
    Raises SpecError where nothing is left, with what is recorded, and for an unknown field.
    """
    runs = frames["runs"]
    if runs.empty:
        raise SpecError("no run is recorded here; `resx compare` makes some, --results looks in another folder")
    texts = {name: values for name, value in filters.items() if (values := _as_texts(value))}
    unknown = [name for name in texts if name != "run" and name not in FIELDS]
    if unknown:
        raise SpecError([f"{name}: no such field{did_you_mean(name, FIELDS)}" for name in unknown])
    keep = pd.Series(True, index=runs.index)
    for name, values in texts.items():
        keep &= _matches(runs, name, values)
    if not keep.any():
        filter_text = ", ".join(f"{name} {' or '.join(values)}" for name, values in texts.items())
        there = {name: sorted(runs[name].map(as_text).unique(), key=_by_number) for name in texts if name != "run"}
        listed = "; ".join(f"{name} {', '.join(values)}" for name, values in there.items())
        raise SpecError(f"no recorded run has {filter_text}; there are: {listed or '`resx runs list` shows them'}")
    ids = runs.loc[keep, "run_id"]
    return {name: frame[frame["run_id"].isin(ids)] if "run_id" in frame else frame for name, frame in frames.items()}


def _as_texts(value: object) -> list[str]:
    """Return one value or several as texts; none for None."""
    if isinstance(value, Collection) and not isinstance(value, str):
        return [as_text(one) for one in value]
    return [] if value is None else [as_text(value)]


def _matches(runs: pd.DataFrame, name: str, values: list[str]) -> pd.Series:
    if name == "run":
        ends = tuple(values)
        return runs["run_id"].map(lambda run_id: run_id.startswith(ends) or run_id.endswith(ends))
    matching = runs[name].map(as_text).isin(values)
    if name == "shortcut":
        matching |= runs[name].str.partition(":")[0].isin(values)
    if name == "dataset":
        matching |= runs["label"].isin(values) | runs["data_label"].isin(values)
    return matching


def as_text(value: object) -> str:
    """Write a field's value as a person would: 1500 for a column's 1500.0, null for nan."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "null"
    try:
        number = float(str(value))
    except ValueError:
        return str(value)
    return str(int(number)) if number.is_integer() else repr(number)


def ask_for_one(mixed: Mapping[str, Sequence[str]]) -> None:
    """Raise SpecError where runs that belong together have several values of a field. mixed: these values by field."""
    if mixed:
        listed = "; ".join(f"{field}: {', '.join(values)}" for field, values in mixed.items())
        field, values = next(iter(mixed.items()))
        flag = f"--dataset {values[0]}" if field == "dataset" else f"--where {field}={values[0]}"
        raise SpecError(f"these runs have different recipes ({listed}); choose one, such as with {flag}")


def refuse_two_of_a_seed(runs: pd.DataFrame) -> None:
    """Raise SpecError where runs of one shortcut, depth and seed differ in other fields, and name these."""
    fields = [field for field in FIELDS if field not in ("shortcut", "depth", "seed")]
    texts = runs[fields].map(as_text)
    counts = texts.groupby([runs[field].map(as_text) for field in ("shortcut", "depth", "seed")]).nunique().max()
    ask_for_one({field: sorted(texts[field].unique(), key=_by_number) for field in fields if counts[field] > 1})


def _by_number(text: str) -> tuple[float, str]:
    """Return a key that sorts numbers as such, before texts."""
    try:
        return float(text), ""
    except ValueError:
        return math.inf, text


for _module in pkgutil.iter_modules(__path__):  # a new figure is one file and nothing else
    importlib.import_module(f"{__name__}.{_module.name}")
