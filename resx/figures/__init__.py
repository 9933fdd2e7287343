"""Figures by name, and the choice of the runs that go into one.

Every file of this folder that registers a `draw(findings) -> Figure` is a figure. It draws what a probe returned, its
tables and settings, and computes nothing that stands in a table; so a published folder is enough to draw it again.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Collection, Mapping
from functools import wraps

import pandas as pd
from matplotlib.figure import Figure

from resx.figures import style
from resx.registry import Registry
from resx.spec import FIELDS, SpecError, did_you_mean
from resx.store.select import as_text, matches

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
    wanted = {name: texts for name, value in filters.items() if (texts := _as_texts(value))}
    unknown = [name for name in wanted if name != "run" and name not in FIELDS]
    if unknown:
        raise SpecError([f"{name}: no such field{did_you_mean(name, FIELDS)}" for name in unknown])
    ids = {row["run_id"] for row in runs.to_dict("records") if matches(row, wanted)}
    if not ids:
        filter_text = ", ".join(f"{name} {' or '.join(values)}" for name, values in wanted.items())
        there = {name: runs[name].map(as_text).unique() for name in wanted if name != "run"}
        listed = "; ".join(f"{name} {', '.join(sorted(values, key=by_number))}" for name, values in there.items())
        raise SpecError(f"no recorded run has {filter_text}; there are: {listed or '`resx runs list` shows them'}")
    return {name: frame[frame["run_id"].isin(ids)] if "run_id" in frame else frame for name, frame in frames.items()}


def _as_texts(value: object) -> list[str]:
    """Return one value or several as texts; none for None."""
    if isinstance(value, Collection) and not isinstance(value, str):
        return [as_text(one) for one in value]
    return [] if value is None else [as_text(value)]


def by_number(text: str) -> list[tuple[float, str]]:
    """Return a key that sorts texts as a person does: 'width 8' before 'width 16', numbers before words."""
    pieces = re.split(r"(\d+(?:\.\d+)?(?:e[-+]?\d+)?)", text)
    return [(float(piece), "") if place % 2 else (0.0, piece) for place, piece in enumerate(pieces)]


def refuse_mixed(texts: pd.DataFrame, counts: pd.Series) -> None:
    """Raise SpecError where runs that belong together have several values of a field.

    texts: the fields of all runs, as text. counts: how many values each of them has among such runs.
    """
    fields = [field for field in FIELDS if field in texts and counts[field] > 1]
    mixed = {field: sorted(texts[field].unique(), key=by_number) for field in fields}
    if mixed:
        listed = "; ".join(f"{field}: {', '.join(values)}" for field, values in mixed.items())
        field, values = next(iter(mixed.items()))
        flag = f"--dataset {values[0]}" if field == "dataset" else f"--where {field}={values[0]}"
        raise SpecError(f"these runs have different recipes ({listed}); choose one, such as with {flag}")


def refuse_two_of_a_seed(runs: pd.DataFrame) -> None:
    """Raise SpecError where runs of one shortcut, depth and seed differ in other fields, and name these."""
    texts = runs[[*FIELDS]].map(as_text)
    of_a_seed = texts.groupby(["shortcut", "depth", "seed"])
    refuse_mixed(texts.drop(columns=["shortcut", "depth", "seed"]), of_a_seed.nunique().max())


for _module in pkgutil.iter_modules(__path__):  # a new figure is one file and nothing else
    importlib.import_module(f"{__name__}.{_module.name}")
