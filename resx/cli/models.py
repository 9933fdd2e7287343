"""`resx models`: depth, parameters and multiply-adds of the paper's networks beside the paper's figures."""

from __future__ import annotations

import json as json_format
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resx import paper
from resx.spec import ModelSpec, build_spec

if TYPE_CHECKING:
    from resx.model.complexity import Complexity, Reference


def models(
    family: Annotated[str, typer.Option("--family", help="With --depth: cifar, imagenet or vgg.")] = "cifar",
    depth: Annotated[int | None, typer.Option("--depth", help="Count one network of this depth.")] = None,
    shortcut: Annotated[str, typer.Option("--shortcut", help="With --depth: none (plain), identity, …")] = "identity",
    adapter: Annotated[
        str | None, typer.Option("--adapter", help="With --depth: A, B, C or spatial+grow+shrink.")
    ] = None,
    width: Annotated[int | None, typer.Option("--width", help="With --depth: channels of stage 1.")] = None,
    order: Annotated[str | None, typer.Option("--order", help="With --depth: post or pre.")] = None,
    norm: Annotated[str | None, typer.Option("--norm", help="With --depth: batch or none.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document")] = False,
) -> None:
    """Count the networks' parameters and multiply-adds, beside the paper's figures.

    Multiply-adds: those of convolutions and linear layers for one image, 32×32 in the CIFAR family, else
    224×224.
    """
    chosen = {"shortcut": shortcut, "adapter": adapter, "width": width, "order": order, "norm": norm}
    from resx import model
    from resx.model.complexity import named, references

    networks = references()
    if depth is not None:
        given = {key: value for key, value in chosen.items() if value is not None}
        spec = build_spec({"family": family, "depth": depth, **given}, (model.check_names,)).model
        networks = [named(model.complete(spec))]
    counted = [(item, model.count(item.spec, item.input_shape, item.n_outputs)) for item in networks]
    if json:
        typer.echo(json_format.dumps([_row(*item) for item in counted], indent=1))
        return
    _print_table(counted)
    if depth is None:
        typer.echo(_depth_claim(counted))


def _row(network: Reference, complexity: Complexity) -> dict[str, Any]:
    return {
        "name": network.name,
        "depth": network.spec.depth,
        "parameters": complexity.parameters,
        "multiply_adds": complexity.multiply_adds,
    }


def _print_table(counted: list[tuple[Reference, Complexity]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("network")
    for column in ("depth", "parameters", "paper", "multiply-adds", "paper"):
        table.add_column(column, justify="right")
    previous = ""
    for network, complexity in counted:
        if previous not in ("", network.spec.family):
            table.add_section()
        previous = network.spec.family
        parameters, multiply_adds = _published(network.spec)
        table.add_row(
            network.name,
            str(network.spec.depth),
            f"{complexity.parameters:,}",
            _short(parameters),
            _short(complexity.multiply_adds, digits=2),
            _short(multiply_adds),
        )
    Console().print(table)


def _published(spec: ModelSpec) -> tuple[float | None, float | None]:
    """Return the paper's parameters and multiply-adds of a network, None where it prints none."""
    parameters = paper.CIFAR_PARAMETERS_PRINTED if spec.family == "cifar" else {}
    tables = {"imagenet": paper.IMAGENET_MULTIPLY_ADDS, "vgg": paper.VGG_MULTIPLY_ADDS}
    multiply_adds = tables.get(spec.family, {})
    return _value(parameters, spec.depth), _value(multiply_adds, spec.depth)


def _value(table: Mapping[int, paper.Reported], depth: int) -> float | None:
    return table[depth].value if depth in table else None


def _short(value: float | None, digits: int | None = None) -> str:
    """Write a count in M or G, with all digits that a published one has, or with this many."""
    if value is None:
        return "–"
    scaled, unit = (value / 1e9, "G") if value >= 1e9 else (value / 1e6, "M")
    return f"{scaled:g} {unit}" if digits is None else f"{scaled:.{digits}f} {unit}"


def _depth_claim(counted: list[tuple[Reference, Complexity]]) -> str:
    """Check the paper's '8× deeper than VGG nets but still having lower complexity'."""
    by_name = {network.name: (network.spec.depth, complexity) for network, complexity in counted}
    (depth, deep), (vgg_depth, vgg) = by_name["ResNet-152"], by_name["VGG-19"]
    times, cost = depth / vgg_depth, deep.multiply_adds / vgg.multiply_adds
    verdict = "holds" if times >= 8 and cost < 1 else "does not hold"
    printed = paper.IMAGENET_MULTIPLY_ADDS[152].value, paper.VGG_MULTIPLY_ADDS[19].value
    return (
        f"'8× deeper than VGG at lower complexity' {verdict}: "
        f"{depth}/{vgg_depth} = {times:.1f}× the depth at {deep.multiply_adds / 1e9:.2f}/"
        f"{vgg.multiply_adds / 1e9:.2f} = {cost:.2f} of the multiply-adds "
        f"(the paper's figures: {printed[0] / 1e9:g}/{printed[1] / 1e9:g} = {printed[0] / printed[1]:.2f})"
    )
