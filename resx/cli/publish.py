"""`resx publish`: write again what follows from the tables of published experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def publish(
    folders: Annotated[
        list[Path], typer.Argument(help="Folders of published experiments, such as results/digits-depths.")
    ],
) -> None:
    """Judge published experiments again from their tables, and write their tables, figures and pages anew.

    Nothing is trained or measured. What a person wrote on a page stays.
    """
    from resx import lab

    for folder in folders:
        typer.echo(f"{folder}: {len(lab.rewrite(folder))} files")
