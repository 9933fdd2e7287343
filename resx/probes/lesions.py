"""Lesions: is a residual network an ensemble of many shallow ones (Veit et al. 2016)?

Question. A residual network of n blocks can be read as a sum over 2^n paths. Veit et al. conclude that it behaves like
an ensemble of relatively shallow networks, since removing blocks from it hardly matters, while removing a layer from a
plain network is fatal.

Method. From trained networks (plain and residual at `shallow` layers, residual at `deep`) blocks are removed,
`activation(adapter(x))` standing in their place: each one, random sets of `counts`, and `pairs` of two; and blocks of
one stage exchange places. In a plain network x stands in the block's place, so only blocks that keep shapes can go;
random lesions take these only, the same ones in both kinds of network. A deep plain network is left out, as near chance
level it says nothing. Every lesion is measured with the running statistics of training and with batch normalisation's
statistics re-estimated on `statistics` training images after it. Test error and loss, on `images` test images.

Controls. `ensembles`: independent shallow networks trained for as many steps, which together cost as much as the deep
one, class probabilities averaged; with 3x20, seed s is given the networks of seeds s, 1000(s+1)+1 and 1000(s+1)+2. An
ensemble of that kind is what the deep network is said to be like. `active`: the deep network trained with so many
random blocks active at each step, so that no path is longer, tested with all its blocks and re-estimated statistics
(those of training belong to subsets, and the network with all blocks is then at chance level).

Primary outcome. The increase of the test error (points) when one block is removed, mean over blocks that keep shapes:
plain minus residual at `shallow` layers, running statistics.

Criteria, fixed beforehand; t intervals over seeds, one joint sign-flip over all effects, at least 6 seeds. Removing a
block hurts the plain network more (supported above 0), and still does with re-estimated statistics. It hurts the
deeper residual network less. Two removals add up, as they would in an ensemble: the loss rises by the sum of the single
rises, the 90 % interval of (both − sum) / sum lying within ±`interaction`. One deep network has a lower test error than
the ensembles (supported below 0; refuted above 0, where independent shallow networks are better). Long paths are not
needed in training: the test error differs by less than `margin` points (two one-sided tests).

Settings. shallow, deep, counts, draws, pairs, images, statistics, ensembles, active, margin, interaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from resx import stats
from resx.claims import estimates, table_of, verdict, with_runs
from resx.data import Dataset
from resx.data.batches import Batches
from resx.figures.parts import kind_name
from resx.measurements.inputs import network_at, without_blocks
from resx.measurements.lesions import STATISTICS, ensemble, interactions, lesions, short_paths, too_small
from resx.model import FAMILIES, Network, complete
from resx.model.construction import skeleton
from resx.probes.study import Findings, Frames, Measure, Order, Study, Verdict
from resx.spec import RunSpec, SpecError
from resx.store.files import StoreError
from resx.store.run import RunFolder, read_run
from resx.training.evaluate import EVAL_BATCH

MEMBER_SEEDS = 1000  # an ensemble's members have seeds from 1000·(seed + 1) on, which no study uses otherwise


def whole_numbers(text: str, name: str) -> list[int]:
    """Read `1,2,4` as whole numbers from 1 on. Raises SpecError that names the setting."""
    values = [int(item) if item.strip().isdigit() else 0 for item in text.split(",")]
    if min(values) < 1:
        raise SpecError(f"setting '{name}': write whole numbers with commas between, such as 1,2,4, not '{text}'")
    return list(dict.fromkeys(values))


def ensemble_sizes(text: str) -> list[tuple[int, int]]:
    """Read `3x20,10x8` as (members, depth) of each ensemble. Raises SpecError."""
    found = []
    for item in filter(None, text.split(",")):
        members, _, depth = item.strip().partition("x")
        if not (members.isdigit() and depth.isdigit() and int(members) > 1):
            raise SpecError(f"setting 'ensembles': write members x depth, such as 3x20,10x8, not '{item}'")
        found.append((int(members), int(depth)))
    return found


def members(spec: RunSpec, count: int, depth: int) -> list[RunSpec]:
    """Return the networks of one ensemble beside a deep network: the same in all but depth, and other seeds."""
    network = complete(spec.model.model_copy(update={"depth": depth}))
    seeds = [spec.seed, *(MEMBER_SEEDS * (spec.seed + 1) + k for k in range(1, count))]
    return [spec.model_copy(update={"model": network, "seed": seed}) for seed in seeds]


def plan(order: Order) -> list[RunSpec]:
    """Plain and residual at the shallow depth, residual at the deep one, the ensembles' members, the short-path nets.

    Raises SpecError for settings that cannot be read and depths that the family has not.
    """
    settings = order.settings
    if "depth" in order.base or "depth" in order.grid:
        raise SpecError("lesions: choose its two depths with --set shallow=20 and --set deep=56")
    kind = order.base.get("shortcut", "identity")
    shallow, deep = settings["shallow"], settings["deep"]
    counts = whole_numbers(settings["active"], "active") if settings["active"] else []
    cells: list[dict[str, Any]] = [
        {"depth": shallow, "shortcut": "none"},
        {"depth": shallow, "shortcut": kind},
        {"depth": deep, "shortcut": kind},
        *({"depth": deep, "shortcut": kind, "active_blocks": count} for count in counts),
    ]
    specs = order.resolve([{**order.base, **cell, "seed": seed} for cell in cells for seed in order.seeds])
    sizes = ensemble_sizes(settings["ensembles"])
    for spec in [spec for spec in specs if _is_deep(spec, settings)]:
        for count, depth in sizes:
            errors = FAMILIES[spec.model.family].check(spec.model.model_copy(update={"depth": depth}))
            if errors:
                raise SpecError([f"setting 'ensembles': {line}" for line in errors])
            specs += members(spec, count, depth)
    return specs


def _is_deep(spec: RunSpec, settings: Mapping[str, Any]) -> bool:
    is_plain = spec.model.shortcut == "none"
    return not is_plain and spec.model.depth == settings["deep"] and spec.train.active_blocks is None


def _is_lesioned(spec: RunSpec, settings: Mapping[str, Any]) -> bool:
    own = spec.seed < MEMBER_SEEDS and spec.train.active_blocks is None
    return own and spec.model.depth in (settings["shallow"], settings["deep"])


def refuses(spec: RunSpec) -> str | None:
    """Say why a network cannot bear lesions: it has no blocks, or too few that keep shapes."""
    reason = without_blocks(spec)
    if reason:
        return reason
    network = skeleton(spec.model, (3, 32, 32), 10)
    assert isinstance(network, Network)
    return too_small(network.blocks)


def _inputs(
    run: RunFolder, dataset: Dataset, settings: Mapping[str, Any], device: torch.device
) -> tuple[Network, list[Any], list[Any]]:
    """Return a trained network in eval mode, the test batches, and the inputs for re-estimated statistics."""
    batches = Batches(dataset, run.spec.data, run.spec.train.batch_size, run.spec.seed, device)
    network = network_at(run, dataset, device, max(run.snapshots()), EVAL_BATCH).eval()
    test = list(batches.evaluation("test", settings["images"], EVAL_BATCH))
    return network, test, [x for x, _ in batches.evaluation("train", settings["statistics"], EVAL_BATCH)]


def measure_lesions(
    run: RunFolder, dataset: Dataset, settings: Mapping[str, Any], device: torch.device
) -> pd.DataFrame:
    """Apply the lesions to a run's last weights."""
    network, test, statistics = _inputs(run, dataset, settings, device)
    counts = whole_numbers(settings["counts"], "counts")
    sizes = {"counts": counts, "draws": settings["draws"], "pairs": settings["pairs"]}
    return lesions(network, test, statistics, dataset.task, **sizes)


def measure_short_paths(
    run: RunFolder, dataset: Dataset, settings: Mapping[str, Any], device: torch.device
) -> pd.DataFrame:
    """Test a network that was trained with subsets of its blocks."""
    network, test, statistics = _inputs(run, dataset, settings, device)
    assert run.spec.train.active_blocks is not None
    return short_paths(network, run.spec.train.active_blocks, test, statistics, dataset.task, settings["draws"])


def measure_ensembles(
    run: RunFolder, dataset: Dataset, settings: Mapping[str, Any], device: torch.device
) -> pd.DataFrame:
    """Compare a deep network with its ensembles on all test images, from recorded predictions.

    Returns rows (ensemble, members, loss, error, member_error, cost): cost is the multiply-adds of all members over
    those of the deep network. An ensemble that lost a member to divergence has no error. Raises StoreError where a
    member is not finished.
    """
    rows: list[dict[str, Any]] = []
    own = run.result or {}
    for count, depth in ensemble_sizes(settings["ensembles"]):
        logits, errors, cost, labels = [], [], 0.0, None
        for spec in members(run.spec, count, depth):
            member = read_run(run.path.parent / spec.run_id)
            result = member.result
            if result is None:
                raise StoreError(f"{spec.run_id}: is not finished; the same command goes on with it")
            cost += result["multiply_adds"] / own["multiply_adds"]
            if result["status"] == "finished":
                errors.append(result["test_error"])
                one, labels = member.load_predictions()
                logits.append(one)
        complete_one = labels is not None and len(logits) == count
        loss, error = ensemble(logits, labels) if complete_one and labels is not None else (np.nan, np.nan)
        row = {"ensemble": f"{count} × {depth}", "members": count, "loss": loss, "error": error}
        rows.append({**row, "member_error": float(np.mean(errors)) if errors else np.nan, "cost": cost})
    return pd.DataFrame(rows)


def judge(frames: Frames, settings: Mapping[str, Any]) -> Findings:
    """Compare the damage of lesions, paired by seed, and the deep network with its controls."""
    runs = frames["runs"]
    shallow, deep = settings["shallow"], settings["deep"]
    rows = with_runs(frames["lesions"], runs)
    rows = rows[rows["status"] == "finished"]
    [kind] = [name for name in runs["shortcut"].map(kind_name).unique() if name != "plain"]
    damage = _damage(rows)
    interaction = _interactions(rows, kind, deep)
    full = runs[runs["active_blocks"].isna() & (runs["depth"] == deep) & (runs["status"] == "finished")]
    full_error = full.set_index("seed")["test_error"]
    ensembles = _ensembles(frames, runs)
    short = _short(frames, runs)

    def one(network: str, depth: int, statistics: str) -> pd.Series:
        try:
            found: pd.Series = damage.loc[(network, depth, statistics)]
        except KeyError:
            return pd.Series(dtype=float)
        return found

    names = {one: f"one block, plain-{shallow} − {kind}-{shallow}, {one}" for one in STATISTICS}
    columns = {
        name: one("plain", shallow, statistics) - one(kind, shallow, statistics) for statistics, name in names.items()
    }
    deeper = f"one block, {kind}-{deep} − {kind}-{shallow}, running"
    columns[deeper] = one(kind, deep, "running") - one(kind, shallow, "running")
    together = {statistics: f"two blocks, (both − sum) / sum, {statistics}" for statistics in interaction}
    columns |= {together[statistics]: values for statistics, values in interaction.items()}
    against = {size: f"test error, {kind}-{deep} − ensemble {size}" for size in ensembles}
    columns |= {against[size]: full_error - errors for size, errors in ensembles.items()}
    fewer = {k: f"test error, {k} active blocks − all" for k in short}
    columns |= {fewer[k]: errors - full_error for k, errors in short.items()}
    found = estimates(columns)

    verdicts = [
        *verdict(
            f"Removing a block hurts a plain network more than a residual one ({shallow} layers)",
            "rise of the test error (points), plain minus residual, running statistics: supported above 0",
            found,
            [names["running"]],
            +1,
        ),
        *verdict(
            "It still does when the statistics of batch normalisation are estimated anew after the removal",
            "the same, re-estimated statistics: supported above 0; refuted below (it was a matter of the statistics)",
            found,
            [names["re-estimated"]],
            +1,
        ),
        *verdict(
            "Removing a block hurts a deeper residual network less",
            f"rise of the test error (points), {deep} minus {shallow} layers, running statistics: supported below 0",
            found,
            [deeper],
            -1,
        ),
    ]
    if together.get("running") in found:
        allowed = settings["interaction"]
        inner = stats.t_interval(interaction["running"].to_numpy(), confidence=0.9)
        within = bool(inner.low > -allowed and inner.high < allowed)
        first, *others = [found[name] for name in together.values() if name in found]
        verdicts.append(
            Verdict(
                f"In a deep residual network ({deep} layers) two removals add up, as in an ensemble",
                f"(both − sum) / sum of the rises in loss: supported if its 90 % interval is within ±{allowed:g}; "
                "refuted if it differs from 0 and is not",
                [first, *others],
                stats.word(first, 0, equivalent=within),
            )
        )
    for size, name in against.items():
        verdicts += verdict(
            f"One {kind}-{deep} is better than {size} layers trained apart, at equal compute",
            "test error (points), deep network minus ensemble: supported below 0, refuted above",
            found,
            [name],
            -1,
        )
    verdicts += _short_verdicts(runs, full, short, found, fewer, settings)
    tables = {
        "lesions": _lesion_table(rows),
        "pairs": _pair_table(rows),
        **_control_tables(frames, runs, full),
        "effects": table_of(found),
    }
    return Findings(tables, verdicts, _answer(verdicts))


def _damage(rows: pd.DataFrame) -> pd.Series:
    """Return the mean rise of the error with one shape-keeping block removed, by kind, depth, statistics and seed."""
    key = ["kind", "depth", "statistics", "seed"]
    intact = rows[rows["lesion"] == "none"].set_index(key)["error"]
    single = rows[(rows["lesion"] == "remove") & rows["blocks"].isin(_movable_names(rows))]
    return single.groupby(key)["error"].mean() - intact


def _movable_names(rows: pd.DataFrame) -> set[str]:
    """Return the names of blocks that keep shapes: those that random lesions took."""
    taken = rows.loc[rows["lesion"].isin(["random", "pair"]), "blocks"].dropna()
    return {name for text in taken for name in str(text).split("+")}


def _interactions(rows: pd.DataFrame, kind: str, depth: int) -> dict[str, pd.Series]:
    """Return (both − sum) / sum over the pairs of a network, by seed, for each kind of statistics."""
    found: dict[str, dict[Any, float]] = {}
    chosen = rows[(rows["kind"] == kind) & (rows["depth"] == depth)]
    for seed, group in chosen.groupby("seed"):
        for statistics, pairs in interactions(group).groupby("statistics", sort=False):
            total = pairs["sum"].sum()
            found.setdefault(str(statistics), {})[seed] = (pairs["both"].sum() - total) / total if total > 0 else np.nan
    return {statistics: pd.Series(values, dtype=float).dropna() for statistics, values in found.items()}


def _ensembles(frames: Frames, runs: pd.DataFrame) -> dict[str, pd.Series]:
    """Return the test error of each kind of ensemble by seed."""
    if "ensembles" not in frames:
        return {}
    rows = frames["ensembles"].merge(runs[["run_id", "seed"]], on="run_id")
    return {str(size): group.set_index("seed")["error"] for size, group in rows.groupby("ensemble", sort=False)}


def _short(frames: Frames, runs: pd.DataFrame) -> dict[int, pd.Series]:
    """Return the test error of networks trained with k active blocks, tested with all and re-estimated statistics."""
    if "short_paths" not in frames:
        return {}
    rows = frames["short_paths"].merge(runs[["run_id", "seed", "active_blocks", "status"]], on="run_id")
    rows = rows[(rows["blocks"] == "all") & (rows["statistics"] == "re-estimated") & (rows["status"] == "finished")]
    rows["active_blocks"] = rows["active_blocks"].astype(int)
    return {int(str(k)): group.set_index("seed")["error"] for k, group in rows.groupby("active_blocks")}


def _short_verdicts(
    runs: pd.DataFrame,
    full: pd.DataFrame,
    short: Mapping[int, pd.Series],
    found: Mapping[str, stats.Estimate],
    names: Mapping[int, str],
    settings: Mapping[str, Any],
) -> list[Verdict]:
    verdicts = []
    error = full.set_index("seed")["test_error"]
    for k, values in short.items():
        both = pd.DataFrame({"short": values, "full": error}).dropna()
        if both.empty:
            continue
        equal = stats.equivalence(
            both["short"] - both["full"],
            settings["margin"],
            arms=[both["short"], both["full"]],
            n_test=int(runs["test_images"].max()),
        )
        verdicts.append(
            Verdict(
                f"Long paths are not needed in training: {k} active blocks at each step are enough",
                f"test error (points), trained so minus trained in full: supported if equivalent within "
                f"±{settings['margin']:g}, refuted if it differs and is not",
                [found[names[k]]],
                stats.word(found[names[k]], 0, equivalent=equal.status == "equivalent"),
            )
        )
    return verdicts


def _lesion_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the mean test error over lesions and seeds: a row per statistics and lesion, a column per network."""
    words = {"none": "intact", "remove": "each removed", "random": "{} at random", "permute": "{} exchanges"}
    rows = rows[rows["lesion"].isin(words)]
    count = rows["count"].fillna(0).astype(int)
    rank = rows["lesion"].map({lesion: place for place, lesion in enumerate(words)})
    label = [words[lesion].format(number) for lesion, number in zip(rows["lesion"], count, strict=True)]
    network = rows["kind"] + "-" + rows["depth"].astype(str)
    ranked = rows.assign(lesion=label, network=network, count=count, rank=rank)
    table = ranked.pivot_table(index=["statistics", "rank", "count", "lesion"], columns="network", values="error")
    table = table.sort_index(level=["statistics", "rank", "count"], ascending=[False, True, True])
    return table.rename_axis(columns=None).reset_index().drop(columns=["rank", "count"])


def _pair_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the mean rise of the loss after two removals, and the sum of the single rises, per network."""
    parts = []
    for (kind, depth, _), group in rows.groupby(["kind", "depth", "seed"]):
        parts.append(interactions(group).assign(network=f"{kind}-{depth}"))
    table = pd.concat(parts).groupby(["statistics", "network"])[["sum", "both"]].mean()
    return table.sort_index(level=["statistics", "network"], ascending=[False, True]).reset_index()


def _control_tables(frames: Frames, runs: pd.DataFrame, full: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the tables of the two controls: a row per ensemble and seed; a row per number of active blocks."""
    tables = {}
    if "ensembles" in frames:
        error = full.set_index("seed")["test_error"]
        rows = frames["ensembles"].merge(runs[["run_id", "seed"]], on="run_id")
        shown = rows[["ensemble", "seed", "cost", "member_error", "error"]].rename(columns={"error": "ensemble_error"})
        tables["ensembles"] = shown.assign(deep_error=shown["seed"].map(error)).sort_values(["ensemble", "seed"])
    if "short_paths" in frames:
        rows = frames["short_paths"].merge(runs[["run_id", "seed", "active_blocks"]], on="run_id")
        rows = rows[(rows["blocks"] != "all") | (rows["statistics"] != "running")]
        label = rows["blocks"] + ", " + rows["statistics"]
        means = rows.assign(tested=label).pivot_table(
            index="active_blocks", columns="tested", values="error", sort=False
        )
        seeds = rows.groupby("active_blocks")["seed"].nunique()
        tables["short_paths"] = means.rename_axis(columns=None).assign(seeds=seeds).sort_index().reset_index()
        tables["short_paths"]["active_blocks"] = tables["short_paths"]["active_blocks"].astype(int)
    return tables


def _answer(verdicts: Sequence[Verdict]) -> str:
    lines = [f"{item.hypothesis}: {item.word} ({item.estimates[0]})." for item in verdicts]
    return (
        " ".join(lines)
        + " Robustness to lesions shows that blocks do not depend on each other's presence in detail; so "
        "would a network whose blocks each refine one estimate a little, which is no ensemble. Only the controls "
        "compare the network with actual ensembles of shallow ones, and with training that has no long paths. Removing "
        "a block after training says nothing about why training succeeds."
    )


STUDY = Study(
    plan=plan,
    judge=judge,
    figures=("lesions",),
    measures={
        "lesions": Measure(
            measure_lesions,
            refuses,
            keys=("counts", "draws", "pairs", "images", "statistics"),
            wants=_is_lesioned,
        ),
        "ensembles": Measure(measure_ensembles, keys=("ensembles",), wants=_is_deep),
        "short_paths": Measure(
            measure_short_paths,
            without_blocks,
            keys=("draws", "images", "statistics"),
            wants=lambda spec, settings: spec.train.active_blocks is not None,
        ),
    },
    defaults={
        "shallow": 20,
        "deep": 56,
        "counts": "1,2,4,8",
        "draws": 4,
        "pairs": 40,
        "images": 1000,
        "statistics": 250,
        "ensembles": "3x20,10x8",
        "active": "4,12,20",
        "margin": 1.0,
        "interaction": 0.25,
    },
)
