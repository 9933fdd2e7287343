"""What all tests share: what needs CUDA is skipped without it, and every network trains on one thread."""

from __future__ import annotations

from collections.abc import Iterator

import pretended_cuda
import pytest
import torch

from resx.training import drive

torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `cuda` where there is no CUDA device."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> Iterator[pretended_cuda.Machine]:
    """Run a test on a machine with two pretended CUDA cards."""
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device, so none has to be pretended")
    monkeypatch.setattr(drive, "_STREAMS", {})
    monkeypatch.setattr(drive, "_INVALIDATED", [])
    with pretended_cuda.pretended(monkeypatch) as machine:
        yield machine
