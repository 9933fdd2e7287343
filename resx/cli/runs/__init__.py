"""`resx runs`: find, show, compare, check, export, import and remove what is recorded; a module per thing done."""

from __future__ import annotations

import typer

from resx.cli.runs.check import check
from resx.cli.runs.export import export, import_runs
from resx.cli.runs.list import list_runs
from resx.cli.runs.note import note
from resx.cli.runs.remove import collect, remove
from resx.cli.runs.show import diff, show

runs_app = typer.Typer(help="Find, show, check, export, import and remove recorded runs.")
runs_app.command("list")(list_runs)
runs_app.command()(show)
runs_app.command()(diff)
runs_app.command()(note)
runs_app.command()(check)
runs_app.command()(export)
runs_app.command("import")(import_runs)
runs_app.command("rm")(remove)
runs_app.command("gc")(collect)
