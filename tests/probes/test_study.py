"""What a study is asked for is what it runs: nothing is passed over, and the experiments that are kept still plan."""

from pathlib import Path
from typing import Any

import pytest

from resx.probes import compare, load_study, study_names
from resx.probes.study import Order, planned
from resx.spec import SpecError, load_toml
from resx.training.machine import Machine
from resx.training.resolve import resolve

EXPERIMENTS = sorted(Path(__file__).parents[2].joinpath("experiments").glob("*.toml"))
STANDS_FOR_A_FOLDER = "synthetic:classes=10,size=16,train=6000,test=1000"


def runs(name: str, base: Any, grid: Any = None, settings: Any = None) -> list[Any]:
    study = load_study(name)
    asked = Order(base, [0], study.settings(settings or {}), grid or {}, lambda fields: resolve(fields, Machine()))
    return planned(study, asked)


@pytest.mark.parametrize("name", ["mismatch", "question3", "transfer"])
def test_a_field_that_a_study_does_not_read_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match="shortcut: this study chooses it by itself, so 'negation' changes nothing"):
        runs(name, {"preset": "digits", "shortcut": "negation"})


def test_a_grid_that_a_study_does_not_read_is_refused() -> None:
    with pytest.raises(SpecError, match=r"shortcut: .*'negation, none' changes nothing"):
        runs("mismatch", {"preset": "digits"}, {"shortcut": ["negation", "none"]})


def test_a_field_at_the_value_that_it_has_anyway_is_not() -> None:
    assert runs("mismatch", {"preset": "digits", "depth": 20}) == runs("mismatch", {"preset": "digits"})


def test_one_adapter_alone_is_compared_with_the_reference() -> None:
    specs = runs("mismatch", {"preset": "digits", "adapter": "subsample+copy+chop"})
    widths = [spec.model.widths for spec in specs]
    adapters = [spec.model.adapter and str(spec.model.adapter) for spec in specs]
    assert adapters == ["subsample+pad+chop", "subsample+copy+chop", None, "subsample+pad"]
    assert widths == ["alternating"] * 3 + [None]
    assert specs == runs("mismatch", {"preset": "digits"}, {"adapter": ["subsample+copy+chop"]})


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_an_experiment_that_is_kept_can_be_run(path: Path) -> None:
    written = load_toml(path)
    base = dict(written.run)
    if base.get("dataset") == "folder":
        base |= {"dataset": STANDS_FOR_A_FOLDER, "label": None}
    study = path.stem.partition("-")[0]
    if study in study_names():
        grid = {key: values for key, values in written.grid.items() if key != "seed"}
        assert runs(study, base, grid, written.study)
    else:
        assert resolve(compare.plan(base, written), Machine())
