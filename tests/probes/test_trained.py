"""The probe of finished networks: what its tables hold, judged again from the published measurements."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from resx import lab
from resx.probes import Findings

FOLDER = Path(__file__).parents[2] / "results" / "trained-cifar10"


@pytest.fixture(scope="module")
def findings() -> Findings:
    return lab.read(FOLDER)


def test_published_errors_are_reproduced_on_all_test_images(findings: Findings) -> None:
    outcomes = findings.tables["outcomes"]
    assert list(outcomes["depth"]) == [20, 32, 56]
    assert (outcomes["test_error"] - outcomes["published"]).abs().max() <= 0.05
    assert set(findings.frames["runs"]["test_images"]) == {10_000}


def test_one_network_a_depth_is_screening_at_most(findings: Findings) -> None:
    assert findings.scale == "paper, trained by others"
    assert {verdict.word for verdict in findings.verdicts} <= {"screening", "inconclusive"}
    assert {verdict.scale for verdict in findings.verdicts} == {findings.scale}
    assert "best one on the test images" in findings.answer[0]


def test_a_change_is_from_the_next_shallower_network(findings: Findings) -> None:
    outcomes = findings.tables["outcomes"].set_index("depth")
    assert np.isnan(outcomes["std_change"][20])
    assert outcomes["std_change"][56] == pytest.approx(outcomes["std"][56] - outcomes["std"][32])


def test_every_block_is_removed_and_two_of_them_change_shapes(findings: Findings) -> None:
    lesions = findings.frames["lesions"]
    single = lesions[(lesions["lesion"] == "remove") & (lesions["statistics"] == "running")]
    counts = single.groupby("run_id")["moves"].agg(["size", "sum"])
    assert sorted(counts.itertuples(index=False, name=None)) == [(9, 7), (15, 13), (27, 25)]


def test_paths_sum_to_the_whole_gradient(findings: Findings) -> None:
    paths = findings.frames["paths"]
    assert paths["residue"].max() < 1e-9
    assert paths.groupby("run_id")["share"].sum().to_numpy() == pytest.approx(1)
