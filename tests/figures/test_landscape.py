"""The landscape: colours have a scale next to each plane."""

from __future__ import annotations

from pathlib import Path

import pytest

from resx import lab

PUBLISHED = sorted((Path(__file__).parents[2] / "results").glob("landscape-*"))


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda folder: folder.name)
def test_every_plane_has_a_scale_of_its_colours(folder: Path) -> None:
    planes = lab.plot("landscape", results=folder).axes[:2]
    assert [[bar.get_title("left") for bar in axes.child_axes] for axes in planes] == [["log10 loss"]] * 2
