"""Question 3: can the input be modified (copied, chopped off, summed) where its size does not fit the output's?

Question. 'You can only add the identity shortcut function for blocks with the same input and output size. If they have
different sizes, could one modify the input (copy, chop off, sum) to make it work?'

Method. Both designs of `resx probe mismatch`: alternating widths, where every shortcut mismatches, which decides; and
the standard network, where only two do, so that differences are small and equivalence is what can be shown.

Primary outcome. As in `resx probe mismatch`: log10 of the final training loss, paired within a seed, averaged over
depths.

Criterion, fixed beforehand. The answer is the word for 'modifying the input works' in the alternating design: padding
with zeros, chopping channels off and subsampling maps, without a parameter, trains better than the plain twin:
supported; worse: refuted; else inconclusive; below 6 seeds screening at most. The other ways (copy, sum, …) stand
beside it: how many of them have intervals below the plain twin's, and which differ from the reference.

Settings. primary, margin, images: as in `resx probe mismatch`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from resx.figures.mismatch import ALTERNATING, DESIGNS, PLAIN, STANDARD, arms
from resx.probes import mismatch
from resx.probes.study import Findings, Frames, Order, Study
from resx.spec import RunSpec


def plan(order: Order) -> list[RunSpec]:
    """The runs of both designs."""
    designs = [replace(order, settings={**order.settings, "design": design}) for design in (ALTERNATING, STANDARD)]
    return list(dict.fromkeys(spec for one in designs for spec in mismatch.plan(one)))


def judge(frames: Frames, settings: Mapping[str, Any]) -> Findings:
    """Judge both designs, and answer with the first."""
    there = set(arms(frames["runs"])["design"])
    designs = [design for design in DESIGNS if design in there]
    found = {design: mismatch.judge(frames, {**settings, "design": design}) for design in designs}
    tables = {f"{name}-{design}": table for design, one in found.items() for name, table in one.tables.items()}
    verdicts = [
        replace(verdict, hypothesis=f"{verdict.hypothesis} [{design}]")
        for design, one in found.items()
        for verdict in one.verdicts
    ]
    works = [verdict.word for verdict in verdicts if verdict.estimates[0].name == PLAIN]  # the decisive design's first
    answer = [
        "Can the input be modified (copied, chopped off, summed) to make a shortcut where sizes do not fit?",
        f"{works[0].capitalize()}." if works else "Inconclusive: no plain twin finished.",
        *(one.answer for one in found.values()),
        "Beyond this data, these depths and this recipe nothing is claimed.",
    ]
    return Findings(tables, verdicts, " ".join(answer))


STUDY = Study(
    plan=plan,
    judge=judge,
    figures=mismatch.STUDY.figures,
    measures=mismatch.STUDY.measures,
    defaults={key: value for key, value in mismatch.STUDY.defaults.items() if key != "design"},
)
