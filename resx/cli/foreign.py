"""The options that name networks which others trained, and the runs that they ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resx.spec import SpecError

if TYPE_CHECKING:
    from resx.training.machine import Machine

FOREIGN, FOREIGN_OPTIONS = "Networks that others trained", ("network", "weights", "blocks")
Network = Annotated[
    list[str] | None,
    typer.Option(
        help="Measure a trained network instead: akamaster/resnet56, torchvision/NAME, timm/NAME or FILE.py:FUNCTION; "
        "repeat for several, each with its --weights.",
        rich_help_panel=FOREIGN,
    ),
]
Weights = Annotated[
    list[str] | None,
    typer.Option(
        help="A file of its weights (torch.save or safetensors; nothing in it is executed), a folder with those that "
        "an experiment names, or DEFAULT for torchvision's.",
        rich_help_panel=FOREIGN,
    ),
]
BlockNames = Annotated[
    str | None,
    typer.Option(
        "--blocks",
        help="Its blocks by name or pattern, with commas between, such as 'layer*.*'; by default they are found.",
        rich_help_panel=FOREIGN,
    ),
]


@dataclass(frozen=True)
class Foreigners:
    """The networks that others trained, as the options name them."""

    network: Network = None
    weights: Weights = None
    blocks: BlockNames = None

    def applied(self, grid: Mapping[str, Sequence[Any]], machine: Machine) -> tuple[dict[str, Sequence[Any]], Machine]:
        """Return the grid with these networks in it, and the machine that knows where their weights are.

        Raises SpecError where networks and weights do not pair up.
        """
        from resx.training.foreign import describe_foreign

        networks, weights = self.network or (), self.weights or ()
        placed = replace(machine, weights=tuple(weights))
        if not networks:
            if self.blocks:
                raise SpecError("--blocks: is for a network that --network names")
            return dict(grid), placed
        if len(networks) != len(weights):
            raise SpecError(f"--network: {len(networks)} networks and {len(weights)} --weights; give a pair each")
        pairs = zip(networks, weights, strict=True)
        files = [Path(name.rpartition(":")[0]) for name in networks if ".py:" in name]
        values = [describe_foreign(network, file, self.blocks) for network, file in pairs]
        return {**grid, "foreign": values}, replace(placed, code=files[0] if files else None)
