"""Question 3: can the input be modified (copied, chopped off, summed) where its size does not fit the output's?

Question. 'You can only add the identity shortcut function for blocks with the same input and output size. If they have
different sizes, could one modify the input (copy, chop off, sum) to make it work?'

Method. Both designs of `resx probe mismatch`: alternating widths, where every shortcut mismatches, which decides; and
the standard network, where only two do, so that differences are small and equivalence is what can be shown.

Primary outcome. As in `resx probe mismatch`: log10 of the final training loss, paired within a seed, averaged over
depths.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from resx.claims import Combination
from resx.probes import Part, Probe, Request, Settings, settings_of
from resx.probes.mismatch import ALTERNATING, STANDARD, MismatchSettings, of_design
from resx.probes.mismatch import PROBE as MISMATCH
from resx.probes.mismatch import plan as plan_design
from resx.probes.tidy import Outcome
from resx.spec import RunSpec


class Question3Settings(Settings):
    """primary, margin, images: as in `resx probe mismatch`."""

    primary: Outcome = "log10_train_loss"
    margin: float = 0.0
    images: int = 64


def plan(request: Request) -> list[RunSpec]:
    """Return the runs of both designs."""
    designs = [
        replace(request, settings=settings_of(MismatchSettings, request.settings, design=design))
        for design in (ALTERNATING, STANDARD)
    ]
    return [spec for one in designs for spec in plan_design(one)]


CLAIMS = (
    Combination(
        key="input-can-be-modified",
        says="The input can be modified to make a shortcut where sizes do not fit",
        parts=("alternating:works",),
    ),
)

PROBE = Probe(
    plan=plan,
    claims=CLAIMS,
    settings=Question3Settings,
    measures=MISMATCH.measures,
    limits="The alternating design decides; in the standard one, where two shortcuts mismatch, differences are small.",
    parts={
        design: Part(
            "mismatch", partial(settings_of, MismatchSettings, design=design), partial(of_design, design=design)
        )
        for design in (ALTERNATING, STANDARD)
    },
    chooses=("shortcut",),
)
