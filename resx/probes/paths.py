"""Paths: through how many blocks does the gradient of a residual network come (Veit et al. 2016)?

Question. A residual network of n blocks is a sum over 2^n paths, which take the branch of k blocks and the shortcut
of the others. Veit et al. argue that it therefore behaves like an ensemble of many relatively shallow networks,
since almost all of the gradient comes through short paths (5 to 17 of 54 blocks). Their estimate multiplies the
mean gradient norm of one path by the number of paths, as if gradients of different paths never cancelled.

Method. At initialisation and after training, with the activation pattern of a forward pass over `inputs` training
images fixed (batch statistics, float64), one gradient per path length is carried back through the blocks, to the
stem's output. Their sum is the whole gradient, up to rounding (`residue`). Per length k: the share ⟨g_k, Σg⟩/‖Σg‖²,
signed, summing to 1; the norm ‖g_k‖; beside them the estimate of Veit et al. from `samples` paths of each length,
and the binomial share of paths of that length. 'half' is the smallest k from which the cumulative share stays above
one half; the binomial's middle is n/2. Cancellation is Σ‖g_k‖/‖Σg‖, 1 where there is none.

Only for residual networks whose shortcut is linear in x alone: a plain network has one path, a gate has no path
lengths.

Primary outcome. half/n − 1/2 after training at the greatest depth: how far the gradient's middle lies below that of
all paths.

Criteria, fixed beforehand; t intervals over seeds, one joint sign-flip over all effects, at least 6 seeds. Short
paths carry the gradient: supported where half/n − 1/2 is below 0, refuted above. Depth adds paths that carry
little: supported where half/n falls from the shallow to the deep network, refuted where it rises. Both say where
the gradient comes from, not that the network is an ensemble; for that, see lesions.

Settings. inputs: training images. samples: paths drawn per length for the estimate of Veit et al.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch

from resx import paper
from resx.claims import estimates, phases, table_of, verdict, with_runs
from resx.data import Dataset
from resx.measurements.inputs import first_and_last, network_at, sample, without_blocks
from resx.measurements.paths import paths, summarise, unfit
from resx.model import SHORTCUTS
from resx.probes.study import Findings, Frames, Measure, Order, Study, Verdict
from resx.spec import RunSpec
from resx.store.run import RunFolder

TRIAL_CHANNELS = 4  # of the shortcut that is tried out; linearity does not depend on them


def plan(order: Order) -> list[RunSpec]:
    """Residual networks of depths 20 and 56."""
    return order.runs(depth=[20, 56], shortcut=["identity"])


def refuses(spec: RunSpec) -> str | None:
    """Say why a run has no paths of different lengths, or return None."""
    reason = without_blocks(spec)
    if reason:
        return reason
    with torch.random.fork_rng(devices=[]):
        return unfit(SHORTCUTS.create(spec.model.shortcut, TRIAL_CHANNELS), TRIAL_CHANNELS)


def measure(run: RunFolder, dataset: Dataset, settings: Mapping[str, Any], device: torch.device) -> pd.DataFrame:
    """Apply the probe to the first and the last weights; adds `step`."""
    x, y = sample(run, dataset, device, settings["inputs"], torch.float64)
    frames = []
    for step in first_and_last(run):
        network = network_at(run, dataset, device, step, len(x), torch.float64)
        frames.append(paths(network, x, y, dataset.task, settings["samples"], run.spec.seed).assign(step=step))
    return pd.concat(frames, ignore_index=True)


def judge(frames: Frames, settings: Mapping[str, Any]) -> Findings:
    """Judge where the gradient's middle lies, against that of all paths and over depth, paired by seed."""
    rows = lengths(phases(with_runs(frames["paths"], frames["runs"])))
    depths = sorted(rows["depth"].unique())
    shallow, deep = int(depths[0]), int(depths[-1])
    kind = "residual" if (rows["kind"] == "residual").any() else str(rows["kind"].iloc[0])
    index = pd.MultiIndex.from_frame(rows[["kind", "phase", "depth", "seed"]])
    relative = (rows["half"] / rows["n"]).set_axis(index).sort_index()

    def outcome(phase: str, depth: int) -> pd.Series:
        there = (kind, phase, depth) in relative.index
        return relative.loc[(kind, phase, depth)] if there else pd.Series(dtype=float)

    columns: dict[str, pd.Series] = {}
    for phase in ("trained", "initial"):
        for depth in depths:
            columns[f"half/n − 1/2, {kind}-{depth}, {phase}"] = outcome(phase, depth) - 0.5
        if shallow < deep:
            columns[f"half/n, {kind}-{deep} − {kind}-{shallow}, {phase}"] = outcome(phase, deep) - outcome(
                phase, shallow
            )
    columns[f"half/n, {kind}-{deep}, trained − initial"] = outcome("trained", deep) - outcome("initial", deep)
    found = estimates(columns)
    verdicts = [
        *verdict(
            f"The gradient of {kind}-{deep} comes through paths shorter than the middle of all paths",
            "half/n − 1/2 after training: supported below 0, refuted above",
            found,
            [f"half/n − 1/2, {kind}-{deep}, {phase}" for phase in ("trained", "initial")],
            -1,
        ),
        *verdict(
            "Depth adds paths that carry little of the gradient",
            "half/n, deep minus shallow, after training: supported below 0, refuted above",
            found,
            [f"half/n, {kind}-{deep} − {kind}-{shallow}, {phase}" for phase in ("trained", "initial")],
            -1,
        ),
    ]
    measured = ["n", "half", "middle", "low", "high", "paths", "cancellation"]
    means = rows.groupby(["kind", "depth", "phase"], sort=False)[measured].mean()
    means.insert(0, "seeds", rows.groupby(["kind", "depth", "phase"], sort=False).size())
    means = means.reset_index()
    return Findings({"paths": _table(means), "effects": table_of(found)}, verdicts, _answer(means, verdicts))


def _table(means: pd.DataFrame) -> pd.DataFrame:
    """Return the means over seeds under names that a reader can do without this file."""
    return pd.DataFrame(
        {
            "network": means["kind"] + "-" + means["depth"].astype(str),
            "phase": means["phase"],
            "seeds": means["seeds"],
            "n/2": means["n"] / 2,
            "half": means["half"],
            "sampled": means["middle"],
            "95 % from": means["low"],
            "to": means["high"],
            "% of paths": means["paths"].round(1),
            "cancels": means["cancellation"].round(2),
        }
    )


def lengths(rows: pd.DataFrame) -> pd.DataFrame:
    """Return, per run and phase, what its path lengths amount to (resx.measurements.paths.Lengths)."""
    kept = ["run_id", "kind", "depth", "norm", "seed", "phase"]
    found = [
        {**dict(zip(kept, key, strict=True)), **vars(summarise(group))} for key, group in rows.groupby(kept, sort=False)
    ]
    return pd.DataFrame(found)


def _answer(table: pd.DataFrame, verdicts: list[Verdict]) -> str:
    lines = [
        f"{row['kind']}-{row['depth']}, {row['phase']}: half of the gradient comes through paths of at most "
        f"{row['half']:.1f} of {row['n']:.0f} blocks (middle of all paths: {row['n'] / 2:g}); the sampled estimate has "
        f"its middle at {row['middle']:.1f} and 95 % of its weight at {row['low']:.1f} to {row['high']:.1f}, lengths "
        f"that {row['paths']:.2g} % of all paths do not exceed; Σ‖g_k‖ is {row['cancellation']:.1f} times ‖Σg‖."
        for row in table.to_dict("records")
    ]
    words = "; ".join(f"{item.hypothesis}: {item.word}" for item in verdicts)
    low, high = paper.VEIT_EFFECTIVE_LENGTHS
    return (
        f"{' '.join(lines)} In words: {words}. {paper.VEIT_MODULES.source} [{paper.VEIT_MODULES.mark}] report {low} to "
        f"{high} of {paper.VEIT_MODULES.value:.0f} blocks, {paper.VEIT_EFFECTIVE_SHARE.value} % of all paths, for a "
        "trained ResNet-110 on CIFAR-10. This tells through how many blocks the gradient comes. The paths share their "
        "weights and their activation pattern, so it does not by itself make the network an ensemble of shallow ones."
    )


STUDY = Study(
    plan=plan,
    judge=judge,
    figures=("paths",),
    measures={"paths": Measure(measure, refuses, keys=("inputs", "samples"))},
    defaults={"inputs": 64, "samples": 16},
)
