"""Responses: do residual branches put out less than plain layers, and is that learned (He et al. 2016, Fig. 7)?

Question. The paper argues that residual functions are generally closer to zero than non-residual ones, since the
responses of a ResNet's layers are smaller than those of a plain network and get smaller with depth. Responses are
the outputs of the 3×3 layers after batch normalisation, before the ReLU or the addition. If the smallness is there
at initialisation, it is not learned.

Method. The weights at initialisation and after training, batch statistics on the same `inputs` training images. Per
layer the standard deviation of the response over images, channels and positions; per residual block the size of
what it adds, ‖F(x)‖ / ‖x‖, and the cosine between F(x) and x. After batch normalisation with gain 1 and bias 0
every response has a standard deviation of exactly 1, in both kinds of network: at initialisation Fig. 7 is flat by
construction, so what it shows after training is learned; ‖F(x)‖ / ‖x‖ has no such reason to be equal.

Primary outcome. The mean response over layers after training, residual minus plain, at the greatest depth.

Criteria, fixed beforehand; t intervals over seeds, one joint sign-flip over all effects, at least 6 seeds: residual
layers respond less than plain ones (supported below 0, refuted above); layers of deeper residual networks respond
less; ‖F(x)‖ / ‖x‖ falls in training (log10, trained minus initial, below 0: learned; above: not); it is smaller in
deeper networks at initialisation already (De & Smith 2020: batch normalisation downscales branches by about
√depth).

Settings. inputs: how many training images are looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

from resx.claims import estimates, phases, table_of, verdict, with_runs
from resx.data import Dataset
from resx.measurements.inputs import first_and_last, network_at, sample, without_blocks
from resx.measurements.responses import responses
from resx.probes.study import Findings, Frames, Measure, Order, Study
from resx.spec import RunSpec
from resx.store.run import RunFolder


def plan(order: Order) -> list[RunSpec]:
    """Plain and residual, depths 20 and 56."""
    return order.runs(depth=[20, 56], shortcut=["none", "identity"])


def measure(run: RunFolder, dataset: Dataset, settings: Mapping[str, Any], device: torch.device) -> pd.DataFrame:
    """Apply the probe to a run's first and last weights; adds `step`."""
    x, _ = sample(run, dataset, device, settings["inputs"])
    frames = [
        responses(network_at(run, dataset, device, step, len(x)), x).assign(step=step) for step in first_and_last(run)
    ]
    return pd.concat(frames, ignore_index=True)


def judge(frames: Frames, settings: Mapping[str, Any]) -> Findings:
    """Compare mean responses of networks and phases, paired by seed."""
    rows = phases(with_runs(frames["responses"], frames["runs"]))
    means = rows.groupby(["kind", "depth", "phase", "seed", "quantity"], sort=False)["value"].mean()
    table = means.unstack("quantity").reindex(columns=["std", "ratio", "cosine"])
    shown = table.groupby(["kind", "depth", "phase"], sort=False).mean()
    shown.insert(0, "seeds", table.groupby(["kind", "depth", "phase"], sort=False).size())

    def outcome(kind: str, depth: int, phase: str, quantity: str) -> pd.Series:
        if (kind, depth, phase) not in table.index:
            return pd.Series(dtype=float)
        values = table[quantity].loc[(kind, depth, phase)]
        return np.log10(values) if quantity == "ratio" else values

    depths = sorted(rows["depth"].unique())
    shallow, deep = int(depths[0]), int(depths[-1])
    names = {
        "less": f"std, residual-{deep} − plain-{deep}, trained",
        "less initially": f"std, residual-{deep} − plain-{deep}, initial",
        "less shallow": f"std, residual-{shallow} − plain-{shallow}, trained",
        "deeper": f"std, residual-{deep} − residual-{shallow}, trained",
        "plain deeper": f"std, plain-{deep} − plain-{shallow}, trained",
        "learned": f"log10 ‖F‖/‖x‖, residual-{deep}, trained − initial",
        "learned shallow": f"log10 ‖F‖/‖x‖, residual-{shallow}, trained − initial",
        "by depth": f"log10 ‖F‖/‖x‖, residual-{deep} − residual-{shallow}, initial",
    }

    def between(kind: str, other: str, depth: int, phase: str) -> pd.Series:
        return outcome(kind, depth, phase, "std") - outcome(other, depth, phase, "std")

    def over_depth(kind: str, phase: str, quantity: str) -> pd.Series:
        return outcome(kind, deep, phase, quantity) - outcome(kind, shallow, phase, quantity)

    def over_training(depth: int) -> pd.Series:
        return outcome("residual", depth, "trained", "ratio") - outcome("residual", depth, "initial", "ratio")

    columns = {"less": between("residual", "plain", deep, "trained"), "learned": over_training(deep)}
    columns["less initially"] = between("residual", "plain", deep, "initial")
    if shallow < deep:
        columns |= {
            "less shallow": between("residual", "plain", shallow, "trained"),
            "deeper": over_depth("residual", "trained", "std"),
            "plain deeper": over_depth("plain", "trained", "std"),
            "learned shallow": over_training(shallow),
            "by depth": over_depth("residual", "initial", "ratio"),
        }
    found = estimates({names[key]: values for key, values in columns.items()})
    verdicts = [
        *verdict(
            f"Residual layers respond less than plain ones after training ({deep} layers; Fig. 7)",
            "mean response over layers, residual minus plain: supported below 0, refuted above",
            found,
            [names["less"], names["less shallow"], names["less initially"]],
            -1,
        ),
        *verdict(
            "Layers of deeper residual networks respond less (Fig. 7)",
            "mean response over layers, deep minus shallow residual network, trained: supported below 0, refuted above",
            found,
            [names["deeper"], names["plain deeper"]],
            -1,
        ),
        *verdict(
            "That F(x) is small beside x is learned",
            "log10 ‖F(x)‖/‖x‖, trained minus initial: supported below 0 (it shrinks), refuted above (it grows)",
            found,
            [names["learned"], names["learned shallow"]],
            -1,
        ),
        *verdict(
            "F(x) is smaller beside x in deeper networks at initialisation already (De & Smith 2020)",
            "log10 ‖F(x)‖/‖x‖, deep minus shallow residual network, initial: supported below 0, refuted above",
            found,
            [names["by depth"]],
            -1,
        ),
    ]
    return Findings({"responses": shown.reset_index(), "effects": table_of(found)}, verdicts, _answer(shown, verdicts))


def _answer(shown: pd.DataFrame, verdicts: list[Any]) -> str:
    lines = []
    for (kind, depth), group in shown.groupby(level=["kind", "depth"], sort=False):
        by_phase = group.droplevel(["kind", "depth"])
        if not {"initial", "trained"} <= set(by_phase.index):
            continue
        start, end = by_phase.loc["initial"], by_phase.loc["trained"]
        text = f"{kind}-{depth}: mean response {start['std']:.2f} at initialisation, {end['std']:.2f} after training"
        if np.isfinite(start["ratio"]):
            text += f"; what a block adds is {start['ratio']:.2f} and {end['ratio']:.2f} of its input"
        lines.append(text)
    words = "; ".join(f"'{item.hypothesis}': {item.word}" for item in verdicts)
    return (
        f"{'. '.join(lines)}. In words: {words}. At initialisation batch normalisation makes all "
        "responses 1, in plain and residual networks alike; this says nothing about the functions. A small response "
        "after training shows that blocks change their input little. It does not show that this is why they train well."
    )


STUDY = Study(
    plan=plan,
    judge=judge,
    figures=("responses",),
    measures={"responses": Measure(measure, without_blocks, keys=("inputs",))},
    defaults={"inputs": 64},
)
