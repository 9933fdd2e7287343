"""Every probe from its command to its page on a pretended card: what is trained and measured there is also recorded."""

from __future__ import annotations

from pathlib import Path

import pytest
from pretended_cuda import Machine as Cards

from resx.cli import run
from resx.probes import probe_names

TINY = (
    "--preset digits --dataset synthetic:classes=3,size=8,train=96,test=48 --width 4 --batch-size 16 --steps 2 --seed 0"
)
SHALLOW = "--set shallow=8 --set deep=14"
LEFT_OUT = ("interventions", "question1", "question2", "question3", "trained")  # train and measure as others do
OPTIONS = {
    "degradation": f"{TINY} --depth 8",
    "gradients": f"{TINY} --depth 8",
    "paths": f"{TINY} --depth 8 --set samples=2",
    "responses": f"{TINY} --depth 8",
    "landscape": f"{TINY} --depth 8 --set points=3 --set grid=3 --set images=16 --set lines=2",
    "construct": f"{TINY} {SHALLOW}",
    "lesions": f"{TINY} {SHALLOW} --set ensembles=2x8 --set active=2 --set margin=10 --set images=24",
    "shortcuts": f"{TINY} --depth 8 --order pre --shortcut fitted --set margin=10",
    "mismatch": f"{TINY} --depth 14 --set margin=10",
    "mapping": "--preset digits --steps 2 --seed 0",
    "transfer": "--preset digits --steps 2 --seed 0",
}


@pytest.mark.parametrize("probe", [name for name in probe_names() if name not in LEFT_OUT])
def test_a_probe_runs_on_a_card(probe: str, tmp_path: Path, cards: Cards, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESX_RESULTS", str(tmp_path))
    assert run(["probe", probe, *OPTIONS.get(probe, TINY).split(), "--device", "cuda:0"]) == 0
    assert (next(tmp_path.glob("findings/*")) / "README.md").exists()


def test_why_a_measurement_failed_is_said_where_nothing_is_left_to_judge(
    tmp_path: Path, cards: Cards, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*values: object, **settings: object) -> None:
        raise ZeroDivisionError("no block")

    monkeypatch.setenv("RESX_RESULTS", str(tmp_path))
    monkeypatch.setattr("resx.measurements.lesions.lesions", fail)
    assert run(["probe", "lesions", *OPTIONS["lesions"].split(), "--device", "cuda:0"]) == 1
    assert "ZeroDivisionError: no block; lesions: " in capsys.readouterr().err
