"""Does it help a shortcut to know the map? A teacher whose true map R is known.

Question. Could a function other than the identity be the shortcut, if something is known of how the input relates to
the output, and could it be learned (He et al. 2016, section 3.1; 2016b, section 3)?

Method. Regression on a teacher of L layers h(x) = R x + ε·g(x), R one of identity, negation, a scaling, a permutation,
a rotation, a projection of low rank, and g a fixed nonlinear map, even, so that it holds no part of R. Students have L
layers S x + F(x) with nothing after the addition; S is nothing (plain), the identity, R itself, R turned by an angle,
or a learned linear map that starts at the identity. The branch has fewer than 2d ReLUs and no biases, or it could hold
(R − S) x exactly and only speed would differ. All students of a seed share the branches' initial weights and the
batches, and are compared at equal steps.

What can be known. From outside only Rᴸ shows, since a change of basis between two layers alters nothing else. So a
student with identity shortcuts can hold the teacher exactly where Rᴸ is the identity, even if R is not (negation at an
even L); an angle is that of the whole network, each shortcut being turned by 1/L of it (eight turns of 45° would be
none); and of learned maps only the product is compared, with Rᴸ.

Primary outcome. log10 of the final training loss (over the variance of the targets, in tables). Effects are differences
within a seed, with 95 % intervals over seeds, judged as one family by a joint sign-flip over seeds.

Knowing R can help where neither R nor Rᴸ is the identity. The benefit falls with the angle where the slope of log10
loss over the angle (0° and the angles of `away`, per 90°, least squares within a seed) is above 0. A learned map finds
R where the product of the learned maps ends nearer to Rᴸ than `near` (relative Frobenius distance).

Limits. A plain student of many layers starts from branches scaled for the others (their sum, not their product, has the
input's size), so it is shown and not judged.

Trials. Seeds 0 and 1 served to choose the learning rate and the branches' first scale. They also showed that negation
gained nothing at L = 8 and that turns of 45° a layer cost nothing there, hence the split of criterion 1 by Rᴸ and the
angle of the whole network. They are no test of these; experiments/question2-digits.toml uses other seeds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pydantic import Field

from resx import stats
from resx.claims import Claim, Within, contrast
from resx.probes import OF_IMAGES, Findings, Frames, Measure, Probe, Request, Settings
from resx.probes.tidy import summary
from resx.spec import RunSpec, SpecError, parse_part

if TYPE_CHECKING:
    from resx.measurements.inputs import Specimen

ARMS = ("plain", "identity", "learned", "R")
RECIPE: dict[str, Any] = {
    "family": "mapping",
    "width": 16,
    "norm": None,
    "order": None,
    "steps": 300,
    "batch_size": 64,
    "lr": 0.05,
    "warmup": False,
    "eval_every": 150,
    "eval_images": 500,
    "subset": None,
    "image_size": None,
    "augment": None,
    "normalize": None,
}
INPUTS = 512  # on which a branch's share is measured
SAME = 1e-9  # relative distance below which Rᴸ is the identity


class MappingSettings(Settings):
    """maps: the teachers' R. layers: of each. away: angles from R that are tried (degrees, of the whole network). eps:
    size of the nonlinear part. d: inputs. start: of the learned map (1 identity, 0 zero). margin: of equivalence (log10
    loss). near: distance within which a learned map has found R.
    """

    maps: tuple[str, ...] = ("identity", "negation", "scaling-0.8", "permutation", "rotation-30", "lowrank-8")
    layers: tuple[int, ...] = (1, 8)
    away: tuple[float, ...] = (15, 45, 90)
    eps: float = 0.1
    d: int = Field(16, ge=2)
    start: float = 1.0
    margin: float = Field(0.1, gt=0)
    near: float = Field(0.2, gt=0)


def plan(request: Request) -> list[RunSpec]:
    """Return every teacher with every student."""
    from resx.data.maps import parse_map

    settings = request.settings
    fields = []
    for layers in settings.layers:
        for name in settings.maps:
            parse_map(name)
            teacher = f"teacher:map={name},eps={settings.eps},d={settings.d},layers={layers}"
            turns = [away / layers for away in settings.away]
            texts = [f"known:map={name},away={turn}" for turn in turns if turn]
            exact = [] if name == "identity" else [f"known:map={name}"]  # the identity is known by the identity
            for shortcut in ("none", "identity", *exact, *texts, f"linear:start={settings.start}"):
                own = {"dataset": teacher, "depth": layers, "shortcut": shortcut}
                fields += [{**RECIPE, **request.base, **own, "seed": seed} for seed in request.seeds]
    return request.resolve(fields)


def measure(specimen: Specimen, settings: MappingSettings) -> pd.DataFrame:
    """Return a row per kept step: step, the columns of resx.measurements.mapping, and the targets' variance."""
    from resx.data.maps import linear_map
    from resx.measurements.mapping import mapping
    from resx.model import build

    run, dataset, spec = specimen.run, specimen.dataset, specimen.run.spec
    matrix = linear_map(parse_part(spec.data.dataset)[1]["map"], dataset.n_outputs)
    network = build(spec.model, dataset.input_shape, dataset.n_outputs, spec.seed).eval()
    variance = float(dataset.train_y.double().var(unbiased=False))
    rows = []
    for step in run.snapshots():
        network.load_state_dict(run.load_weights(step))
        row = mapping(network, dataset.test_x[:INPUTS], matrix)
        rows.append(row.assign(step=step, variance=variance))
    return pd.concat(rows, ignore_index=True)


def tables(frames: Frames, settings: MappingSettings) -> dict[str, pd.DataFrame]:
    """Return students by seed, slopes over the angle, learned maps and their way, and the means that are shown."""
    students = _students(frames, settings)
    measured = frames["mapping"].merge(
        students[["run_id", "teacher", "map", "layers", "arm", "case", "seed"]], on="run_id"
    )
    last = measured[measured["step"] == measured.groupby("run_id")["step"].transform("max")]
    learned = _learned(measured[measured["arm"] == "learned"], settings)
    means = summary(learned, ("teacher",), ("start", "end", "each", "odd"))
    return {
        "loss": _by_student(students.assign(value=students["score"]), lost=True),
        "residual": _by_student(last[last["arm"].isin(ARMS)].assign(value=lambda table: table["residual"])),
        "learned_maps": means.assign(halved=learned.groupby("teacher", sort=False)["halved"].mean().to_numpy()),
        "students": students,
        "slopes": _slopes(students),
        "learned": learned,
        "way": measured.loc[measured["arm"] == "learned", ["map", "layers", "seed", "step", "composed"]],
    }


def _students(frames: Frames, settings: MappingSettings) -> pd.DataFrame:
    """Return a row per run: teacher, map, layers, arm, away (degrees, of the whole network), case, seed and score.

    arm: plain, identity, R, turned (R, by `away`), learned or other. case: identity, visible, or invisible where Rᴸ is
    the identity and R is not. score: log10 of the final training loss over the variance of the targets; nan for a run
    that diverged. Raises SpecError where no run is on a teacher.
    """
    runs = frames["runs"]
    runs = runs[runs["dataset"].str.startswith("teacher:") & (runs["family"] == "mapping")]
    if runs.empty:
        raise SpecError("no recorded run is on a teacher; `resx probe mapping` makes some")
    parts = [parse_part(text)[1] for text in runs["dataset"]]
    shortcuts = [parse_part(text) for text in runs["shortcut"]]
    maps, layers = [part["map"] for part in parts], [int(part["layers"]) for part in parts]
    turns = [float(arguments.get("away", 0)) for _, arguments in shortcuts]
    variance = runs["run_id"].map(frames["mapping"].groupby("run_id")["variance"].first())
    variance = variance.groupby(runs["dataset"]).transform("first")  # the same for all on one teacher
    table = runs[["run_id", "seed", "status"]].assign(
        map=maps,
        layers=layers,
        arm=[_arm(name, arguments, own) for (name, arguments), own in zip(shortcuts, maps, strict=True)],
        away=[round(turn * count, 6) for turn, count in zip(turns, layers, strict=True)],
        score=stats.log10_loss(runs["train_loss"].where(runs["status"] == "finished")) - np.log10(variance),
    )
    cases = {pair: _case(*pair, settings.d) for pair in set(zip(maps, layers, strict=True))}
    table["case"] = [cases[pair] for pair in zip(maps, layers, strict=True)]
    table["teacher"] = table["map"] + ", L=" + table["layers"].astype(str)
    return table.sort_values(["layers", "map", "arm", "away", "seed"], kind="stable", ignore_index=True)


def _arm(name: str, arguments: dict[str, str], own: str) -> str:
    if name == "known":
        if arguments["map"] != own:
            return "other"
        return "turned" if float(arguments["away"]) else "R"
    return {"none": "plain", "identity": "identity", "linear": "learned"}.get(name, "other")


def _case(name: str, layers: int, size: int) -> str:
    from resx.data.maps import linear_map

    if name == "identity":
        return "identity"
    power = np.linalg.matrix_power(linear_map(name, size).numpy(), layers)
    return "invisible" if np.linalg.norm(power - np.eye(size)) < SAME * size else "visible"


def _slopes(students: pd.DataFrame) -> pd.DataFrame:
    """Return, a row a teacher and seed, the least-squares slope of the score over the angle, per 90°."""
    true = students["arm"].where(students["map"] != "identity", students["arm"].replace("identity", "R"))
    rows = students.assign(angle=students["away"])[(true == "R") | (true == "turned")]
    slopes = []
    for teacher, group in rows.groupby("teacher", sort=False):
        scores = group.pivot(index="seed", columns="angle", values="score")
        centred = (scores.columns.to_numpy(dtype=float) - scores.columns.to_numpy(dtype=float).mean()) / 90
        if centred.any():
            values = scores.to_numpy() @ centred / (centred @ centred)
            slopes.append(pd.DataFrame({"teacher": teacher, "seed": scores.index, "slope": values}))
    return pd.concat(slopes, ignore_index=True) if slopes else pd.DataFrame(columns=["teacher", "seed", "slope"])


def _learned(measured: pd.DataFrame, settings: MappingSettings) -> pd.DataFrame:
    """Return a row per learned map, all distances relative.

    start, end: of the product from Rᴸ. each: of each map from R at the end. odd: of the product of the layers' odd
    parts from Rᴸ at the end. halved: the first kept step at which `start` is halved. nearer: `near` minus `end`.
    """
    columns = ["teacher", "case", "seed", "start", "end", "each", "odd", "halved", "nearer"]
    rows = []
    for (teacher, case, seed), group in measured.groupby(["teacher", "case", "seed"], sort=False):
        ordered = group.sort_values("step")
        start, last = ordered["composed"].iloc[0], ordered.iloc[-1]
        halved = ordered.loc[ordered["composed"] <= start / 2, "step"] if start > SAME else pd.Series(dtype=float)
        step, end = halved.iloc[0] if len(halved) else np.nan, last["composed"]
        rows.append([teacher, case, seed, start, end, last["distance"], last["odd"], step, settings.near - end])
    return pd.DataFrame(rows, columns=columns)


def _by_student(rows: pd.DataFrame, *, lost: bool = False) -> pd.DataFrame:
    """Return the means of `value`, a row per teacher, a column per student; lost: with how many runs diverged."""
    turned = "R+" + rows["away"].map("{:g}°".format) if "away" in rows else rows["arm"]
    named = rows.assign(student=rows["arm"].where(rows["arm"] != "turned", turned))
    table = named.pivot_table(index="teacher", columns="student", values="value", dropna=False, sort=False)
    table = table.reindex(columns=[*ARMS, *(name for name in table if name not in ARMS)]).rename_axis(columns=None)
    if lost:
        table["diverged"] = (rows["status"] == "diverged").groupby(rows["teacher"]).sum()
    return table.reset_index()


def comment(findings: Findings) -> list[str]:
    """Return where learned maps end nearest and farthest from R."""
    learned = findings.tables["learned"]
    ends = learned[learned["case"] != "identity"].groupby("teacher")["end"].mean().sort_values()
    if ends.empty:
        return []
    return [
        f"Learned maps end nearest for {ends.index[0]} (relative distance {ends.iloc[0]:.2f}) and farthest for "
        f"{ends.index[-1]} ({ends.iloc[-1]:.2f})."
    ]


IDENTITY, TRUE = {"teacher": "{teacher}", "arm": "identity"}, {"teacher": "{teacher}", "arm": "R"}
NOT_IDENTITY = {"case": ("visible", "invisible")}
CLAIMS = (
    Claim(
        key="knowing-helps",
        says="Knowing R helps where R is not the identity (and neither is Rᴸ)",
        expected=+1,
        first=contrast("score", IDENTITY, TRUE, over=("teacher",), where={"case": "visible"}),
        family="known",
    ),
    Claim(
        key="no-help-where-invisible",
        says="Knowing R does not help where Rᴸ is the identity",
        expected=0,
        first=contrast("score", IDENTITY, TRUE, over=("teacher",), where={"case": "invisible"}),
        rule=Within("{margin}"),
        family="invisible",
    ),
    Claim(
        key="falls-with-angle",
        says="The benefit of a shortcut falls with its angle from R",
        expected=+1,
        first=contrast("slope", {"teacher": "{teacher}"}, over=("teacher",)),
        family="angle",
    ),
    Claim(
        key="learned-finds",
        says="A learned map finds R",
        expected=+1,
        first=contrast("nearer", {"teacher": "{teacher}"}, over=("teacher",), where=NOT_IDENTITY),
        family="learned",
    ),
)

PROBE = Probe(
    plan=plan,
    tables=tables,
    claims=CLAIMS,
    settings=MappingSettings,
    figures=("mapping",),
    shown=("loss", "residual", "learned_maps"),
    drawn=("way",),
    measures={"mapping": Measure(measure)},
    labels={
        "score": "log10 of the final training loss over the targets' variance",
        "slope": "slope of that over the angle, per 90°",
        "nearer": "near − final distance of the product of learned maps from Rᴸ",
    },
    comment=comment,
    limits=(
        "This is a teacher whose layers share one linear map and whose nonlinear part is small; it does not say that a "
        "trained network's layers have such a map, nor which one."
    ),
    chooses=("family", "depth", "shortcut", "order", "norm", "dataset", "normalize", "augment", *OF_IMAGES),
)
