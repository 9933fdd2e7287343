"""What a shell is offered after Tab: names and run ids, read from files without importing what defines them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import resx
from resx.spec import PRESET_SUMMARIES
from resx.store.files import results_root

HOUSE = Path(resx.__file__).parent


def _registered(folder: str, registry: str) -> Callable[[str], list[str]]:
    """Return what offers the names that files of one of the package's folders register."""
    pattern = re.compile(rf'^@{registry}\.register\("([^"]+)"\)', re.MULTILINE)

    def offer(incomplete: str) -> list[str]:
        files = sorted((HOUSE / folder).rglob("*.py"))
        return _starting([name for file in files for name in pattern.findall(file.read_text("utf-8"))], incomplete)

    return offer


shortcuts = _registered("model", "SHORTCUTS")
datasets = _registered("data", "DATASETS")
figures = _registered("figures", "FIGURES")


def presets(incomplete: str) -> list[tuple[str, str]]:
    """Return presets with what each is."""
    return [(name, text) for name, text in PRESET_SUMMARIES.items() if name.startswith(incomplete)]


def runs(ctx: Any, incomplete: str) -> list[str]:
    """Return ids of recorded runs that begin, or end, like this."""
    folder = results_root(ctx.params.get("results")) / "runs"
    names = sorted(path.name for path in folder.glob("*-*")) if folder.is_dir() else []
    return _starting(names, incomplete) or _starting([name[-8:] for name in names], incomplete)


def experiments(incomplete: str) -> Iterator[str]:
    """Yield folders, and files of experiments."""
    place = Path(incomplete)
    folder = place if incomplete.endswith("/") or not incomplete else place.parent
    for path in sorted(folder.glob("*")):
        if path.is_dir() and not path.name.startswith(".") and str(path).startswith(incomplete):
            yield f"{path}/"
        elif path.suffix == ".toml" and str(path).startswith(incomplete):
            yield str(path)


def _starting(names: list[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
