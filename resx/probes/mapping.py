"""Does it help a shortcut to know the map? A teacher whose true map R is known.

Question: could a function other than the identity be the shortcut, if something is known of the input in relation to
the output, and could that be learned? (He et al. 2016, section 3.1; 2016b, section 3.)

Method: the task is regression on a teacher of L layers h(x) = R x + ε·g(x), R one of identity, negation, a scaling, a
permutation, a rotation, a projection of low rank, and g a fixed nonlinear map, even, so that it holds no part of R.
Students have L layers S x + F(x) with nothing after the addition, and S is nothing (plain), the identity, R itself, R
turned by an angle, or a learned linear map that starts at the identity. The branch has fewer than 2d ReLUs and no
biases, or it could hold (R − S) x exactly and only speed would differ. All students of a seed share the
branches' initial weights and the batches, and are compared at equal steps.

What can be known: from outside only Rᴸ shows, since a change of basis between two layers alters nothing else. A
student with identity shortcuts can therefore hold the teacher exactly where Rᴸ is the identity, even if R is
not (negation at an even L); an angle is that of the whole network, each of the L shortcuts being turned by its L-th
part (eight turns of 45° would be none); and of learned maps only the product is compared, with Rᴸ.

Primary outcome: log10 of the final training loss (over the variance of the targets, in tables). Effects are
differences within a seed, with 95 % intervals over seeds, judged as one family by a joint sign-flip over seeds.

Criteria, written down before the runs of experiments/question2-digits.toml, whose seeds are none of the trials':

1. Knowing R helps exactly when R is not the identity: identity − R is above 0 for every map with Rᴸ ≠ I (supported:
   all of the family; refuted: one of them is significantly below 0), and within ±margin (90 % interval) where Rᴸ = I
   but R is not. For R = I the two students are the same network.

2. The benefit falls with the angle: the slope of log10 loss over the angle (0° and the angles of `away`, per 90°, least
   squares within a seed) is above 0 for every map.

3. A learned map finds R: for every R that is not the identity, the product of the learned maps ends nearer to Rᴸ than
   `near` (relative Frobenius distance). How fast: the first kept snapshot at which the distance has halved.

Limits: a plain student of many layers starts from branches scaled for the others (their sum, not their product, is
of the input's size), so it is shown and not judged.

Trials: seeds 0 and 1 served to choose the learning rate and the branches' first scale. They also showed that negation
gained nothing at L = 8 and that turns of 45° a layer cost nothing there, from which came the split of criterion 1 by Rᴸ
and the angle of the whole network; seeds 0 and 1 are no test of these.

Settings (--set): maps, layers, away (lists with spaces between; away in degrees of the whole network), eps, d,
start (of the learned map: 1 identity, 0 zero), margin, near. The student's own: --width (ReLUs of a branch),
--steps, --lr.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from resx import stats
from resx.claims import estimates
from resx.data import Dataset
from resx.data.maps import linear_map, parse_map
from resx.figures.mapping import ARMS, labelled
from resx.measurements.mapping import mapping
from resx.model import build
from resx.probes.study import Findings, Frames, Measure, Order, Study, Verdict
from resx.spec import RunSpec, SpecError, parse_part
from resx.store.run import RunFolder

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


def plan(order: Order) -> list[RunSpec]:
    """Return the runs: every teacher with every student."""
    settings = order.settings
    fields = []
    for layers in _numbers(settings, "layers", int):
        for name in str(settings["maps"]).split():
            parse_map(name)
            teacher = f"teacher:map={name},eps={settings['eps']},d={settings['d']},layers={layers}"
            turns = [away / layers for away in _numbers(settings, "away", float)]
            known = [f"known:map={name},away={turn}" for turn in turns if turn]
            exact = [] if name == "identity" else [f"known:map={name}"]  # the identity is known by the identity
            for shortcut in ("none", "identity", *exact, *known, f"linear:start={settings['start']}"):
                own = {"dataset": teacher, "depth": layers, "shortcut": shortcut}
                fields += [{**RECIPE, **order.base, **own, "seed": seed} for seed in order.seeds]
    return order.resolve(fields)


def _numbers(settings: Mapping[str, Any], key: str, kind: type) -> list[Any]:
    try:
        return [kind(item) for item in str(settings[key]).split()]
    except ValueError as error:
        raise SpecError(f"setting '{key}': write numbers with spaces between, not '{settings[key]}'") from error


def measure(run: RunFolder, dataset: Dataset, settings: Mapping[str, Any], device: torch.device) -> pd.DataFrame:
    """Return a row per kept snapshot: step, the columns of `resx.measurements.mapping`, and the targets' variance."""
    spec = run.spec
    matrix = linear_map(parse_part(spec.data.dataset)[1]["map"], dataset.n_outputs)
    network = build(spec.model, dataset.input_shape, dataset.n_outputs, spec.seed).eval()
    variance = float(dataset.train_y.double().var(unbiased=False))
    rows = []
    for step in run.snapshots():
        network.load_state_dict(run.load_weights(step))
        row = mapping(network, dataset.test_x[:INPUTS], matrix)
        rows.append(row.assign(step=step, variance=variance))
    return pd.concat(rows, ignore_index=True)


def judge(frames: Frames, settings: Mapping[str, Any]) -> Findings:
    """Judge the three criteria of this module's docstring on the frames runs and mapping."""
    runs = labelled(frames)
    measured = frames["mapping"].merge(runs[["run_id", "map", "layers", "arm", "seed"]], on="run_id")
    size = int(settings["d"])
    scores = runs.pivot_table(
        index="seed", columns=["map", "layers", "arm", "away"], values="score", aggfunc="first", dropna=False
    )
    pairs = runs[["map", "layers"]].drop_duplicates().sort_values(["layers", "map"])
    teachers = list(pairs.itertuples(index=False, name=None))
    gains: dict[str, pd.Series] = {}
    same: dict[str, pd.Series] = {}
    slopes: dict[str, pd.Series] = {}
    for name, layers in teachers:
        label = _teacher(name, layers)
        identity = _column(scores, name, layers, "identity", 0.0)
        true = identity if name == "identity" else _column(scores, name, layers, "R", 0.0)
        if name != "identity":
            (same if _is_invisible(name, layers, size) else gains)[label] = identity - true
        angles = sorted(runs.loc[runs["arm"] == "turned", "away"].unique())
        turned = {angle: _column(scores, name, layers, "turned", angle) for angle in angles}
        slopes[label] = _slopes(pd.DataFrame({0.0: true, **turned}))
    learned = _learned(measured)
    finds = {
        _teacher(name, layers): float(settings["near"]) - group.set_index("seed")["end"]
        for (layers, name), group in learned.groupby(["layers", "map"])
        if name != "identity"
    }
    margin = float(settings["margin"])
    verdicts = [
        _verdict(
            "Knowing R helps where R is not the identity (and neither is Rᴸ)",
            "identity − R (log10 loss) above 0 for every such map",
            gains,
        ),
        _equal(
            "Knowing R does not help where Rᴸ is the identity",
            f"identity − R (log10 loss) within ±{margin:g} (90 % interval) where R ≠ I but Rᴸ = I",
            same,
            margin,
        ),
        _verdict(
            "The benefit of a shortcut falls with its angle from R",
            "slope of log10 loss over the angle, per 90°, above 0 for every map",
            slopes,
        ),
        _verdict(
            "A learned map finds R",
            f"{settings['near']:g} − final distance of the product of learned maps from Rᴸ above 0 for every R ≠ I",
            finds,
        ),
    ]
    verdicts = [verdict for verdict in verdicts if verdict.estimates]
    tables = {"loss": _loss_table(runs), "residual": _residual_table(measured), "learned": _learned_table(learned)}
    return Findings(tables, verdicts, _answer(verdicts, learned, runs))


def _column(scores: pd.DataFrame, *key: Any) -> pd.Series:
    return scores[key] if key in scores.columns else pd.Series(np.nan, index=scores.index)


def _is_invisible(name: str, layers: int, size: int) -> bool:
    """Return whether Rᴸ is the identity, so that identity shortcuts can hold the teacher as well as R itself."""
    power = np.linalg.matrix_power(linear_map(name, size).numpy(), layers)
    return bool(np.linalg.norm(power - np.eye(size)) < SAME * size)


def _slopes(scores: pd.DataFrame) -> pd.Series:
    """Return the least-squares slope per 90° of each row of scores, a row per seed and a column per angle (degrees)."""
    angles = scores.columns.to_numpy(dtype=float)
    centred = (angles - angles.mean()) / 90
    if not centred.any():
        return pd.Series(dtype=float)
    return pd.Series(scores.to_numpy() @ centred / (centred @ centred), index=scores.index)


def _verdict(hypothesis: str, criterion: str, effects: Mapping[str, pd.Series]) -> Verdict:
    """Judge effects that are all expected above 0: supported if each is, refuted if one is significantly not."""
    found = list(estimates(effects).values())
    return Verdict(hypothesis, criterion, found, overall([stats.word(estimate, 1) for estimate in found]))


def overall(words: Sequence[stats.Word]) -> stats.Word:
    """Return the word for a hypothesis about all of several effects from the words of each."""
    if "refuted" in words:
        return "refuted"
    return words[0] if words and len(set(words)) == 1 else "inconclusive"


def _equal(hypothesis: str, criterion: str, effects: Mapping[str, pd.Series], margin: float) -> Verdict:
    found = estimates(effects)
    words = []
    for name, estimate in found.items():
        narrow = stats.t_interval(effects[name].dropna().to_numpy(), confidence=0.9)
        words.append(stats.word(estimate, 0, equivalent=narrow.low > -margin and narrow.high < margin))
    return Verdict(hypothesis, criterion, list(found.values()), overall(words))


def _learned(measured: pd.DataFrame) -> pd.DataFrame:
    """Return a row per run with a learned map, all distances relative.

    start, end: of the product from Rᴸ. each: of each map from R at the end. odd: of the product of the layers' odd
    parts from Rᴸ at the end. halved: the first kept step at which `start` is halved.
    """
    rows = []
    own = measured[measured["arm"] == "learned"]
    for (name, layers, seed), group in own.groupby(["map", "layers", "seed"], sort=False):
        ordered = group.sort_values("step")
        start, end = ordered["composed"].iloc[0], ordered["composed"].iloc[-1]
        halved = ordered.loc[ordered["composed"] <= start / 2, "step"] if start > SAME else pd.Series(dtype=float)
        rows.append(
            {
                "map": name,
                "layers": layers,
                "seed": seed,
                "start": start,
                "end": end,
                "each": ordered["distance"].iloc[-1],
                "odd": ordered["odd"].iloc[-1],
                "halved": halved.iloc[0] if len(halved) else np.nan,
            }
        )
    return pd.DataFrame(rows, columns=["map", "layers", "seed", "start", "end", "each", "odd", "halved"])


def _arm_names(runs: pd.DataFrame) -> pd.Series:
    return runs["arm"].where(runs["arm"] != "turned", "R+" + runs["away"].map("{:g}°".format))


def _loss_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Return mean log10 relative losses, a row per teacher, a column per student; and how many runs diverged."""
    named = runs.assign(arm=_arm_names(runs)).sort_values(["layers", "away"], kind="stable")
    columns = [*ARMS, *dict.fromkeys(named.loc[runs["arm"] == "turned", "arm"])]
    table = named.pivot_table(index=["layers", "map"], columns="arm", values="score", dropna=False)
    table = table.reindex(columns=columns).round(2)
    lost = (runs["status"] == "diverged").groupby([runs["layers"], runs["map"]]).sum()
    return _by_teacher(table.assign(diverged=lost) if lost.any() else table)


def _by_teacher(table: pd.DataFrame) -> pd.DataFrame:
    """Turn an index of layers and map into one first column, `teacher`."""
    names = [_teacher(name, layers) for layers, name in table.index]
    return table.set_axis(pd.Index(names, name="teacher")).reset_index()


def _teacher(name: Any, layers: Any) -> str:
    return f"{name}, L={layers}"


def _residual_table(measured: pd.DataFrame) -> pd.DataFrame:
    """Return the branch's mean share of a block's output after training, a row per teacher, a column per student."""
    last = measured[measured["step"] == measured.groupby("run_id")["step"].transform("max")]
    last = last[last["arm"] != "turned"]
    table = last.pivot_table(index=["layers", "map"], columns="arm", values="residual")
    return _by_teacher(table.reindex(columns=ARMS).round(3))


def _learned_table(learned: pd.DataFrame) -> pd.DataFrame:
    """Return, per teacher, means over seeds of `_learned`, and how many seeds never halved the distance."""
    grouped = learned.groupby(["layers", "map"])
    table = grouped[["start", "end", "each", "odd", "halved"]].mean().round(3)
    table["never"] = grouped["halved"].apply(lambda steps: int(steps.isna().sum()))
    return _by_teacher(table)


def _answer(verdicts: list[Verdict], learned: pd.DataFrame, runs: pd.DataFrame) -> str:
    seeds = runs["seed"].nunique()
    sentences = []
    for verdict in verdicts:
        means = [estimate.mean for estimate in verdict.estimates]
        above = sum(mean > 0 for mean in means)
        low, high = np.nanmin(means), np.nanmax(means)
        found = f"{above} of {len(means)} means above 0, from {low:+.2f} to {high:+.2f}"
        sentences.append(f"{verdict.hypothesis}: {verdict.word} ({found}).")
    far = learned[learned["map"] != "identity"].groupby(["map", "layers"], sort=False)["end"].mean()
    if len(far):
        ordered = far.sort_values()
        best, worst = (_teacher(*key) for key in (ordered.index[0], ordered.index[-1]))
        sentences.append(
            f"Learned maps end nearest for {best} (relative distance {far.min():.2f}) and farthest for {worst} "
            f"({far.max():.2f}); the table also says how near the whole layers come, branches included (odd part)."
        )
    sentences.append(
        f"Seeds: {seeds}. This is a teacher whose layers share one linear map and whose nonlinear part is small; it "
        "does not say that a trained network's layers have such a map, nor which one."
    )
    return " ".join(sentences)


STUDY = Study(
    plan=plan,
    judge=judge,
    figures=["mapping"],
    measures={"mapping": Measure(measure)},
    defaults={
        "title": "A shortcut that knows the map",
        "primary": "log10_train_loss",
        "maps": "identity negation scaling-0.8 permutation rotation-30 lowrank-8",
        "layers": "1 8",
        "away": "15 45 90",
        "eps": 0.1,
        "d": 16,
        "start": 1.0,
        "margin": 0.1,
        "near": 0.2,
    },
)
