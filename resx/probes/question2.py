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
from resx.claims import Part as ClaimPart
from resx.probes import Frames, Measure, Part, Probe, Request
from resx.probes.mapping import PROBE as MAPPING
from resx.probes.mapping import RECIPE, MappingSettings
from resx.probes.shortcuts import PROBE as SHORTCUTS
from resx.probes.shortcuts import ShortcutsSettings
from resx.spec import RunSpec

FAMILY = RECIPE["family"]


class Question2Settings(ShortcutsSettings):
    """primary, margin, donors: as in shortcuts. The others: as in mapping, whose margin is mapping_margin."""

    maps: tuple[str, ...] = MappingSettings().maps
    layers: tuple[int, ...] = MappingSettings().layers
    away: tuple[float, ...] = MappingSettings().away
    eps: float = MappingSettings().eps
    d: int = Field(MappingSettings().d, ge=2)
    start: float = MappingSettings().start
    mapping_margin: float = Field(MappingSettings().margin, gt=0)
    near: float = Field(MappingSettings().near, gt=0)


def _mapping(settings: Any) -> MappingSettings:
    names = [name for name in MappingSettings.model_fields if name != "margin"]
    own = {name: getattr(settings, name) for name in names}
    return MappingSettings.model_validate({**own, "margin": settings.mapping_margin})


def _shortcuts(settings: Any) -> ShortcutsSettings:
    return ShortcutsSettings.model_validate({name: getattr(settings, name) for name in ShortcutsSettings.model_fields})


def plan(request: Request) -> list[RunSpec]:
    """Return the runs of both probes; the teacher's take the preset alone from what was asked for."""
    preset = {key: value for key, value in request.base.items() if key == "preset"}
    control = replace(request, base=preset, grids=({},), settings=_mapping(request.settings))
    return [*MAPPING.plan(control), *SHORTCUTS.plan(replace(request, settings=_shortcuts(request.settings)))]


def _frames(frames: Frames, *, on_teacher: bool) -> Frames:
    ids = frames["runs"].loc[(frames["runs"]["family"] == FAMILY) == on_teacher, "run_id"]
    return {key: frame[frame["run_id"].isin(ids)] for key, frame in frames.items()}


def _on_teacher(spec: RunSpec, settings: Any) -> bool:
    return spec.model.family == FAMILY


def _on_images(spec: RunSpec, settings: Any) -> bool:
    return spec.model.family != FAMILY


def _measures() -> dict[str, Measure]:
    own = {name: replace(measure, wants=_on_images) for name, measure in SHORTCUTS.measures.items()}
    return own | {name: replace(measure, wants=_on_teacher) for name, measure in MAPPING.measures.items()}


CLAIMS = (
    Combination(
        key="knowledge-under-control",
        says="Knowledge of the map helps a shortcut, under control",
        parts=(ClaimPart("teacher:knowing-helps"),),
    ),
    Combination(
        key="knowledge-on-images",
        says="Knowledge of the map helps a shortcut, on images",
        parts=(ClaimPart("images:known"),),
    ),
    Combination(
        key="learned-under-control",
        says="The map can be learned, under control",
        parts=(ClaimPart("teacher:learned-finds"),),
    ),
    Combination(
        key="learned-on-images",
        says="A shortcut better than the identity can be learned, on images",
        parts=(ClaimPart("images:learned"),),
    ),
)

PROBE = Probe(
    plan=plan,
    claims=CLAIMS,
    settings=Question2Settings,
    measures=_measures(),
    parts={
        "teacher": Part("mapping", _mapping, partial(_frames, on_teacher=True)),
        "images": Part("shortcuts", _shortcuts, partial(_frames, on_teacher=False)),
    },
)
