"""What all tests share: what needs CUDA is skipped without it, what names no device uses the CPU, with one thread."""

from __future__ import annotations

from collections.abc import Iterator

import pretended_cuda
import pytest
import torch

from resx.store import files
from resx.training import drive, machine

torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `cuda` where there is no CUDA device."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def cpu_by_default(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what names no device use the CPU, on a machine with a GPU too, and in processes that a test starts."""
    if request.node.get_closest_marker("cuda") is None:
        monkeypatch.setattr(machine, "default_device", lambda: "cpu")
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> Iterator[pretended_cuda.Machine]:
    """Run a test on a machine with two pretended CUDA cards."""
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device, so none has to be pretended")
    monkeypatch.setattr(drive, "_STREAMS", {})
    monkeypatch.setattr(drive, "_INVALIDATED", [])
    files.say_once.cache_clear()
    with pretended_cuda.pretended(monkeypatch) as pretended:
        yield pretended
