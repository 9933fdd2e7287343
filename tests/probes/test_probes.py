"""What holds for every probe: its contract, its settings, its experiments; what is asked for is what it runs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from resx import lab
from resx.claims import Claim, Combination
from resx.figures import FIGURES
from resx.probes import Probe, Request, check_key, judge, load_probe, parse_settings, planned, probe_names
from resx.probes.tidy import kinds
from resx.spec import RunSpec, SpecError, load_toml
from resx.store.run import METRICS, OUTCOMES
from resx.store.tables import load_frames
from resx.training.machine import Machine
from resx.training.resolve import resolve

ROOT = Path(__file__).parents[2]
EXPERIMENTS = sorted(ROOT.joinpath("experiments").glob("*.toml"))
STANDS_FOR_A_FOLDER = "synthetic:classes=10,size=32,train=6000,test=1000"
PROBES = [pytest.param(name, id=name) for name in probe_names()]


def runs(name: str, base: Any, grid: Any = None, settings: Any = None, seeds: Sequence[int] = (0,)) -> list[RunSpec]:
    probe = load_probe(name)
    asked = parse_settings(probe, settings or {})
    return planned(probe, Request(base, seeds, asked, lambda cells: resolve(cells, Machine()), [grid or {}]))


@pytest.mark.parametrize("name", PROBES)
def test_a_probe_keeps_its_contract(name: str) -> None:
    probe = load_probe(name)
    keys = [claim.key for claim in probe.claims]
    assert keys
    assert len(keys) == len(set(keys))
    assert all(key == key.lower() and " " not in key and ":" not in key for key in keys)
    assert set(probe.figures) <= set(FIGURES)
    assert {key for measure in probe.measures.values() for key in measure.keys} <= set(probe.settings.model_fields)
    assert probe.settings().model_config["frozen"]
    assert parse_settings(probe, probe.settings().model_dump(mode="json")) == probe.settings()
    assert "Question." in probe_names()[name] or "Question:" in probe_names()[name]


SPARSE: dict[str, tuple[slice, slice, str]] = {  # which of a probe's runs there are, and which have which status
    "all diverged": (slice(None), slice(None), "diverged"),
    "one diverged": (slice(None), slice(1), "diverged"),
    "one run": (slice(1), slice(0), ""),
    "all unfinished": (slice(None), slice(None), "unfinished"),
    "some unfinished": (slice(None), slice(None, None, 2), "unfinished"),
    "one damaged": (slice(None), slice(1), "damaged"),
}


@cache
def made_up(name: str) -> pd.DataFrame:
    """Return the table of a probe's runs, as if all had finished with the same outcomes."""
    specs = runs(name, {"preset": "digits"}, seeds=(0, 1))
    table = pd.DataFrame([{**spec.flat(), "run_id": spec.run_id} for spec in specs])
    numbers = {"parameters": 9, "multiply_adds": 9, "test_images": 297, "train_images": 1500, "seconds": 1.0}
    return table.assign(status="finished", data_label="made-up", **numbers, **dict.fromkeys(OUTCOMES, 50.0))


@pytest.mark.parametrize("sparse", SPARSE)
@pytest.mark.parametrize("name", PROBES)
def test_few_runs_and_no_measurement_are_judged_and_drawn_or_refused_in_a_line(
    name: str, sparse: str, tmp_path: Path
) -> None:
    there, lost, status = SPARSE[sparse]
    table, rates = made_up(name).iloc[there].copy(), dict.fromkeys(OUTCOMES, 50.0)
    gone = [*rates, *(("parameters", "multiply_adds", "test_images", "data_label") if status != "diverged" else ())]
    table.loc[table.index[lost], ["status", *gone]] = [status, *[np.nan] * len(gone)]
    curves = pd.DataFrame({"run_id": table["run_id"], "step": 0, "lr": 0.1, "running_loss": 1.0, **rates})
    try:
        findings = judge(name, {"runs": table, "curves": curves}, load_probe(name).settings())
    except SpecError:
        return
    assert not [line for line in findings.answer if " nan " in line]
    _, errors = lab.draw(findings, tmp_path, ["svg"])
    assert not [line for line in errors if "Error:" in line]


@pytest.mark.parametrize(
    ("name", "table"), [("degradation", "networks"), ("mismatch", "networks"), ("shortcuts", "errors")]
)
def test_outcomes_are_judged_where_results_state_no_counts(name: str, table: str) -> None:
    runs = made_up(name).assign(parameters=np.nan, test_images=np.nan)
    frames = {"runs": runs, "curves": pd.DataFrame(columns=["run_id", *METRICS])}
    findings = judge(name, frames, load_probe(name).settings())
    assert not findings.tables[table]["train_error"].isna().any()


def test_a_part_with_nothing_to_judge_is_said_and_the_others_are_judged() -> None:
    folder = ROOT / "results" / "question1-digits"
    frames = load_frames(folder)
    settings = parse_settings(load_probe("question1"), load_toml(folder / "experiment.toml").settings)
    findings = judge("question1", {name: table for name, table in frames.items() if name != "lesions"}, settings)
    assert [line for line in findings.answer if line.startswith("lesions: not judged: ")]
    assert {"gradients", "paths"} == set(findings.parts)
    whole = findings.verdict("many-shallow-networks")
    assert whole is not None and whole.word != "supported"


MEASURED = [name for name in probe_names() if load_probe(name).measures and name not in ("shortcuts", "transfer")]


@pytest.mark.parametrize("name", MEASURED)  # the two others can be judged by outcomes alone
def test_what_is_not_measured_names_the_command_that_measures_it(name: str) -> None:
    frames = {"runs": made_up(name).assign(status="diverged"), "curves": pd.DataFrame(columns=["run_id", *METRICS])}
    with pytest.raises(SpecError, match=r"no run finished|`resx probe "):
        judge(name, frames, load_probe(name).settings())


@pytest.mark.parametrize("name", PROBES)
def test_a_claim_says_what_it_expects(name: str) -> None:
    for claim in load_probe(name).claims:
        if isinstance(claim, Claim):
            assert claim.expected in (-1, 0, 1)
            assert not claim.says.endswith(".")


def test_probes_are_loaded_without_torch() -> None:
    code = (
        "import sys; from resx.probes import load_probe, probe_names\n"
        "for name in probe_names(): load_probe(name)\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_claim_that_rests_on_an_unknown_one_fails_at_import() -> None:
    from resx.probes import Part as ProbePart

    parts = {"gradients": ProbePart("gradients", lambda settings: settings)}
    claim = Combination("c", "s", ("gradients:no-such-claim",))
    with pytest.raises(KeyError, match="no-such-claim"):
        Probe(plan=lambda request: [], claims=(claim,), parts=parts)
    with pytest.raises(KeyError, match="no claim"):
        check_key("gradients:vanish")


def test_settings_are_typed_and_all_mistakes_come_at_once() -> None:
    probe = load_probe("degradation")
    with pytest.raises(SpecError) as error:
        parse_settings(probe, {"primery": "x", "primary": "loss"})
    assert len(error.value.errors) == 2
    assert "did you mean 'primary'" in error.value.errors[0]


@pytest.mark.parametrize("name", ["mismatch", "question3", "transfer"])
def test_a_field_that_a_probe_does_not_read_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match="shortcut: this probe chooses it by itself, so 'negation' changes nothing"):
        runs(name, {"preset": "digits", "shortcut": "negation"})


def test_a_grid_that_a_probe_does_not_read_is_refused() -> None:
    with pytest.raises(SpecError, match=r"shortcut: .*'negation, none' changes nothing"):
        runs("mismatch", {"preset": "digits"}, {"shortcut": ["negation", "none"]})


def test_a_field_at_the_value_that_it_has_anyway_is_not() -> None:
    assert runs("mismatch", {"preset": "digits", "depth": 20}) == runs("mismatch", {"preset": "digits"})


def test_one_network_of_others_with_two_weights_is_refused() -> None:
    twice = [{"network": "akamaster/resnet20", "weights": weights} for weights in ("0", "1")]
    with pytest.raises(SpecError, match="akamaster/resnet20 is there with several weights"):
        runs("trained", {"dataset": STANDS_FOR_A_FOLDER}, {"foreign": twice})


def test_public_networks_of_two_sources_are_of_two_kinds() -> None:
    names = ["akamaster/resnet20", "chenyaofo/cifar10_resnet20", "akamaster/resnet32"]
    data = {"dataset": STANDS_FOR_A_FOLDER}
    cells = [{"foreign": {"network": name, "weights": "0"}, **data} for name in names]
    table = pd.DataFrame([spec.flat() for spec in resolve(cells, Machine())])
    assert list(kinds(table)) == ["residual of akamaster", "residual of chenyaofo", "residual of akamaster"]
    assert list(kinds(table.iloc[[0, 2]])) == ["residual", "residual"]


def test_plain_and_identity_are_always_compared() -> None:
    specs = runs("degradation", {"preset": "digits"}, {"shortcut": ["negation"], "depth": [20]})
    assert [spec.model.shortcut for spec in specs] == ["none", "identity", "negation"]


def test_several_grids_are_a_union() -> None:
    probe = load_probe("degradation")
    grids = [{"depth": [20], "seed": [0, 1]}, {"depth": [56], "seed": [0]}]
    request = Request({"preset": "digits"}, [0], probe.settings(), lambda cells: resolve(cells, Machine()), grids)
    assert [(spec.model.depth, spec.seed) for spec in planned(probe, request) if spec.model.shortcut == "none"] == [
        (20, 0),
        (20, 1),
        (56, 0),
    ]


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_an_experiment_that_is_kept_can_be_run(path: Path) -> None:
    written = load_toml(path)
    base = dict(written.run)
    if base.get("dataset") == "folder":
        base |= {"dataset": STANDS_FOR_A_FOLDER, "label": None}
    probe = load_probe(written.probe)
    settings = parse_settings(probe, written.settings)
    grids = [dict(grid) for grid in written.grids]
    seeds = grids[0].pop("seed", [0]) if len(grids) == 1 else [0]
    assert planned(probe, Request(base, seeds, settings, lambda cells: resolve(cells, Machine()), grids or [{}]))


def test_a_recipe_of_several_values_is_refused_before_training() -> None:
    probe, grid = load_probe("degradation"), {"depth": [8], "lr": [0.02, 0.1]}
    request = Request({}, [0], probe.settings(), lambda cells: resolve(cells, Machine()), [grid])
    with pytest.raises(SpecError, match="lr: networks that are compared are trained alike"):
        planned(probe, request)
