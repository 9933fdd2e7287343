"""`resx runs`: find, show, compare, check, export, import and remove what is recorded; a module per thing done."""

from __future__ import annotations

from collections.abc import Callable

import typer

from resx.cli.runs.check import check
from resx.cli.runs.export import export, import_runs
from resx.cli.runs.list import list_runs
from resx.cli.runs.note import note
from resx.cli.runs.remove import collect, remove
from resx.cli.runs.show import diff, show

COMMANDS: dict[str, Callable[..., None]] = {
    "list": list_runs,
    "show": show,
    "diff": diff,
    "note": note,
    "check": check,
    "export": export,
    "import": import_runs,
    "rm": remove,
    "gc": collect,
}

runs_app = typer.Typer(help="Find, show, check, export, import and remove recorded runs.")
for name, command in COMMANDS.items():
    runs_app.command(name)(command)
