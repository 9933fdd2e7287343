"""Specifications: flat names, identity, presets, and every mistake at once."""

from __future__ import annotations

import datetime
import os
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from resx.probes import load_probe, parse_settings
from resx.spec import FIELDS, PRESETS, Experiment, RunSpec, SpecError, build_spec, load_toml, write_toml
from resx.training.machine import Machine
from resx.training.resolve import resolve


def test_flat_names_reach_their_fields() -> None:
    spec = build_spec({"depth": 56, "shortcut": "none", "lr": 0.5, "seed": 3, "subset": 100})
    assert (spec.model.depth, spec.model.shortcut, spec.train.lr, spec.seed, spec.data.subset) == (
        56,
        "none",
        0.5,
        3,
        100,
    )
    assert spec.flat().keys() == FIELDS.keys()


@pytest.mark.parametrize(
    ("fields", "run_id"),
    [
        ({"preset": "digits"}, "residual-20-digits-s0-ee64942c"),
        ({"preset": "digits", "depth": 56, "shortcut": "none", "seed": 1}, "plain-56-digits-s1-8c633764"),
        ({"preset": "small", "depth": 20}, "residual-20-cifar10-s0-c64eab3c"),
        ({"preset": "paper", "depth": 110, "adapter": "B"}, "residual-110-cifar10-s0-1b1c50e8"),
    ],
)
def test_run_ids_stay_what_they_are(fields: dict[str, object], run_id: str) -> None:
    """Recorded runs are found by these ids: a change here orphans every one of them."""
    [spec] = resolve([fields], Machine())
    assert spec.run_id == run_id


def test_a_field_that_does_not_apply_changes_no_id() -> None:
    machine = Machine()
    [plain] = resolve([{"shortcut": "none"}], machine)
    [with_adapter] = resolve([{"shortcut": "none", "adapter": "B"}], machine)
    assert plain.run_id == with_adapter.run_id


def test_defaults_of_a_part_are_filled_in() -> None:
    machine = Machine()
    [half, quarter] = resolve([{"shortcut": f"scaled{args}"} for args in ("", ":alpha=0.5", ":alpha=0.25")], machine)
    assert half.model.shortcut == "scaled:alpha=0.5"
    assert half.run_id != quarter.run_id


def test_a_spec_survives_its_own_json() -> None:
    [spec] = resolve([{"preset": "small", "adapter": "C"}], Machine())
    assert RunSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    "fields",
    [
        {"preset": "small", "adapter": "C"},
        {"shortcut": "none"},
        {"family": "mlp", "width": 8, "depth": 4},
        {"widths": "alternating", "adapter": "subsample+copy+fold-sum"},
        {"init_from": {"run": "plain-20-digits-s0-0a0bc9d8", "transform": "same"}},
    ],
)
def test_a_spec_comes_back_from_its_flat_fields(fields: dict[str, object]) -> None:
    [spec] = resolve([fields], Machine())
    assert RunSpec.from_flat(spec.flat()) == spec


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        resolve([{"depth": 57, "shortcut": "identiy", "dataset": "digts", "lr": -1, "setps": 3}], Machine())
    lines = "\n".join(caught.value.errors)
    assert len(caught.value.errors) == 5
    for said in ("6n+2", "did you mean 'identity'", "did you mean 'digits'", "lr: ", "did you mean 'steps'"):
        assert said in lines


@pytest.mark.parametrize("lr", [0, -0.1, float("nan"), float("inf"), "fast"])
def test_a_rate_must_be_a_positive_number(lr: object) -> None:
    with pytest.raises(SpecError, match="lr"):
        build_spec({"lr": lr})


def test_the_paper_warms_up_from_110_layers_on() -> None:
    warm = [build_spec({"preset": "paper", "depth": depth}).train.warmup for depth in (56, 110)]
    assert warm == [False, True]
    assert not build_spec({"preset": "paper", "depth": 110, "warmup": False}).train.warmup


def test_the_paper_preset_is_the_papers_recipe() -> None:
    train = build_spec({"preset": "paper"}).train
    assert [drop * train.steps for drop in train.drops] == [32_000, 48_000]
    assert (train.batch_size, train.lr, train.momentum, train.weight_decay) == (128, 0.1, 0.9, 1e-4)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_name_known_fields_only(preset: str) -> None:
    assert PRESETS[preset].keys() <= FIELDS.keys()
    build_spec({"preset": preset})


def test_an_experiment_comes_back_from_its_file(tmp_path: Path) -> None:
    experiment = Experiment(
        name="e",
        probe="degradation",
        uses=["digits-depths"],
        run={"preset": "digits", "label": 'a "b" – c'},
        grids=[{"depth": [20, 56], "seed": [0, 1, 2]}, {"depth": [1202], "adapter": ["B"]}],
        settings={"primary": "train_error", "counts": [1, 2], "margin": 1.5},
    )
    file = tmp_path / "e.toml"
    file.write_text(write_toml(experiment, "resx run experiments/e.toml"))
    assert load_toml(file) == experiment
    one = replace(experiment, grids=experiment.grids[:1], uses=[])
    file.write_text(write_toml(one, "resx run experiments/e.toml"))
    assert load_toml(file) == one


EXPERIMENTS = sorted((Path(__file__).parent.parent / "experiments").glob("*.toml"))


def _with_defaults(experiment: Experiment) -> Experiment:
    settings = parse_settings(load_probe(experiment.probe), experiment.settings)
    return replace(experiment, settings=settings.model_dump(mode="json"))


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_an_experiments_file_says_how_to_run_it_and_where_its_results_lie(file: Path) -> None:
    comment = file.read_text(encoding="utf-8").partition("\n\n")[0].splitlines()
    experiment = load_toml(file)
    needs_folder = experiment.run.get("dataset") == "folder"
    options = " --weights WEIGHTS" if any("foreign" in grid for grid in experiment.grids) else ""
    options += " --data-dir FOLDER" if needs_folder else ""
    assert comment[0] == f"# resx run experiments/{file.name}{options}"
    assert f"# Results: results/{file.stem}." in comment
    published = file.parent.parent / "results" / file.stem / "experiment.toml"
    if published.exists():
        assert _with_defaults(replace(load_toml(published), name=file.stem)) == _with_defaults(experiment)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[run]\ndepht = 20\n", "did you mean 'depth'"),
        ("[runs]\ndepth = 20\n", "did you mean 'run'"),
        ("[grid]\ndepth = 20\n", "must be a list"),
        ("[grid]\ndepth = []\n", "at least one"),
        ("run = 3\n", "must be a table"),
        ("[run\n", "not valid TOML"),
    ],
)
def test_a_wrong_file_is_told_with_its_name(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(text)
    with pytest.raises(SpecError, match=r"wrong\.toml") as caught:
        load_toml(file)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("depth", 6_000_002),
        ("width", 10**22),
        ("batch_size", 10**9),
        ("steps", 10**12),
        ("seed", 2**64),
        ("image_size", 10**6),
        ("depth", 10**4000),
        ("depth", True),
        ("depth", 20.5),
        ("depth", [20]),
        ("depth", datetime.date(2016, 1, 1)),
        ("seed", [1.7]),
        ("shortcut", ["identity"]),
        ("preset", ["digits"]),
        ("label", "\x1b[2J"),
        ("adapter", {"\x1f": None}),
        ("label", "a" * 100_000),
        ("lr", float("nan")),
    ],
    ids=lambda value: str(value)[:20].encode("unicode_escape").decode(),
)
def test_a_value_beyond_its_limits_or_of_a_wrong_type_is_one_short_line(field: str, value: Any) -> None:
    with pytest.raises(SpecError) as caught:
        build_spec({field: value})
    [line] = caught.value.errors
    assert line.startswith(field)
    assert len(line) < 200 and line.isprintable()


def test_more_evaluations_than_can_be_recorded_are_refused() -> None:
    with pytest.raises(SpecError, match="eval_every"):
        build_spec({"steps": 10**8, "eval_every": 10})


@pytest.mark.parametrize(
    "fields",
    [
        {"depth": "110", "lr": "0.1", "seed": "3"},
        {"depth": np.int64(110), "lr": np.float64(0.1), "seed": np.uint8(3)},
        {"depth": 110.0, "lr": np.float32(0.1), "seed": 3.0},
        {"depth": np.array(110), "lr": 0.1, "seed": 3},
        {"depth": torch.tensor(110), "lr": torch.tensor(0.1), "seed": Decimal(3)},
        {"depth": 110, "lr": 0.1, "seed": 3, "drops": [np.float32(0.1), "0.7"]},
        {"depth": 110, "lr": 0.1, "seed": 3, "drops": np.array([0.1, 0.7], dtype=np.float32)},
        {"depth": 110, "lr": 0.1, "seed": 3, "drops": pd.Series([0.1, 0.7])},
    ],
)
@pytest.mark.parametrize("zero", [0, -0.0, "-0.0", np.float32(-0.0)])
def test_a_number_is_the_same_however_it_is_given(fields: dict[str, Any], zero: Any) -> None:
    drops = {"drops": (0.1, 0.7)} if "drops" in fields else {}
    expected = build_spec({"preset": "paper", "depth": 110, "lr": 0.1, "seed": 3, "weight_decay": 0.0, **drops})
    given = build_spec({"preset": "paper", **fields, "weight_decay": zero})
    assert (given, given.run_id) == (expected, expected.run_id)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('[run]\npreset = ["digits"]', "[run] preset"),
        ('[run]\nshortcut = ["none", "identity"]', "[run] shortcut"),
        ("[run]\nseed = 1979-05-27", "[run] seed"),
        ("[run]\ndepth = 1" + "0" * 5000, "not valid TOML"),
        ("[run]\nx = " + "[" * 5000 + "]" * 5000, "not valid TOML"),
        ("[grid]\nseed = [1.7]", "[grid] seed"),
        ("[grid]\nseed = [[1]]", "[grid] seed"),
        ("[grid]\nseed = 3", "[grid] seed"),
        ("grid = 3", "[grid]"),
        ("grid = [3]", "[grid]"),
        ("uses = 3", "uses"),
        ("probe = 3", "probe"),
        ("run = 3", "[run]"),
        ("[run]\n<<<<<<< HEAD\ndepth = 8\n=======", "not valid TOML"),
        ("[grid]\n" + "\n".join(f"{key} = {list(range(1, 301))}" for key in ("seed", "depth", "width")), "runs"),
    ],
    ids=lambda text: text[:20],
)
def test_what_is_wrong_in_a_file_is_named_with_its_place(tmp_path: Path, text: str, place: str) -> None:
    file = tmp_path / "x.toml"
    file.write_text(text)
    with pytest.raises(SpecError) as caught:
        load_toml(file)
    assert place in str(caught.value)
    assert all(line.startswith(str(file)) and len(line) < 300 for line in caught.value.errors)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.toml")
    with pytest.raises(SpecError, match="not a file"):
        load_toml(tmp_path / "x.toml")
