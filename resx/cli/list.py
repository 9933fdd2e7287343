"""`resx list KIND`: what there is, by name, with the first line of its docstring and the arguments that it takes."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from resx.cli.options import Json
from resx.probes import probe_names
from resx.registry import Registry, load_plugins
from resx.spec import PRESET_SUMMARIES


class Kind(StrEnum):
    """What can be listed."""

    shortcuts = "shortcuts"
    adapters = "adapters"
    presets = "presets"
    figures = "figures"
    probes = "probes"
    datasets = "datasets"


REGISTRIES = {  # a registry, or several; only what is listed is imported
    Kind.shortcuts: ("resx.model", "SHORTCUTS"),
    Kind.adapters: ("resx.model.adapters", "PARTS"),
    Kind.figures: ("resx.figures", "FIGURES"),
    Kind.datasets: ("resx.data", "DATASETS"),
}
Row = tuple[str, str, str]  # name, arguments with their defaults, first line


def list_names(
    kind: Annotated[Kind, typer.Argument(help="What to list.")],
    plugin: Annotated[
        list[Path] | None, typer.Option(help="A file that registers shortcuts or adapters of yours; it is executed.")
    ] = None,
    json: Json = False,
) -> None:
    """List shortcuts, adapters, presets, figures, probes or data sets: names, arguments, what each is.

    Examples: [bold]resx list shortcuts[/bold], [bold]resx list figures[/bold]
    """
    from resx.cli.terminal import print_json, print_table

    load_plugins(plugin or [])
    rows = list(_rows(kind))
    if json:
        print_json([dict(zip(("name", "arguments", "summary"), row, strict=True)) for row in rows])
    else:
        print_table(rows, ["<name", "<arguments", "<what it is"])


def _rows(kind: Kind) -> Iterator[Row]:
    if kind is Kind.presets:
        yield from ((name, "", text) for name, text in PRESET_SUMMARIES.items())
    elif kind is Kind.probes:
        yield from ((name, "", text.partition("\n\n")[0].replace("\n", " ")) for name, text in probe_names().items())
    else:
        for registry in _registries(kind):
            for name in registry:
                yield name, registry.complete(name).partition(":")[2], registry.summary(name)


def _registries(kind: Kind) -> list[Registry[Any]]:
    module, name = REGISTRIES[kind]
    registry = getattr(import_module(module), name)
    return [registry] if isinstance(registry, Registry) else list(registry.values())
