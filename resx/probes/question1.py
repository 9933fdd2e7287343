"""Question 1: do ResNets resolve vanishing gradients by being many shallow networks?

Question. 'Do ResNets resolve the vanishing gradient problem by constructing many shallow neural networks that
attempt to learn residuals and hence require substantial gradients?' The paper itself calls vanishing gradients an
unlikely cause.

Method. The networks and measurements of `resx probe gradients`, `paths` and `lesions`, at `shallow` and `deep` layers.

Three hypotheses, whose parts are claims of these probes. Vanishing: gradients of the deep plain network with batch
normalisation vanish on their way to the first layers. Shattering: depth makes the gradients of nearby inputs unlike
each other, more so in plain networks than in residual ones. Many shallow networks: the gradient of the deep residual
network comes through short paths; removing a block hurts a plain network more; and independent shallow networks of
equal cost are neither better nor worse: if they beat the deep network it is undertrained, if it beats them it is not
like them.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from resx.claims import Combination
from resx.probes import Frames, Measure, Part, Probe, Request, load_probe, of_runs, settings_of
from resx.probes.gradients import GradientsSettings
from resx.probes.lesions import LesionsSettings, is_deep, is_lesioned
from resx.probes.lesions import plan as plan_lesions
from resx.probes.paths import PathsSettings
from resx.spec import Frozen, RunSpec

PARTS: dict[str, type[Frozen]] = {"gradients": GradientsSettings, "paths": PathsSettings, "lesions": LesionsSettings}


class Question1Settings(GradientsSettings, PathsSettings, LesionsSettings):
    """Those of gradients, paths and lesions."""


def plan(request: Request) -> list[RunSpec]:
    """Return plain and residual networks, with batch normalisation and without, at both depths, and the controls."""
    depths = [request.settings.shallow, request.settings.deep]
    controlled = plan_lesions(request)  # refuses a depth that is given otherwise than by its settings
    return [*request.runs(depth=depths, shortcut=["none", "identity"], norm=["batch", "none"]), *controlled]


def _frames(name: str, frames: Frames) -> Frames:
    """Return the frames of only those runs on which a part's measurements were applied."""
    measured = (frames[key]["run_id"] for key in load_probe(name).measures if key in frames)
    return of_runs(frames, set().union(*measured))


def _normed(spec: RunSpec, settings: Any) -> bool:
    return is_lesioned(spec, settings) and spec.model.norm == "batch"


def _residual(spec: RunSpec, settings: Any) -> bool:
    return _normed(spec, settings) and spec.model.shortcut != "none"


def _lesioned(spec: RunSpec, settings: Any) -> bool:
    return _residual(spec, settings) or (_normed(spec, settings) and spec.model.depth == settings.shallow)


def _deep(spec: RunSpec, settings: Any) -> bool:
    return _normed(spec, settings) and is_deep(spec, settings)


WANTS = {
    "gradients": is_lesioned,
    "shattering": is_lesioned,
    "paths": _residual,
    "lesions": _lesioned,
    "ensembles": _deep,
}


def _measures() -> dict[str, Measure]:
    every = {key: measure for name in PARTS for key, measure in load_probe(name).measures.items()}
    return {key: replace(measure, wants=WANTS.get(key, measure.wants)) for key, measure in every.items()}


CLAIMS = (
    Combination(
        key="vanishing",
        says="Gradients vanish in the deep plain network",
        parts=("gradients:vanish-initially", "gradients:vanish-in-training"),
    ),
    Combination(
        key="shattering",
        says="Depth shatters gradients, more so without shortcuts",
        parts=("gradients:shatter-initially",),
    ),
    Combination(
        key="many-shallow-networks",
        says="A deep residual network is many shallow networks",
        parts=("paths:short-paths", "lesions:removal-hurts-plain-more", "lesions:ensemble-equals-deep"),
    ),
)

PROBE = Probe(
    plan=plan,
    claims=CLAIMS,
    settings=Question1Settings,
    measures=_measures(),
    limits=(
        "Trained networks were observed here and no gradient was intervened on; the probe `interventions` does that. "
        "Other widths, data and schedules may differ."
    ),
    parts={name: Part(name, partial(settings_of, kind), partial(_frames, name)) for name, kind in PARTS.items()},
    chooses=("depth",),
)
