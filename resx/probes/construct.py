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

Primary outcome. The final training error (points), plain `deep` for 2T minus constructed. With it log10 of the final
training loss, since errors may sit at 0 %.

The network exists where in every run the outputs of the two differ by at most 1e-9 in float64 in eval mode: a fact
about each network built, which needs no statistics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
from pydantic import Field

from resx.claims import AtMost, Claim, contrast
from resx.probes import Findings, Frames, Measure, Probe, Request, Settings
from resx.probes.tidy import OUTCOMES, outcomes
from resx.spec import RunSpec, SpecError

if TYPE_CHECKING:
    from resx.measurements.inputs import Specimen

EXACT = 1e-9  # largest difference of outputs that counts as none, in float64
SHALLOW, CONSTRUCTED, DEEP = "shallow", "constructed", "deep"
NAMES = {
    SHALLOW: "plain-{shallow} for 2T",
    CONSTRUCTED: "plain-{shallow}, then constructed plain-{deep}",
    DEEP: "plain-{deep} for 2T",
}


class ConstructSettings(Settings):
    """shallow, deep: layers. restart: rate of the second halves, as a multiple of the first ones'."""

    shallow: int = Field(20, ge=1)
    deep: int = Field(56, ge=1)
    restart: float = Field(1.0, gt=0)


def plan(request: Request) -> list[RunSpec]:
    """First halves: plain at both depths. Second halves: both again, and the constructed network.

    Raises SpecError for a shortcut, a depth or an order that the construction cannot have.
    """
    settings = request.settings
    if "depth" in request.base or "depth" in request.grid:
        raise SpecError("construct: choose its two depths with --set shallow=20 and --set deep=56")
    if request.base.get("shortcut", "none") != "none" or request.base.get("order", "post") != "post":
        raise SpecError("construct: is about plain networks in the original order; leave shortcut and order out")
    if settings.deep <= settings.shallow:
        raise SpecError("construct: deep must be above shallow")
    cells = [{**request.base, "shortcut": "none", "seed": seed} for seed in request.seeds]
    shallow = request.resolve([{**cell, "depth": settings.shallow} for cell in cells])
    deep = request.resolve([{**cell, "depth": settings.deep} for cell in cells])

    def again(parents: list[RunSpec], depth: int, transform: str) -> list[RunSpec]:
        return request.resolve(
            [
                {
                    **cell,
                    "depth": depth,
                    "lr": settings.restart * parent.train.lr,
                    "init_from": {"run": parent.run_id, "transform": transform},
                }
                for cell, parent in zip(cells, parents, strict=True)
            ]
        )

    return [
        *shallow,
        *deep,
        *again(shallow, settings.shallow, "same"),
        *again(shallow, settings.deep, "deepen"),
        *again(deep, settings.deep, "same"),
    ]


def measure(specimen: Specimen, settings: ConstructSettings) -> pd.DataFrame:
    """Build the network again from its parent, in float64, and compare the two on all training images."""
    import torch

    from resx import model
    from resx.measurements.construct import compare
    from resx.store.run import read_run
    from resx.training.evaluate import EVAL_BATCH
    from resx.training.initial import TRANSFORMS

    run, dataset = specimen.run, specimen.dataset
    assert run.spec.init_from is not None
    parent_run = read_run(run.path.parent / run.spec.init_from.run)
    batches = specimen.batches(run.spec.train.batch_size)
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


def tables(frames: Frames, settings: ConstructSettings) -> dict[str, pd.DataFrame]:
    """Return the arms' outcomes by seed, how far the constructed network is from the shallow one, and their curves."""
    runs = outcomes(frames["runs"]).assign(arm=_arms(frames["runs"]))
    if not (runs["arm"] == CONSTRUCTED).any():
        raise SpecError("no network was constructed among these runs; `resx probe construct` makes some")
    last = runs.dropna(subset=["arm"])
    rates = sorted(last["lr"].unique())
    if len(rates) > 1:
        listed = ", ".join(map(str, rates))
        raise SpecError(
            f"second halves started from different rates ({listed}); choose one, with --where lr={rates[0]}"
        )
    names = {arm: text.format(**settings.model_dump()) for arm, text in NAMES.items()}
    identity = frames["construct"].merge(frames["runs"][["run_id", "seed"]], on="run_id")
    columns = ["mode", "precision", "seed", "max_difference", "mean_difference", "scale", "changed"]
    means = last.groupby("arm")[list(OUTCOMES)].mean().loc[[arm for arm in NAMES if arm in set(last["arm"])]]
    return {
        "arms": means.rename(index=names).reset_index(),
        "identity": identity[columns].sort_values(["mode", "precision", "seed"], ignore_index=True),
        "outcomes": last[["arm", "depth", "seed", *OUTCOMES]],
        "curves": _joined(runs, frames["curves"]),
    }


def _arms(runs: pd.DataFrame) -> pd.Series:
    """Return which arm's second half each run is: constructed, shallow, deep; None for all others.

    A network is constructed where its weights came from `deepen`. The others began with the weights of the same
    network: shallow where that is a constructed network's parent, deep where it is as deep as a constructed one.
    """
    transform = runs["init_from"].map(lambda start: start and start.transform)
    parent = runs["init_from"].map(lambda start: start and start.run)
    built, same = transform == "deepen", transform == "same"
    names = pd.Series(None, index=runs.index, dtype=object)
    names[same & runs["depth"].isin(runs["depth"][built])] = DEEP
    names[same & parent.isin(parent[built])] = SHALLOW
    names[built] = CONSTRUCTED
    return names


def _joined(runs: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """Return the curves of both halves of each arm as one: rows (arm, run_id, step, …), run_id being the second's."""
    parts = []
    for run in runs.dropna(subset=["arm"]).to_dict("records"):
        first = curves[curves["run_id"] == run["init_from"].run]
        second = curves[curves["run_id"] == run["run_id"]]
        second = second.assign(step=second["step"] + run["steps"])
        parts.append(pd.concat([first, second]).assign(arm=run["arm"], run_id=run["run_id"]))
    return pd.concat(parts, ignore_index=True)


def comment(findings: Findings) -> list[str]:
    """Return how far the constructed network is from the shallow one in training mode."""
    identity = findings.tables["identity"]
    trained = identity[(identity["mode"] == "training") & (identity["precision"] == "float32")]
    if trained.empty:
        return []
    return [
        "In training mode the constructed network's outputs differ from the shallow one's by "
        f"{trained['mean_difference'].mean():.2g} on average (outputs are about {trained['scale'].mean():.2g} in size) "
        f"and {trained['changed'].mean():.2g} % of the predictions change."
    ]


CLAIMS = (
    Claim(
        key="solution-exists",
        says="A plain network of {deep} layers that puts out the same as a trained one of {shallow} exists",
        expected=+1,
        first=contrast("max_difference", {"mode": "eval", "precision": "float64"}),
        rule=AtMost(EXACT),
        family="identity",
    ),
    Claim(
        key="not-found",
        says="Training does not find a network as good: degradation is a failure of optimisation",
        expected=+1,
        first=contrast("train_error", {"arm": DEEP}, {"arm": CONSTRUCTED}),
        beside=tuple(
            contrast(outcome, {"arm": DEEP}, {"arm": CONSTRUCTED}) for outcome in ("log10_train_loss", "test_error")
        ),
    ),
    Claim(
        key="constructed-gets-better",
        says="Trained on, the constructed network gets better than the shallow one",
        expected=-1,
        first=contrast("log10_train_loss", {"arm": CONSTRUCTED}, {"arm": SHALLOW}),
        beside=tuple(
            contrast(outcome, {"arm": CONSTRUCTED}, {"arm": SHALLOW}) for outcome in ("train_error", "test_error")
        ),
    ),
)

PROBE = Probe(
    plan=plan,
    tables=tables,
    claims=CLAIMS,
    settings=ConstructSettings,
    figures=("construct",),
    shown=("arms", "identity"),
    drawn=("curves",),
    measures={
        "construct": Measure(
            measure,
            wants=lambda spec, settings: spec.init_from is not None and spec.init_from.transform == "deepen",
        )
    },
    labels={**OUTCOMES, "max_difference": "largest |Δ output|, all training images"},
    comment=comment,
    limits=(
        "Every arm is two runs of T steps with the same schedule, so they are alike in steps. That a solution exists "
        "and is not found shows that the difficulty lies in optimisation; it does not show which part of it "
        "(gradients, curvature, initialisation) is to blame, nor that this solution could be found from random weights."
    ),
    chooses=("depth", "shortcut", "order", "adapter", "active_blocks"),
)
