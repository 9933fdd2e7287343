"""`resx data`: the data sets, what each is, where its files are looked for, and whether they are there."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import Annotated

import typer


def data(
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", help="Where files are looked for [default: $RESX_DATA or data]"),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Take checksums, and decode every image of a folder")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document")] = False,
) -> None:
    """List the data sets: what each is, and whether its files are there.

    Exit code 1 where --verify finds damage.
    """
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    from resx.data import DATASETS, data_root, look

    root = data_root(data_dir)
    places = {name: look(name, root, verify) for name in DATASETS}
    if json:
        document = [
            {
                "name": name,
                "summary": DATASETS.summary(name),
                "arguments": DATASETS.arguments(name)[1],
                "state": item.state,
                "where": None if item.where is None else str(item.where),
                "note": item.note,
            }
            for name, item in places.items()
        ]
        typer.echo(json_format.dumps(document, indent=2, ensure_ascii=False))
    else:
        table = Table(Column("data set", no_wrap=True), "what it is", Column("files", no_wrap=True), "where")
        for name, item in places.items():
            where = Text("\n".join(str(part) for part in (item.where, item.note) if part), overflow="fold")
            table.add_row(name, DATASETS.summary(name), item.state, where)
        Console().print(table)
    if any(item.state == "damaged" for item in places.values()):
        raise typer.Exit(1)
