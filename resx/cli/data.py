"""`resx data`: the data sets, what each is, where its files are looked for, and whether they are there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from resx.cli.options import Json


def data(
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", help="Where files are looked for [default: $RESX_DATA or data]")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare checksums, and decode every image of a folder")
    ] = False,
    json: Json = False,
) -> None:
    """List the data sets: what each is, and whether its files are there.

    Exit code 1 where --verify finds damage.
    """
    from resx.cli.terminal import print_json, print_table
    from resx.data import DATASETS, data_root, look

    root = data_root(data_dir)
    places = {name: look(name, root, verify) for name in DATASETS}
    if json:
        facts = {name: {"summary": DATASETS.summary(name), "arguments": DATASETS.arguments(name)[1]} for name in places}
        print_json([{"name": name, **facts[name], **vars(item)} for name, item in places.items()])
    else:
        rows = [
            (name, DATASETS.summary(name), item.state, ": ".join(map(str, filter(None, (item.where, item.note)))))
            for name, item in places.items()
        ]
        print_table(rows, ["<data set", "<what it is", "<files", "<where"])
    if any(item.state == "damaged" for item in places.values()):
        raise typer.Exit(1)
