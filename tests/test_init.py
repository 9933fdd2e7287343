"""The package from a notebook: what the commands take, Python takes too."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import resx
from resx import SpecError, lab
from resx.training.machine import Machine

TINY = {"depth": 8, "width": 4, "steps": 2, "eval_every": 2, "subset": 40, "device": "cpu", "jobs": 1}


def test_public_names_are_shown() -> None:
    assert {"compare", "run", "train", "load_runs", "__version__"} <= set(dir(resx))
    assert resx.__version__[0].isdigit()


def test_train_takes_what_the_command_takes(tmp_path: Path) -> None:
    result = resx.train(plain=True, results=tmp_path, **TINY)
    assert result["folder"].startswith(str(tmp_path / "runs" / "plain-8-digits"))
    with pytest.raises(SpecError, match="either it or a shortcut"):
        resx.train(plain=True, shortcut="identity", results=tmp_path, **TINY)
    with pytest.raises(SpecError, match="either a machine or these"):
        resx.train(machine=Machine(results=tmp_path), jobs=1)


def test_compare_asks_for_the_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}
    monkeypatch.setattr(lab, "run", lambda probe, **given: asked.update(given, probe=probe))
    resx.compare(depths=[20, 32], shortcut="negation", seeds=2)
    assert asked == {"probe": "degradation", "grid": {"depth": [20, 32], "shortcut": ["negation"]}, "seeds": 2}


def test_a_list_of_values_is_a_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "carry_out", lambda planned, *given: SimpleNamespace(findings=planned.specs))
    given: dict[str, Any] = {**TINY, "depth": [8, 14], "drops": [0.5], "results": tmp_path, "seeds": 1}
    asked: Any = resx.run("degradation", **given)
    assert asked == resx.compare(**given)
    assert {(spec.model.depth, spec.train.drops) for spec in asked} == {(8, (0.5,)), (14, (0.5,))}


def test_plot_returns_the_figure_of_what_is_recorded(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no run is recorded"):
        resx.plot("curves", results=tmp_path)
    resx.train(results=tmp_path, **TINY)
    titled, plain = (resx.plot("curves", results=tmp_path, title=title, depth=[8]) for title in (True, False))
    assert titled.get_figheight() > plain.get_figheight()
