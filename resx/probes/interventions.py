"""Interventions: is shattering a cause, and is a shortcut needed to get there or to be there?

Question. Gradients of deep plain networks shatter, and those networks train badly (resx probe gradients): that goes
together, and shows no cause. So intervene. What if a plain network's gradients do not shatter, if a residual network's
do, or if the shortcut is taken away in the middle of training?

Method. Networks of {deep} layers that are trained alike and differ in one thing. `looks-linear plain`: no shortcut,
CReLU and mirrored filters, so that the network is linear at initialisation (Balduzzi et al. 2017); its filters read
twice as many channels, so a width of 1/√2 matches the number of parameters best. `crelu plain`: the same network
with He's weights. `dirac plain`: no shortcut, identity kernels wherever shapes do not change. `weak shortcut`: a·x +
F(x) with a learned from 0.25 on, so that branches start four times as large against the shortcut. (A larger gain of
every branch would do nothing, since the next normalisation divides it out.) `annealed`: the identity's weight falls
from 1 to 0 between two points of training (Monti et al. 2018), so that the network that is tested is plain. Some of
them without normalisation, and at {shallow} layers too. Gradients are measured as in the probe gradients.

Primary outcome. log10 of the final training loss. The gap is that of plain and residual networks with batch
normalisation. What closes half of it speaks for a cause, what closes less than a tenth against it; in between nothing
is decided.
"""

from __future__ import annotations

from dataclasses import replace
from math import sqrt
from typing import Any

import pandas as pd
from pydantic import Field

from resx.claims import DEEP, Cell, Claim, Contrast, contrast, plain, residual
from resx.probes import Frames, Probe, Request, gradients
from resx.probes.tidy import INITIAL, OUTCOMES, diverged, outcomes, summary
from resx.spec import RunSpec

LOSS, HALF = "log10_train_loss", "log10_half"
PLAIN: dict[str, Any] = {"shortcut": "none"}
ARMS: dict[str, dict[str, Any]] = {
    "plain": PLAIN,
    "residual": {"shortcut": "identity"},
    "looks-linear plain": {**PLAIN, "activation": "crelu", "init": "looks-linear"},
    "crelu plain": {**PLAIN, "activation": "crelu"},
    "dirac plain": {**PLAIN, "init": "dirac"},
    "weak shortcut": {"shortcut": "learned-scalar:start=0.25"},
    "annealed 0 to 25 %": {"shortcut": "annealed:start=0.0,end=0.25"},
    "annealed 25 to 50 %": {"shortcut": "annealed:start=0.25,end=0.5"},
    "annealed 50 to 75 %": {"shortcut": "annealed:start=0.5,end=0.75"},
}
SHALLOW_ARMS = ("plain", "residual", "looks-linear plain", "dirac plain")
BARE_ARMS = ("plain", "looks-linear plain", "dirac plain")  # without normalisation
NAMES = {fields["shortcut"]: name for name, fields in ARMS.items() if name.startswith(("weak", "annealed"))}
BATCH = {"norm": "batch"}


class InterventionsSettings(gradients.GradientsSettings):
    """shallow, deep: layers; and the settings of the probe gradients."""

    shallow: int = Field(20, ge=8)
    deep: int = Field(56, ge=8)


def plan(request: Request) -> list[RunSpec]:
    """Return all arms at the greater depth, some without normalisation, and some at the smaller depth."""
    settings, width = request.settings, request.base.get("width", 16)
    cells = [(settings.deep, "batch", arm) for arm in ARMS]
    cells += [(settings.shallow, "batch", arm) for arm in SHALLOW_ARMS]
    cells += [(settings.deep, "none", arm) for arm in BARE_ARMS]
    grids = []
    for depth, norm, arm in cells:
        fields = {"depth": depth, "norm": norm, **ARMS[arm]}
        if "activation" in fields:
            fields["width"] = round(width / sqrt(2))
        grids.append({**request.grid, **{key: [value] for key, value in fields.items()}})
    return replace(request, grids=grids).runs()


def tables(frames: Frames, settings: InterventionsSettings) -> dict[str, pd.DataFrame]:
    """Return `arms`, a row per network, and what they are means of: `outcomes`, `growth_by_phase`, `half_distances`."""
    measured = gradients.tables(frames, settings)
    runs = outcomes(frames["runs"])
    own = {
        "outcomes": runs[["run_id", "kind", "depth", "norm", "seed", "status", "parameters", *OUTCOMES]],
        "growth_by_phase": measured["growth_by_phase"],
        "half_distances": measured["half_distances"],
    }
    named = {name: table.assign(kind=table["kind"].replace(NAMES)) for name, table in own.items()}
    return {"arms": _arms(named), **named}


def _arms(named: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return a row per network: parameters, outcomes, growth per layer and half-distance at initialisation."""
    by = ["kind", "depth", "norm"]
    table = summary(named["outcomes"], [*by, "parameters"], list(OUTCOMES))
    for name, quantity in (("growth_by_phase", "growth"), ("half_distances", HALF)):
        initial = named[name][named[name]["phase"] == "initial"]
        table = table.merge(summary(initial, by, [quantity]).drop(columns="seeds"), on=by, how="left")
    lost = named["outcomes"].groupby(by, sort=False)["status"].agg(diverged)
    table = table.merge(lost.rename("diverged").reset_index(), on=by)
    table = table.sort_values("kind", key=lambda names: names.map(list(ARMS).index), kind="stable")
    return table.sort_values(["norm", "depth"], ascending=[True, False], kind="stable", ignore_index=True)


def _at(arm: str, **more: Any) -> dict[str, Any]:
    return {"kind": arm, "depth": DEEP, **BATCH, **more}


def _closes(cell: Cell, share: float) -> Contrast:
    """Return (plain − cell) − share·(plain − residual): above 0 where more than this share of the gap is closed."""
    return Contrast(LOSS, ((1 - share, plain(DEEP, **BATCH)), (-1.0, cell), (share, residual(DEEP, **BATCH))))


def _opens(cell: Cell, share: float) -> Contrast:
    """Return (cell − residual) − share·(plain − residual): above 0 where more than this share of the gap is lost."""
    return Contrast(LOSS, ((1.0, cell), (share - 1, residual(DEEP, **BATCH)), (-share, plain(DEEP, **BATCH))))


def _closing(key: str, says: str, arm: str, *beside: Contrast) -> Claim:
    cell = _at(arm)
    return Claim(key, says, +1, _closes(cell, 0.5), beside, family=LOSS, refutes=_closes(cell, 0.1))


def _alike(key: str, arm: str, expected: int) -> Claim:
    """Return the claim that an arm's gradients are at initialisation nearer to a residual (+1) or plain network's."""
    at = {**BATCH, **INITIAL}
    middle = Contrast(HALF, ((1.0, _at(arm, **INITIAL)), (-0.5, plain(DEEP, **at)), (-0.5, residual(DEEP, **at))))
    way = "do not shatter" if expected > 0 else "shatter"
    return Claim(
        key,
        f"The intervention works: at initialisation gradients of {arm}-{DEEP} {way}",
        +1 if expected > 0 else -1,
        middle,
        (contrast(HALF, _at(arm, **INITIAL), plain(DEEP, **at)), contrast("growth", _at(arm, **INITIAL))),
        family="gradients",
    )


MIDDLE, EARLY, LATE = (f"annealed {when} %" for when in ("25 to 50", "0 to 25", "50 to 75"))
CLAIMS = (
    _closing(
        "unshattered-trains",
        f"Shattering is a cause: plain-{DEEP} that looks linear at first closes half of the gap to residual-{DEEP}",
        "looks-linear plain",
        contrast(LOSS, _at("looks-linear plain"), residual(DEEP, **BATCH)),
        contrast(LOSS, {"kind": "looks-linear plain", "depth": DEEP, "norm": "none"}, plain(DEEP, norm="none")),
    ),
    _closing(
        "dirac-trains",
        f"Plain-{DEEP} trains from identity kernels: it closes half of the gap to residual-{DEEP}",
        "dirac plain",
        contrast(LOSS, _at("dirac plain"), residual(DEEP, **BATCH)),
        contrast(LOSS, {"kind": "dirac plain", "depth": DEEP, "norm": "none"}, plain(DEEP, norm="none")),
    ),
    Claim(
        "start-not-activation",
        "It is the start, not the activation or the width: with He's weights the same network trains worse",
        -1,
        contrast(LOSS, _at("looks-linear plain"), _at("crelu plain")),
        (contrast(LOSS, _at("crelu plain"), plain(DEEP, **BATCH)),),
        family=LOSS,
    ),
    Claim(
        "shattered-fails",
        f"The contrary: residual-{DEEP} whose gradients shatter at first loses half of the gap to plain-{DEEP}",
        +1,
        _opens(_at("weak shortcut"), 0.5),
        (contrast(LOSS, _at("weak shortcut"), plain(DEEP, **BATCH)),),
        family=LOSS,
        refutes=_opens(_at("weak shortcut"), 0.1),
    ),
    _closing(
        "needed-to-get-there",
        "A shortcut is needed to get there, not to be there: a network that loses it between a quarter and half of "
        "training closes half of the gap",
        MIDDLE,
        _closes(_at(EARLY), 0.5),
        _closes(_at(LATE), 0.5),
        contrast(LOSS, _at(MIDDLE), residual(DEEP, **BATCH)),
    ),
    _alike("looks-linear-is-unshattered", "looks-linear plain", +1),
    _alike("dirac-is-unshattered", "dirac plain", +1),
    _alike("weak-shortcut-is-shattered", "weak shortcut", -1),
)

PROBE = Probe(
    plan=plan,
    tables=tables,
    claims=CLAIMS,
    settings=InterventionsSettings,
    figures=("interventions",),
    shown=("arms",),
    measures=gradients.PROBE.measures,
    labels={**OUTCOMES, **gradients.PROBE.labels},
    limits=(
        "Starts that look linear, or are the identity, keep the norms of gradients level too: what is shown is that "
        "such a start is enough, not that shattering alone is what it mends; and with a weak shortcut norms grow as "
        "well as gradients shatter. One recipe, one data set, short training."
    ),
    chooses=("depth", "shortcut"),
)
