"""Question 2: another function than the identity, given some knowledge, and could it be learned?

Question. 'Could another function other than the identity be used provided we have some knowledge of the input in
relation to the output? Could that be learned?'

Method. Both halves of an answer. Under control (`resx probe mapping`): a teacher whose linear part R is known, and
students whose shortcut is R, something else, or learned. On images (`resx probe shortcuts`): the registry of shortcut
functions in one network, among them maps fitted to what a trained network's blocks do, and learned ones.

Primary outcome. log10 of the final training loss in both, paired within a seed, from the identity.

The answer gives four words, two for each half, and never pools them: a teacher is not an image network. Options of
network and recipe (--depth, --steps, …) are for the images; the teacher keeps its own.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from pydantic import Field

from resx.claims import Combination
from resx.probes import Frames, Part, Probe, Request, of_runs, settings_of
from resx.probes.mapping import PROBE as MAPPING
from resx.probes.mapping import RECIPE, MappingSettings
from resx.probes.shortcuts import PROBE as SHORTCUTS
from resx.probes.shortcuts import ShortcutsSettings
from resx.spec import RunSpec

FAMILY = RECIPE["family"]


class Question2Settings(ShortcutsSettings, MappingSettings):
    """primary, margin, donors: as in shortcuts. The others: as in mapping, whose margin is mapping_margin."""

    mapping_margin: float = Field(MappingSettings().margin, gt=0)


def _mapping(settings: Any) -> MappingSettings:
    own: MappingSettings = settings_of(MappingSettings, settings, margin=settings.mapping_margin)
    return own


_shortcuts = partial(settings_of, ShortcutsSettings)


def plan(request: Request) -> list[RunSpec]:
    """Return the runs of both probes; the teacher's take the preset alone from what was asked for."""
    preset = {key: value for key, value in request.base.items() if key == "preset"}
    control = replace(request, base=preset, grids=({},), settings=_mapping(request.settings))
    return [*MAPPING.plan(control), *SHORTCUTS.plan(replace(request, settings=_shortcuts(request.settings)))]


def _frames(frames: Frames, *, on_teacher: bool) -> Frames:
    runs = frames["runs"]
    return of_runs(frames, runs.loc[(runs["family"] == FAMILY) == on_teacher, "run_id"])


def _is_wanted(spec: RunSpec, settings: Any, *, on_teacher: bool) -> bool:
    return (spec.model.family == FAMILY) == on_teacher


CLAIMS = (
    Combination(
        key="knowledge-under-control",
        says="Knowledge of the map helps a shortcut, under control",
        parts=("teacher:knowing-helps",),
    ),
    Combination(
        key="knowledge-on-images",
        says="Knowledge of the map helps a shortcut, on images",
        parts=("images:known",),
    ),
    Combination(
        key="learned-under-control",
        says="The map can be learned, under control",
        parts=("teacher:learned-finds",),
    ),
    Combination(
        key="learned-on-images",
        says="A shortcut better than the identity can be learned, on images",
        parts=("images:learned",),
    ),
)

PROBE = Probe(
    plan=plan,
    claims=CLAIMS,
    settings=Question2Settings,
    measures={
        name: replace(measure, wants=partial(_is_wanted, on_teacher=probe is MAPPING))
        for probe in (SHORTCUTS, MAPPING)
        for name, measure in probe.measures.items()
    },
    parts={
        "teacher": Part("mapping", _mapping, partial(_frames, on_teacher=True)),
        "images": Part("shortcuts", _shortcuts, partial(_frames, on_teacher=False)),
    },
)
