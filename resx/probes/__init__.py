"""Studies: which runs answer a question, what is measured on them, and what the measurements say.

A study is one file of this folder that defines `STUDY`; its name is the file's, its help the file's docstring, and
`resx probe NAME` runs it. This file finds them without importing any, so that `--help` does not wait for torch.
"""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from resx.spec import SpecError, did_you_mean

if TYPE_CHECKING:
    from resx.probes.study import Study


def study_names() -> dict[str, str]:
    """Return each study's name and docstring, read without importing it (and with it torch)."""
    found = {}
    for file in sorted(Path(__file__).parent.glob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        names = [
            target.id
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        ]
        if "STUDY" in names:
            found[file.stem] = ast.get_docstring(tree) or ""
    return found


def load_study(name: str) -> Study:
    """Return a study by its name. Raises SpecError with the nearest known one."""
    known = study_names()
    if name not in known:
        raise SpecError(f"no study '{name}'{did_you_mean(name, known)}; there are {', '.join(known)}")
    study: Study = import_module(f"{__name__}.{name}").STUDY
    return study
