"""The papers' numbers: spot checks of the tables, and that every number says where it is from."""

from dataclasses import is_dataclass
from math import isnan

import pytest

from resx import paper


def reported() -> list[tuple[str, object]]:
    found = []
    for name, value in vars(paper).items():
        if name.isupper() and not name.startswith("_"):
            items = value.values() if isinstance(value, dict) else [value]
            found += [(name, item) for item in items if is_dataclass(item)]
    return found


@pytest.mark.parametrize("name", sorted({name for name, _ in reported()}))
def test_every_number_has_a_source_and_a_mark(name: str) -> None:
    for item in (item for key, item in reported() if key == name):
        assert item.source
        assert item.mark in ("R", "M")
        if isinstance(item, paper.Reported) and isnan(item.value):
            assert item.note


def test_plain_errors_are_marked_as_read_off_a_figure() -> None:
    for (kind, _), item in paper.CIFAR_TEST_ERROR.items():
        assert item.read_off == (kind == "plain")
        assert ("figure 6" in item.source) == (kind == "plain")


def test_the_degradation_that_the_paper_reports() -> None:
    errors = {key: item.value for key, item in paper.CIFAR_TEST_ERROR.items()}
    assert errors["plain", 56] > errors["plain", 20]
    assert errors["residual", 56] < errors["residual", 20]
    assert ("plain", 110) not in errors  # 'not displayed' is no number to draw
