"""Question 2: another function than the identity, given some knowledge, and could it be learned?

Question. 'Could another function other than the identity be used provided we have some knowledge of the input in
relation to the output? Could that be learned?'

Method. Both halves of an answer. Under control (`resx probe mapping`): a teacher whose linear part R is known, and
students whose shortcut is R, something else, or learned. On images (`resx probe shortcuts`): the registry of shortcut
functions in one network, among them maps fitted to what a trained network's blocks do, and learned ones.

Primary outcome. log10 of the final training loss in both, paired within a seed, from the identity.

Criteria, fixed beforehand, are those of the two studies. 'Knowledge helps' is answered under control by 'knowing R
helps where R is not the identity', on images by 'a map fitted to a trained residual network beats the identity'; 'it
can be learned' under control by 'a learned map finds R', on images by 'a learned shortcut that starts at the identity
beats it'. The answer gives all four words and never pools them: a teacher is not an image network.

Settings. primary, margin, donors: as in `resx probe shortcuts`; the others as in `resx probe mapping` (its margin is
mapping_margin). Options of network and recipe (--depth, --steps, …) are for the images; the teacher keeps its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from resx.probes import mapping, shortcuts
from resx.probes.study import Findings, Frames, Order, Study, Verdict
from resx.spec import RunSpec

ESTIMATES = 2  # effects of a hypothesis that the answer shows
FAMILY = mapping.RECIPE["family"]
# the teacher's hypotheses that answer, by how they begin
MAPPING_KNOWN, MAPPING_LEARNED = "Knowing R helps", "A learned map finds R"
# mapping's settings under the names that they have here
NAMES = {
    key: f"mapping_{key}" if key in shortcuts.STUDY.defaults else key
    for key in mapping.STUDY.defaults
    if key not in ("title", "primary")
}


def plan(order: Order) -> list[RunSpec]:
    """The runs of both studies; the teacher's take the preset alone from what was asked for."""
    preset = {key: value for key, value in order.base.items() if key == "preset"}
    control = replace(order, base=preset, grid={}, settings=_mapping_settings(order.settings))
    return [*mapping.plan(control), *shortcuts.plan(order)]


def _mapping_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {**mapping.STUDY.defaults, **{key: settings[name] for key, name in NAMES.items()}}


def judge(frames: Frames, settings: Mapping[str, Any]) -> Findings:
    """Judge both studies and answer with the four words."""
    on_teacher = frames["runs"]["family"] == FAMILY
    ids = {"teacher": frames["runs"].loc[on_teacher, "run_id"], "images": frames["runs"].loc[~on_teacher, "run_id"]}
    own = {
        name: {key: frame[frame["run_id"].isin(chosen)] for key, frame in frames.items()}
        for name, chosen in ids.items()
    }
    found = {
        "teacher": mapping.judge(own["teacher"], _mapping_settings(settings)),
        "images": shortcuts.judge(own["images"], settings),
    }
    tables = {f"{name}-{key}": table for name, one in found.items() for key, table in one.tables.items()}
    verdicts = [
        replace(verdict, hypothesis=f"{verdict.hypothesis} [{name}]")
        for name, one in found.items()
        for verdict in one.verdicts
    ]
    answer = (
        "Could another function than the identity be used, given some knowledge of the input in relation to the "
        f"output? {_words(found, MAPPING_KNOWN, shortcuts.KNOWN)} Could it be learned? "
        f"{_words(found, MAPPING_LEARNED, shortcuts.LEARNED)}\n\nUnder control. {found['teacher'].answer}\n\n"
        f"On images. {found['images'].answer}"
    )
    return Findings(tables, verdicts, answer)


def _words(found: Mapping[str, Findings], under_control: str, on_images: str) -> str:
    words = {
        place: _verdict(found[name], hypothesis)
        for place, name, hypothesis in (
            ("Under control", "teacher", under_control),
            ("On images", "images", on_images),
        )
    }
    return " ".join(f"{place}: {word}." for place, word in words.items())


def _verdict(findings: Findings, hypothesis: str) -> str:
    """Return a hypothesis's word and its first effect, or that it was not measured."""
    judged: list[Verdict] = [verdict for verdict in findings.verdicts if verdict.hypothesis.startswith(hypothesis)]
    if not judged:
        return "not measured"
    listed = "; ".join(str(estimate) for estimate in judged[0].estimates[:ESTIMATES])
    more = len(judged[0].estimates) - ESTIMATES
    return f"{judged[0].word} ({listed}{f'; and {more} more' if more > 0 else ''})"


STUDY = Study(
    plan=plan,
    judge=judge,
    figures=(*shortcuts.STUDY.figures, *mapping.STUDY.figures),
    measures={
        **{
            name: replace(measure, wants=lambda spec, settings: spec.model.family != FAMILY)
            for name, measure in shortcuts.STUDY.measures.items()
        },
        **{
            name: replace(measure, wants=lambda spec, settings: spec.model.family == FAMILY)
            for name, measure in mapping.STUDY.measures.items()
        },
    },
    defaults={
        **shortcuts.STUDY.defaults,
        **{name: mapping.STUDY.defaults[key] for key, name in NAMES.items()},
    },
)
