"""Finished networks block by block: lesions, fitted maps, the gradient by path length, and its norm by layer."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from resx.figures import FIGURES, parts, style
from resx.probes import Findings

# panel -> title, x axis
PANELS = {
    "remove": ("one block removed", "block, first to last (0–1)"),
    "random": ("random blocks removed", "blocks removed"),
    "permute": ("blocks exchanged", "exchanges within stages"),
    "linear": ("fitted map: distance", "block, first to last (0–1)"),
    "paths": ("share of the gradient", "path length / blocks"),
    "gradients": ("gradient's norm", "layer, first to last (0–1)"),
}
FIRST = ("running", "from identity", "exact", "norm")  # of the two lines that a network has in most panels


@FIGURES.register("trained")
def draw(findings: Findings) -> Figure:
    """Six panels, one colour per network, means over seeds and draws; a full and a dotted line each."""
    lines = findings.tables["lines"].copy()
    lines["network"] = lines["kind"] + "-" + lines["depth"].astype(str)
    colour = style.colours(list(lines["network"].unique()))
    figure, grid = style.panels(2, 3, 1.75, free=True, labels=0.5)
    for axes, (panel, (title, xlabel)) in zip(grid.flat, PANELS.items(), strict=True):
        axes.set_title(title)
        axes.set_xlabel(xlabel)
        for (network, line), rows in lines[lines["panel"] == panel].groupby(["network", "line"], sort=False):
            means = rows.groupby("x")["value"].mean()
            look: dict[str, Any] = {"linewidth": 1.3} if line in FIRST else {"linewidth": 1.0, "linestyle": ":"}
            axes.plot(means.index, means, color=colour[str(network)], **look)
        if panel in ("random", "permute"):
            style.count_blocks(axes, lines.loc[lines["panel"] == panel, "x"])
    grid[1, 2].set_yscale("log")
    style.heading(
        figure,
        f"Finished networks, block by block: {parts.data_label(findings.frames['runs'])}",
        "Above: test error (%), a removed block is replaced by its shortcut. Norms: relative to the last block's.",
    )
    networks = [parts.handle(network, color=shade, linewidth=1.8) for network, shade in colour.items()]
    kinds = [
        parts.handle("running; from the identity; exact", linewidth=1.3),
        parts.handle("re-estimated; from zero; all paths", linewidth=1.0, linestyle=":"),
    ]
    style.key(figure, networks, kinds)
    return figure
