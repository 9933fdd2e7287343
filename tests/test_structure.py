"""The house stands as designed: data flows one way, and `--help` does not wait for torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import resx

ROOT = Path(resx.__file__).parent
# a module imports only from its own room and from rooms to the left
ROOMS = (
    "spec registry seeding paper stats store data model training measurements engines claims probes figures "
    "progress lab exporters ledger report bench cli"
).split()


def imports(file: Path) -> set[str]:
    """Return the rooms of resx that a file imports anywhere, inside functions too."""
    rooms = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        rooms |= {name.split(".")[1] for name in names if name.startswith("resx.")}
    return rooms


FILES = sorted(
    file for file in ROOT.rglob("*.py") if file.name not in ("__init__.py", "__main__.py") or file.parent != ROOT
)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_module_imports_only_from_rooms_above(file: Path) -> None:
    room = file.relative_to(ROOT).parts[0].removesuffix(".py")
    assert room in ROOMS
    assert {name for name in imports(file) if ROOMS.index(name) > ROOMS.index(room)} == set()


def test_the_check_sees_imports_inside_functions(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text("def f():\n    from resx.cli import train\n    import resx.store\n")
    assert imports(file) == {"cli", "store"}


def test_help_does_not_import_torch() -> None:
    code = (
        "import sys; from resx.cli import run\n"
        "for words in (['--help'], ['train', '--help'], ['compare', '--help'], ['plot', '--help'],"
        " ['runs', '--help'], ['probe', '--help']): assert run(words) == 0, words\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
