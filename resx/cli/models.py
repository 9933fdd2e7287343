"""`resx models`: depth, parameters and multiply-adds of the paper's networks next to the paper's figures."""

from __future__ import annotations

import json as json_format
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import resx
from resx import paper
from resx.cli.given import parse_list
from resx.cli.options import Json
from resx.cli.terminal import print_json, print_table
from resx.spec import SpecError, build_spec, did_you_mean

if TYPE_CHECKING:
    from resx.model.complexity import Reference

COUNTS = Path(resx.__file__).parent / "model" / "counts.json"  # read at once; counting takes seconds


def models(
    family: Annotated[str | None, typer.Option("--family", help="Only this family: cifar, imagenet or vgg.")] = None,
    depth: Annotated[
        str | None, typer.Option("--depth", "--depths", help="Count networks of these depths.", metavar="N|LIST")
    ] = None,
    shortcut: Annotated[str | None, typer.Option("--shortcut", help="With --depth: none (plain), identity, …")] = None,
    adapter: Annotated[
        str | None, typer.Option("--adapter", help="With --depth: A, B, C or spatial+grow+shrink.")
    ] = None,
    width: Annotated[int | None, typer.Option("--width", help="With --depth: channels of stage 1.")] = None,
    order: Annotated[str | None, typer.Option("--order", help="With --depth: post or pre.")] = None,
    norm: Annotated[str | None, typer.Option("--norm", help="With --depth: batch or none.")] = None,
    json: Json = False,
) -> None:
    """Count the networks' parameters and multiply-adds next to the paper's figures.

    Multiply-adds: those of convolutions and linear layers for one image, 32×32 in the CIFAR family, else
    224×224.
    """
    given = {"shortcut": shortcut, "adapter": adapter, "width": width, "order": order, "norm": norm}
    given = {key: value for key, value in given.items() if value is not None}
    if depth is None:
        if given:
            raise SpecError(f"--{next(iter(given))}: is for one network; give its --depth")
        counted = _counts(family)
    else:
        depths = parse_list(depth, "depth")
        counted = [_one({"family": family or "cifar", "depth": layers, **given}) for layers in depths]
    if json:
        print_json([{key: value for key, value in vars(network).items() if key != "family"} for network in counted])
        return
    _print_table(counted)
    if depth is None and family is None:
        typer.echo(_depth_claim(counted))


@dataclass(frozen=True)
class Counted:
    """A network with its learned parameters and multiply-adds for one input."""

    name: str
    family: str
    depth: int
    parameters: int
    multiply_adds: int


def _counts(family: str | None) -> list[Counted]:
    """Return the paper's networks, from the file next to the code that counts them, or counted."""
    try:
        rows = json_format.loads(COUNTS.read_text(encoding="utf-8"))
        counted = [Counted(**row) for row in rows]
    except (OSError, ValueError, TypeError):
        counted = count_references()
    families = list(dict.fromkeys(network.family for network in counted))
    if family is not None and family not in families:
        raise SpecError(f"--family: no '{family}'{did_you_mean(family, families)}; there are {', '.join(families)}")
    return [network for network in counted if family in (None, network.family)]


def count_references() -> list[Counted]:
    """Count the paper's networks. COUNTS holds the same, which a test compares."""
    from resx.model.complexity import references

    return [_count(item) for item in references()]


def _one(fields: Mapping[str, Any]) -> Counted:
    from resx import model
    from resx.model.complexity import named

    return _count(named(model.complete(build_spec(fields, (model.check_names,)).model)))


def _count(item: Reference) -> Counted:
    from resx.model import count

    complexity = count(item.spec, item.input_shape, item.n_outputs)
    return Counted(item.name, item.spec.family, item.spec.depth, complexity.parameters, complexity.multiply_adds)


def _print_table(counted: list[Counted]) -> None:
    rows = []
    for one in counted:
        parameters, multiply_adds = _published(one)
        own = one.name, str(one.depth), f"{one.parameters:,}"
        rows.append((*own, _short(parameters), _short(one.multiply_adds, digits=2), _short(multiply_adds)))
    print_table(rows, ("<network", "depth", "parameters", "paper", "multiply-adds", "paper"))


def _published(network: Counted) -> tuple[float | None, float | None]:
    """Return the paper's parameters and multiply-adds of a network, None where it prints none."""
    parameters = {"cifar": paper.CIFAR_PARAMETERS_PRINTED}.get(network.family, {}).get(network.depth)
    tables = {"imagenet": paper.IMAGENET_MULTIPLY_ADDS, "vgg": paper.VGG_MULTIPLY_ADDS}
    multiply_adds = tables.get(network.family, {}).get(network.depth)
    return parameters.value if parameters else None, multiply_adds.value if multiply_adds else None


def _short(value: float | None, digits: int | None = None) -> str:
    """Write a count in M or G, with all digits that a published one has, or with this many."""
    if value is None:
        return "–"
    scaled, unit = (value / 1e9, "G") if value >= 1e9 else (value / 1e6, "M")
    return f"{scaled:g} {unit}" if digits is None else f"{scaled:.{digits}f} {unit}"


def _depth_claim(counted: list[Counted]) -> str:
    """Check the paper's '8× deeper than VGG nets but still having lower complexity'."""
    by_name = {network.name: network for network in counted}
    deep, vgg = by_name["ResNet-152"], by_name["VGG-19"]
    times, cost = deep.depth / vgg.depth, deep.multiply_adds / vgg.multiply_adds
    verdict = "holds" if times >= 8 and cost < 1 else "does not hold"
    printed = paper.IMAGENET_MULTIPLY_ADDS[152].value, paper.VGG_MULTIPLY_ADDS[19].value
    return (
        f"'8× deeper than VGG at lower complexity' {verdict}: "
        f"{deep.depth}/{vgg.depth} = {times:.1f}× the depth at {deep.multiply_adds / 1e9:.2f}/"
        f"{vgg.multiply_adds / 1e9:.2f} = {cost:.2f} of the multiply-adds "
        f"(the paper's figures: {printed[0] / 1e9:g}/{printed[1] / 1e9:g} = {printed[0] / printed[1]:.2f})"
    )
