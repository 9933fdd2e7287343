"""Construct: a deep plain network that is as good as a shallow one exists; does training find it?

Question. He et al. 2016 (section 1) argue that degradation cannot be a lack of capacity: a deeper network could copy
the shallower one and let the added layers be identities. So its training error need not be higher, and if training ends
higher, it is optimisation that failed. The argument is an existence proof on paper; here the network is built.

Method. A plain network of `shallow` layers is trained for T steps. Into each of its stages blocks are inserted that
compute the identity (Dirac kernels; what enters them is not negative; each new batch normalisation has the mean and
variance of the training images there as running statistics, and undoes them with its bias and gain), until it has
`deep` layers. Its outputs on all training images are compared with the shallow network's, in float64 and in the
float32 in which it is trained, in eval mode and in training mode. In training mode statistics come from each batch, so
the new blocks are only nearly identities.

Arms, 2T steps each, every one as two runs of T: plain `shallow` for 2T; plain `shallow` for T, then the constructed
plain `deep` for T; plain `deep` for 2T. All second runs are alike: momentum starts at zero, the batches come in the
same order again, and the schedule starts again from `restart` times the first run's rate. The default, 1, repeats the
recipe; it is the choice that favours the deep network trained from scratch, and puts the constructed one at risk.

Primary outcome. The final training error (points), plain `deep` for 2T minus constructed. Beside it log10 of the final
training loss, since errors may sit at 0 %.

Criteria, fixed beforehand. The network exists: in every run the outputs of the two differ by at most 1e-9 in float64 in
eval mode (a fact about each network built; it needs no statistics). Training does not find it: the
primary outcome is above 0 (one joint sign-flip over all effects, at least 6 seeds; refuted below 0). The constructed
network stays as good as the shallow one: log10 training loss, constructed minus shallow for 2T: refuted above 0,
supported below 0 (better).

Settings. shallow, deep, restart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch

from resx import model, stats
from resx.claims import estimates, table_of, verdict
from resx.data import Dataset
from resx.data.batches import Batches
from resx.figures.construct import CONSTRUCTED, DEEP, SHALLOW, arms
from resx.measurements.construct import compare
from resx.probes.study import Findings, Frames, Measure, Order, Study, Verdict
from resx.spec import RunSpec, SpecError
from resx.stats import Estimate
from resx.store.run import RunFolder, read_run
from resx.training.evaluate import EVAL_BATCH
from resx.training.initial import TRANSFORMS

EXACT = 1e-9  # largest difference of outputs that counts as none, in float64
ARMS = {SHALLOW: "plain-{0} for 2T", CONSTRUCTED: "plain-{0}, then constructed plain-{1}", DEEP: "plain-{1} for 2T"}


def plan(order: Order) -> list[RunSpec]:
    """First halves: plain at both depths. Second halves: both again, and the constructed network.

    Raises SpecError for a shortcut, a depth or an order that the construction cannot have.
    """
    settings = order.settings
    if "depth" in order.base or "depth" in order.grid:
        raise SpecError("construct: choose its two depths with --set shallow=20 and --set deep=56")
    if order.base.get("shortcut", "none") != "none" or order.base.get("order", "post") != "post":
        raise SpecError("construct: is about plain networks in the original order; leave shortcut and order out")
    if settings["restart"] <= 0 or settings["deep"] <= settings["shallow"]:
        raise SpecError("construct: restart must be above 0, and deep above shallow")
    base = {**order.base, "shortcut": "none"}
    cells = [{**base, "seed": seed} for seed in order.seeds]
    shallow = order.resolve([{**cell, "depth": settings["shallow"]} for cell in cells])
    deep = order.resolve([{**cell, "depth": settings["deep"]} for cell in cells])

    def again(parents: list[RunSpec], depth: int, transform: str) -> list[RunSpec]:
        return order.resolve(
            [
                {
                    **cell,
                    "depth": depth,
                    "lr": settings["restart"] * parent.train.lr,
                    "init_from": {"run": parent.run_id, "transform": transform},
                }
                for cell, parent in zip(cells, parents, strict=True)
            ]
        )

    return [
        *shallow,
        *deep,
        *again(shallow, settings["shallow"], "same"),
        *again(shallow, settings["deep"], "deepen"),
        *again(deep, settings["deep"], "same"),
    ]


def measure(run: RunFolder, dataset: Dataset, settings: Mapping[str, Any], device: torch.device) -> pd.DataFrame:
    """Build the network again from its parent, in float64, and compare the two on all training images."""
    assert run.spec.init_from is not None
    parent_run = read_run(run.path.parent / run.spec.init_from.run)
    batches = Batches(dataset, run.spec.data, run.spec.train.batch_size, run.spec.seed, device)
    shape = (dataset.input_shape, dataset.n_outputs)
    parent = model.build(parent_run.spec.model, *shape, parent_run.spec.seed)
    parent.load_state_dict(parent_run.load_weights())
    parent = parent.to(batches.device).eval()
    exact, rounded = (model.build(run.spec.model, *shape, run.spec.seed).to(batches.device) for _ in range(2))
    exact = exact.to(torch.float64)
    exact.load_state_dict(TRANSFORMS["deepen"](parent, exact, batches))
    rounded.load_state_dict(run.load_weights(0))
    in_full = (part for part in batches.evaluation("train", None, batches.batch_size) if len(part[0]) > 1)
    return compare(parent, exact, rounded, batches.evaluation("train", None, EVAL_BATCH), in_full, dataset.task)


def judge(frames: Frames, settings: Mapping[str, Any]) -> Findings:
    """Say whether the constructed network is the shallow one, and compare the arms, paired by seed."""
    shallow, deep = settings["shallow"], settings["deep"]
    arm = arms(frames["runs"])
    names = {name: text.format(shallow, deep) for name, text in ARMS.items()}
    last = frames["runs"].assign(arm=arm).dropna(subset=["arm"])
    done = last[last["status"] == "finished"].assign(log10_train_loss=lambda t: stats.log10_loss(t["train_loss"]))

    def outcome(name: str, column: str) -> pd.Series:
        found: pd.Series = done[done["arm"] == name].set_index("seed")[column]
        return found

    wording = {"train_error": "training error", "log10_train_loss": "log10 training loss", "test_error": "test error"}
    columns = {}
    for column, words in wording.items():
        columns[f"{words}, plain-{deep} 2T − constructed"] = outcome(DEEP, column) - outcome(CONSTRUCTED, column)
        columns[f"{words}, constructed − plain-{shallow} 2T"] = outcome(CONSTRUCTED, column) - outcome(SHALLOW, column)
    found = estimates(columns)
    verdicts = []
    identity = frames["construct"].merge(frames["runs"][["run_id", "seed"]], on="run_id")
    largest = identity[(identity["mode"] == "eval") & (identity["precision"] == "float64")].set_index("seed")[
        "max_difference"
    ]
    if len(largest):
        fact = Estimate(
            f"largest |Δ output| in {len(largest)} networks, all training images",
            float(largest.max()),
            float("nan"),
            float("nan"),
            len(largest),
        )
        verdicts.append(
            Verdict(
                f"A plain network of {deep} layers that puts out the same as a trained one of {shallow} exists",
                f"every |Δ output| ≤ {EXACT:g} in float64, eval mode: supported, else refuted; no statistics involved",
                [fact],
                "supported" if fact.mean <= EXACT else "refuted",
            )
        )
    verdicts += verdict(
        "Training does not find a network as good: degradation is a failure of optimisation",
        f"final training error (points), plain-{deep} for 2T minus constructed: supported above 0, refuted below",
        found,
        [f"{words}, plain-{deep} 2T − constructed" for words in wording.values()],
        +1,
    )
    verdicts += verdict(
        "Trained on, the constructed network gets better than the shallow one",
        f"log10 training loss, constructed minus plain-{shallow} for 2T: supported below 0, refuted above",
        found,
        [f"{words}, constructed − plain-{shallow} 2T" for words in ("log10 training loss", "training error")],
        -1,
    )
    shown = [
        {
            "arm": names[name],
            "seed": row["seed"],
            "status": row["status"],
            **{column: row[column] for column in ("train_error", "train_loss", "test_error")},
        }
        for name in ARMS
        for _, row in last[last["arm"] == name].sort_values("seed").iterrows()
    ]
    kept = ["mode", "precision", "seed", "max_difference", "mean_difference", "scale", "changed"]
    tables = {
        "arms": pd.DataFrame(shown),
        "identity": identity[kept].sort_values(["mode", "precision", "seed"]),
        "effects": table_of(found),
    }
    return Findings(tables, verdicts, _answer(verdicts, identity, settings))


def _answer(verdicts: list[Verdict], identity: pd.DataFrame, settings: Mapping[str, Any]) -> str:
    text = " ".join(
        f"{item.hypothesis}: {item.word} ({item.estimates[0].name}: {item.estimates[0].mean:.3g})." for item in verdicts
    )
    trained = identity[(identity["mode"] == "training") & (identity["precision"] == "float32")]
    if len(trained):
        text += (
            f" In training mode the constructed network's outputs differ from the shallow one's by "
            f"{trained['mean_difference'].mean():.2g} on average (outputs are about {trained['scale'].mean():.2g} "
            f"in size) and {trained['changed'].mean():.2g} % of the predictions change."
        )
    return (
        f"{text} Every arm is two runs of T steps, the second from {settings['restart']:g} times the rate, so they are "
        "alike in steps and schedule. That a solution exists and is not found shows that the difficulty lies in "
        "optimisation; it does not show which part of it (gradients, curvature, initialisation) is to blame, nor that "
        "this solution could be found from random weights at all."
    )


STUDY = Study(
    plan=plan,
    judge=judge,
    figures=("construct",),
    measures={
        "construct": Measure(
            measure,
            wants=lambda spec, settings: spec.init_from is not None and spec.init_from.transform == "deepen",
        )
    },
    defaults={"shallow": 20, "deep": 56, "restart": 1.0},
)
