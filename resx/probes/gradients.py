"""Gradients: do they vanish in deep plain networks, and do they shatter (He et al. 2016, section 4.1)?

Question. 'Vanishing gradients' is the usual story of why deep plain networks train badly. The paper doubts it: with
batch normalisation its plain networks had gradients with healthy norms. Yang et al. 2019 find that they then
explode at initialisation, by about ×1.21 a layer. Balduzzi et al. 2017 blame something else: in deep plain networks
the gradients of nearby inputs are unrelated ('shattered'), and with shortcuts they much less so.

Method. Plain and residual networks, with batch normalisation and without any, at two depths, on the same `inputs`
training images with batch statistics. At initialisation and at every kept step of training: the norm of the loss
gradient with respect to the stem's and each block's output, and the growth per layer on the way back to the input,
from a log-linear fit of the norm against the layer; the norms of the weights' gradients and the relative size of a
step. At the first and the last of them also the correlation of the gradients (of one output, with respect to the
input) of two inputs as a function of their distance along a line from one image towards another, over `lines`
lines; its summary is the distance, as a fraction of that between the two images, at which the correlation falls
below one half.

Networks without normalisation may diverge at this learning rate. They stay in the tables, and what they were at
initialisation is measured.

Primary outcomes. Growth per layer (%) at initialisation, plain, batch normalisation, greatest depth. The
interaction of log10 half-distance: what depth does to it in plain networks minus what depth does to it in residual
ones.

Criteria, fixed beforehand; t intervals over seeds, one joint sign-flip over all effects, at least 6 seeds:
vanishing is supported where the growth is below 0 % (smaller towards the input), refuted where it is above
(exploding), judged at initialisation and as the mean over the kept steps of training. Shattering is supported where
the interaction is below 0 (depth shortens the half-distance more in plain networks), refuted above.

Settings. inputs: training images. lines: of them, how many lines start from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

from resx import paper
from resx.claims import estimates, phases, table_of, verdict, with_runs
from resx.data import Dataset
from resx.measurements.gradients import gradients, growth, half_distance, shattering
from resx.measurements.inputs import first_and_last, network_at, sample, without_blocks
from resx.probes.study import Findings, Frames, Measure, Order, Study, Verdict
from resx.spec import RunSpec
from resx.stats import Estimate
from resx.store.run import RunFolder
from resx.training.schedule import learning_rates

DISTANCES = [4.0**-power for power in range(12, -1, -1)]  # of the way from one image to another


def plan(order: Order) -> list[RunSpec]:
    """Plain and residual, with batch normalisation and without, depths 20 and 56."""
    return order.runs(depth=[20, 56], shortcut=["none", "identity"], norm=["batch", "none"])


def measure_gradients(
    run: RunFolder, dataset: Dataset, settings: Mapping[str, Any], device: torch.device
) -> pd.DataFrame:
    """Apply the probe to every kept step; adds `step`. The rate is that of the step that follows, without warm-up."""
    x, y = sample(run, dataset, device, settings["inputs"])
    frames = []
    for step in run.snapshots():
        lr = float(learning_rates(run.spec.train, min(step, run.spec.train.steps - 1), 1))
        network = network_at(run, dataset, device, step, len(x))
        frames.append(gradients(network, x, y, dataset.task, lr).assign(step=step))
    return pd.concat(frames, ignore_index=True)


def measure_shattering(
    run: RunFolder, dataset: Dataset, settings: Mapping[str, Any], device: torch.device
) -> pd.DataFrame:
    """Apply the probe to the first and the last kept step; adds `step`. float64, for the smallest distances."""
    x, _ = sample(run, dataset, device, settings["inputs"], torch.float64)
    frames = []
    for step in first_and_last(run):
        network = network_at(run, dataset, device, step, len(x), torch.float64)
        frames.append(shattering(network, x, DISTANCES, settings["lines"]).assign(step=step))
    return pd.concat(frames, ignore_index=True)


def judge(frames: Frames, settings: Mapping[str, Any]) -> Findings:
    """Judge growth per layer, and what depth does to the distance over which gradients are alike, paired by seed."""
    runs = frames["runs"]
    grown = growths(with_runs(frames["gradients"], runs))
    halves = half_distances(with_runs(frames["shattering"], runs))
    depths = sorted(grown["depth"].unique())
    shallow, deep = int(depths[0]), int(depths[-1])
    columns: dict[str, pd.Series] = {}
    for (kind, norm), group in grown[grown["depth"] == deep].groupby(["kind", "norm"], sort=False):
        network = network_name(kind, deep, norm)
        columns[f"{network}: growth per layer (%), initial"] = group[group["phase"] == "initial"].set_index("seed")[
            "growth"
        ]
        columns[f"{network}: growth per layer (%), training"] = group[group["phase"] == "training"].set_index("seed")[
            "growth"
        ]
    normed = halves[halves["norm"] == "batch"] if (halves["norm"] == "batch").any() else halves
    log_half = np.log10(normed.set_index(["phase", "kind", "depth", "seed"])["half"]).sort_index()
    for phase in ("initial", "trained"):
        by_network = {
            key: log_half.loc[(phase, *key)]
            for key in normed[["kind", "depth"]].itertuples(index=False, name=None)
            if (phase, *key) in log_half.index
        }
        columns |= _half_effects(by_network, shallow, deep, phase)
    found = estimates(columns)
    plain = network_name("plain", deep, "batch")
    residual = network_name("residual", deep, "batch")
    bare = network_name("plain", deep, "none")
    verdicts = []
    for phase, words in (("initial", "at initialisation"), ("training", "in training")):
        suffix = f"growth per layer (%), {phase}"
        verdicts += verdict(
            f"Gradients of {plain} vanish {words}",
            "growth per layer towards the input: supported below 0 % (vanishing), refuted above (exploding)",
            found,
            [f"{plain}: {suffix}", f"{residual}: {suffix}", f"{bare}: {suffix}"],
            -1,
        )
    for phase, words in (("initial", "at initialisation"), ("trained", "after training")):
        verdicts += verdict(
            f"Depth shatters gradients of plain networks more than those of residual ones {words}",
            "log10 half-distance, (plain deep − shallow) − (residual deep − shallow): supported below 0, refuted above",
            found,
            [interaction_name(shallow, deep, phase), difference_name(deep, phase)],
            -1,
        )
    tables = {"growth": growth_table(grown), "shattering": shattering_table(halves), "effects": table_of(found)}
    return Findings(tables, verdicts, _answer(verdicts, found, plain))


def network_name(kind: Any, depth: Any, norm: Any) -> str:
    """Return such as `plain-56` or `plain-56 without norm`."""
    return f"{kind}-{depth}" + (" without norm" if norm == "none" else "")


def interaction_name(shallow: int, deep: int, phase: str) -> str:
    return f"log10 half-distance, (plain-{deep} − {shallow}) − (residual-{deep} − {shallow}), {phase}"


def difference_name(depth: int, phase: str) -> str:
    return f"log10 half-distance, plain-{depth} − residual-{depth}, {phase}"


def _half_effects(
    values: Mapping[tuple[str, int], pd.Series], shallow: int, deep: int, phase: str
) -> dict[str, pd.Series]:
    effects = {}
    if {("plain", deep), ("residual", deep)} <= values.keys():
        difference = values["plain", deep] - values["residual", deep]
        effects[difference_name(deep, phase)] = difference
        if shallow < deep and {("plain", shallow), ("residual", shallow)} <= values.keys():
            at_shallow = values["plain", shallow] - values["residual", shallow]
            effects[interaction_name(shallow, deep, phase)] = difference - at_shallow
    return effects


def growths(rows: pd.DataFrame) -> pd.DataFrame:
    """Return, per run, phase `initial`, `training` (mean over kept steps after the first) and, of runs that finished,
    `trained`: growth and growth within stages (% per layer), and the gradient of the first place over the last."""
    kept = ["run_id", "kind", "depth", "norm", "seed", "status"]
    fits = []
    for key, group in rows[rows["quantity"] == "activation"].groupby([*kept, "step"], sort=False):
        factor, within = growth(group)
        norms = group.sort_values("layer")["value"]
        first, last = norms.iloc[0], norms.iloc[-1]
        fits.append([*key, 100 * (factor - 1), 100 * (within - 1), first / last if last else np.nan])
    fitted = pd.DataFrame(fits, columns=[*kept, "step", "growth", "within", "first_over_last"])
    following = fitted[(fitted["step"] > 0) & (fitted["status"] == "finished")]
    means = following.groupby(kept, sort=False)[["growth", "within", "first_over_last"]].mean().reset_index()
    return pd.concat([phases(fitted), means.assign(phase="training")], ignore_index=True)


def half_distances(rows: pd.DataFrame) -> pd.DataFrame:
    """Return, per run and phase, the distance at which the correlation falls below one half."""
    kept = ["run_id", "kind", "depth", "norm", "seed", "status", "phase"]
    found = [[*key, half_distance(group)] for key, group in phases(rows).groupby(kept, sort=False)]
    return pd.DataFrame(found, columns=[*kept, "half"])


def growth_table(grown: pd.DataFrame) -> pd.DataFrame:
    """Return a row per network: growth per layer (%) with its interval, initial and in training; diverged runs."""
    rows = []
    for (kind, depth, norm), group in grown.groupby(["kind", "depth", "norm"], sort=False):
        initial = group[group["phase"] == "initial"]
        spoilt = initial["status"] == "diverged"
        row: dict[str, Any] = {
            "network": network_name(kind, depth, norm),
            "seeds": len(initial),
            "diverged": int(spoilt.sum()),
        }
        for phase in ("initial", "training"):
            values = group[group["phase"] == phase]["growth"].dropna()
            one = estimates({phase: values}).get(phase)
            row[f"{phase} %"] = f"{one.mean:+.1f} ({one.interval})" if one else "–"
        row["within stages %"] = initial["within"].mean()
        row["first/last"] = initial["first_over_last"].median()
        rows.append(row)
    return pd.DataFrame(rows)


def shattering_table(halves: pd.DataFrame) -> pd.DataFrame:
    """Return a row per network: the half-distance (geometric mean over seeds) by phase."""
    logs = halves.assign(half=np.log10(halves["half"]))
    means = 10 ** logs.groupby(["kind", "depth", "norm", "phase"], sort=False)["half"].mean()
    table = means.unstack("phase").reset_index()
    names = [network_name(*key) for key in table[["kind", "depth", "norm"]].itertuples(index=False, name=None)]
    phases_there = [phase for phase in ("initial", "trained") if phase in table]
    return table[phases_there].rename(columns=lambda phase: f"half-distance, {phase}").assign(network=names)


def _answer(verdicts: list[Verdict], found: Mapping[str, Estimate], plain: str) -> str:
    lines = []
    for item in verdicts:
        mean = item.estimates[0].mean
        way = ("shrink" if mean < 0 else "grow") + " towards the input" if "vanish" in item.hypothesis else ""
        lines.append(f"{item.hypothesis}: {item.word} ({f'they {way}; ' if way else ''}{item.estimates[0]}).")
    published = paper.PLAIN_GRADIENT_FACTOR
    start = found.get(f"{plain}: growth per layer (%), initial")
    if start:
        lines.append(
            f"{published.source} [{published.mark}] report about {100 * (published.value - 1):.0f} % a layer for plain "
            f"networks with batch normalisation at initialisation (very wide ones); here it is {start.mean:+.1f} %."
        )
    lines.append(
        "Norms that do not vanish rule out one explanation, for these networks and this initialisation. That gradients "
        "shatter more goes together with depth and with missing shortcuts; that this makes training bad is not shown."
    )
    return " ".join(lines)


STUDY = Study(
    plan=plan,
    judge=judge,
    figures=("gradients",),
    measures={
        "gradients": Measure(measure_gradients, without_blocks, keys=("inputs",), diverged=True),
        "shattering": Measure(measure_shattering, without_blocks, keys=("inputs", "lines"), diverged=True),
    },
    defaults={"inputs": 64, "lines": 32},
)
