"""Plugins that fail in ways of their own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from resx.model import SHORTCUTS

# a shortcut that counts the calls of its process in training, and does something at one of them
PLUGIN = """
import os, signal, time
from pathlib import Path
import torch
from resx.model import SHORTCUTS

calls = 0

def late(act):
    global calls
    calls += 1
    if calls > 60:  # past every trial
        act()

def fail():
    {act}

@SHORTCUTS.register("mine")
class Mine(torch.nn.Module):
    def __init__(self, channels, *, bad: bool = False):
        super().__init__()
        self.bad = bad

    def forward(self, x, fx):
        if self.bad and self.training:
            late(fail)
        return x + fx
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Path]]:
    """Write a plugin whose shortcut mine:bad=true acts late; what it registers is gone afterwards."""
    monkeypatch.setattr(SHORTCUTS, "_entries", dict(SHORTCUTS._entries))
    before = set(sys.modules)

    def write(act: str) -> Path:
        file = tmp_path / "mine.py"
        file.write_text(PLUGIN.replace("{act}", act))
        return file

    yield write
    for name in set(sys.modules) - before:
        if name.startswith("resx_plugin_"):
            del sys.modules[name]
