"""The ledger: which evidence decides a statement."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from resx.ledger import Evidence, Experiment, describe, entries, statement
from resx.stats import Estimate

RESULTS = Path(__file__).parents[1] / "results"
KEY = "responses:deeper-respond-less"


def evidence(word: str, scale: str, n: int, claim: str = KEY) -> Evidence:
    made = Experiment(f"{scale}-{n}", Path(), "resx", n, 1.0, "cpu", own=False)
    return Evidence(claim, "", "s", "c", word, scale, (Estimate("e", 1.0, 0.5, 1.5, n),), made)


@pytest.mark.parametrize(
    ("listed", "word", "scale"),
    [
        ([evidence("supported", "toy", 6), evidence("refuted", "reduced", 6)], "refuted", "reduced"),
        ([evidence("screening", "reduced", 3), evidence("supported", "reduced", 6)], "supported", "reduced"),
        (
            [evidence("supported", "reduced", 6), evidence("inconclusive", "paper, trained by others", 1)],
            "supported",
            "reduced",
        ),
        ([evidence("screening", "paper, trained by others", 1)], "screening", "paper, trained by others"),
    ],
)
def test_the_nearest_to_the_paper_decides_but_one_network_of_a_kind_only_alone(
    listed: list[Evidence], word: str, scale: str
) -> None:
    [entry] = entries(listed, [statement("3")])
    assert (entry.word, entry.scale) == (word, scale)


def test_the_command_of_own_findings_works_from_anywhere(tmp_path: Path) -> None:
    folder = tmp_path / "findings" / "mine"
    shutil.copytree(RESULTS / "cifar-small", folder)
    text = (folder / "experiment.toml").read_text(encoding="utf-8").partition("\n")[2]
    (folder / "experiment.toml").write_text(f"# resx run experiment.toml\n{text}", encoding="utf-8")
    assert describe(folder, True).command == f"resx run {folder / 'experiment.toml'}"
