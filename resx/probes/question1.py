"""Question 1: do ResNets resolve vanishing gradients by being many shallow networks?

Question. 'Do ResNets resolve the vanishing gradient problem by constructing many shallow neural networks that
attempt to learn residuals and hence require substantial gradients?' The paper itself calls vanishing gradients an
unlikely cause.

Method. The networks and measurements of `resx probe gradients`, `paths` and `lesions`, at `shallow` and `deep`
layers; their help says how each is made and what its effects are.

Three hypotheses, with criteria fixed beforehand; each part is judged by its own study (t intervals over seeds, one
joint sign-flip per study, at least 6 seeds).

Vanishing: gradients of the deep plain network with batch normalisation vanish on their way to the first layers, at
initialisation and in training. Supported where the growth per layer towards the input is below 0 % in both, refuted
where it is above 0 % in either.

Shattering: depth makes the gradients of nearby inputs unlike each other in plain networks more than in residual
ones, at initialisation. Supported where the interaction of log10 half-distance is below 0, refuted where it is
above.

Many shallow networks, in three parts: the gradient of the deep residual network comes through paths shorter than
the middle of all paths; removing a block hurts a plain network more than a residual one; independent shallow
networks of equal cost are no worse than the deep network. Supported where all three are, refuted where any is: an
ensemble that one deep network beats is not what the deep network is.

A hypothesis of several parts is inconclusive where it is neither and any part is; below 6 seeds nothing is more
than screening.

Primary outcome. The first estimate of each part. Settings. Those of `gradients`, `paths` and `lesions`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from resx.probes import gradients, lesions, paths
from resx.probes.study import Findings, Frames, Measure, Order, Study, Verdict
from resx.spec import RunSpec
from resx.stats import Word

OPPOSITE: dict[str, Word] = {"supported": "refuted", "refuted": "supported"}
NAMES = {
    "vanishing": "gradients vanish in the deep plain network",
    "shattering": "depth shatters gradients, more so without shortcuts",
    "many shallow networks": "a deep residual network is many shallow networks",
}


def plan(order: Order) -> list[RunSpec]:
    """Everything that the three studies need: {plain, residual} × {batch, none} at both depths, and the controls."""
    depths = [order.settings["shallow"], order.settings["deep"]]
    controlled = lesions.plan(order)  # refuses a depth that is given otherwise than by its settings
    return list(
        dict.fromkeys([*order.runs(depth=depths, shortcut=["none", "identity"], norm=["batch", "none"]), *controlled])
    )


def _of_grid(spec: RunSpec, settings: Mapping[str, Any]) -> bool:
    """Return whether a run is one of the compared networks, not a control."""
    own = spec.seed < lesions.MEMBER_SEEDS and spec.train.active_blocks is None
    return own and spec.model.depth in (settings["shallow"], settings["deep"])


def _is_residual(spec: RunSpec, settings: Mapping[str, Any]) -> bool:
    return _of_grid(spec, settings) and spec.model.norm == "batch" and spec.model.shortcut != "none"


def _is_lesioned(spec: RunSpec, settings: Mapping[str, Any]) -> bool:
    plain = _of_grid(spec, settings) and spec.model.norm == "batch" and spec.model.depth == settings["shallow"]
    return plain or _is_residual(spec, settings)


def _is_deep(spec: RunSpec, settings: Mapping[str, Any]) -> bool:
    return _is_residual(spec, settings) and spec.model.depth == settings["deep"]


WANTS: dict[str, Callable[[RunSpec, Mapping[str, Any]], bool]] = {
    "gradients": _of_grid,
    "shattering": _of_grid,
    "paths": _is_residual,
    "lesions": _is_lesioned,
    "ensembles": _is_deep,
}


def judge(frames: Frames, settings: Mapping[str, Any]) -> Findings:
    """Judge each study on its own runs and put the three hypotheses together from their verdicts."""
    studies = {"gradients": gradients.STUDY, "paths": paths.STUDY, "lesions": lesions.STUDY}
    found = {name: study.judge(_measured(frames, study), settings) for name, study in studies.items()}
    parts = _parts(found)
    verdicts = [
        replace(part.verdict, hypothesis=f"{name}: {part.verdict.hypothesis}")
        for name, listed in parts.items()
        for part in listed
    ]
    words = {name: combine([part.word for part in listed]) for name, listed in parts.items()}
    summary = pd.DataFrame(
        [
            {
                "hypothesis": name,
                "part": part.verdict.hypothesis,
                "mean": round(part.verdict.estimates[0].mean, 3),
                "interval": part.verdict.estimates[0].interval,
                "points": part.points,
                "it is": part.word,
                "altogether": words[name],
            }
            for name, listed in parts.items()
            for part in listed
        ]
    )
    named = {f"{study}-{key}": table for study, one in found.items() for key, table in one.tables.items()}
    tables = {"question1": summary, **{key: table for key, table in named.items() if not key.endswith("-effects")}}
    return Findings(tables, verdicts, _answer(words, parts, found))


def _measured(frames: Frames, study: Study) -> dict[str, pd.DataFrame]:
    """Return the frames of only those runs on which a study's probes were applied."""
    ids = {run_id for name in study.measures if name in frames for run_id in frames[name]["run_id"]}
    return {name: frame[frame["run_id"].isin(ids)] for name, frame in frames.items()}


# study, what its verdict says, whether support of that speaks for the hypothesis, and the sign of a mean that does
PARTS = {
    "vanishing": [("gradients", "vanish at initialisation", True, -1), ("gradients", "vanish in training", True, -1)],
    "shattering": [("gradients", "residual ones at initialisation", True, -1)],
    "many shallow networks": [
        ("paths", "shorter than the middle of all paths", True, -1),
        ("lesions", "Removing a block hurts a plain network more", True, 1),
        ("lesions", "is better than", False, 1),
    ],
}


@dataclass(frozen=True)
class Part:
    """One part of a hypothesis: a study's verdict, the word it has for the hypothesis, and where its mean points."""

    verdict: Verdict
    word: Word
    points: str


def _parts(found: Mapping[str, Findings]) -> dict[str, list[Part]]:
    """Return each hypothesis's parts, as far as they were judged."""
    return {
        name: [
            Part(
                verdict, _word(verdict, speaks_for), "for it" if sign * verdict.estimates[0].mean > 0 else "against it"
            )
            for study, text, speaks_for, sign in listed
            for verdict in found[study].verdicts
            if text in verdict.hypothesis
        ]
        for name, listed in PARTS.items()
    }


def _word(verdict: Verdict, speaks_for: bool) -> Word:
    """Return what a part's verdict says of the hypothesis."""
    word: Word = verdict.word  # type: ignore[assignment]
    return word if speaks_for else OPPOSITE.get(word, word)


def combine(words: Sequence[Word]) -> Word:
    """Return the word for a hypothesis from those of its parts."""
    if "refuted" in words:
        return "refuted"
    if not words or "inconclusive" in words:
        return "inconclusive"
    return "screening" if "screening" in words else "supported"


def _answer(words: Mapping[str, Word], parts: Mapping[str, list[Part]], found: Mapping[str, Findings]) -> str:
    paragraphs = []
    for name, listed in parts.items():
        told = " ".join(
            f"'{part.verdict.hypothesis}' is {part.verdict.word} ({part.verdict.estimates[0]}), which points "
            f"{part.points.removesuffix(' it')} the hypothesis."
            for part in listed
        )
        paragraphs.append(f"{name.capitalize()} ({NAMES[name]}): {words[name]}. {told}")
    paragraphs.append(
        "What this does not settle: trained networks were observed and no gradient was intervened on, so whether "
        "shattering causes degradation stays open; other widths, data and schedules may differ."
    )
    paragraphs += [f"{name.capitalize()}, in detail: {findings.answer}" for name, findings in found.items()]
    return "\n\n".join(paragraphs)


def _measures() -> dict[str, Measure]:
    every = {**gradients.STUDY.measures, **paths.STUDY.measures, **lesions.STUDY.measures}
    return {name: replace(measure, wants=WANTS.get(name, measure.wants)) for name, measure in every.items()}


STUDY = Study(
    plan=plan,
    judge=judge,
    figures=("gradients", "paths", "lesions"),
    measures=_measures(),
    defaults={**gradients.STUDY.defaults, **paths.STUDY.defaults, **lesions.STUDY.defaults},
)
