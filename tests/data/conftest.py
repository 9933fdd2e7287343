"""Trees of image files to read, and a cache that is a test's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from resx import data


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("RESX_DATA", raising=False)
    data.READ.clear()


@pytest.fixture
def write_tree(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a data set as PNG files, SPLIT/CLASS/NUMBER.png."""

    def write(dataset: data.Dataset, classes: Sequence[str], name: str = "tree") -> Path:
        root = tmp_path / name
        parts: list[tuple[str, Tensor, Tensor]] = [
            ("train", dataset.train_x, dataset.train_y),
            ("test", dataset.test_x, dataset.test_y),
        ]
        for split, images, labels in parts:
            for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
                path = root / split / classes[label] / f"{number:05}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy())).save(path)
        return root

    return write
