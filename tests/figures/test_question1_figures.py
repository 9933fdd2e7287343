"""Figures of responses, gradients and paths: from made-up tables, one seed and several, some networks absent."""

import numpy as np
import pandas as pd
import pytest

from resx.figures import FIGURES


def probes_of(runs):
    """Return tables as the probes give them, with made-up values; a dead network among the gradients."""
    found = {"responses": [], "gradients": [], "shattering": [], "paths": []}
    for run in runs.itertuples():
        blocks = np.arange(1, (run.depth - 2) // 2 + 1)
        for step in (0, 20, 276):
            key = {"run_id": run.run_id, "step": step}
            for quantity in ("std",) if run.shortcut == "none" else ("std", "ratio", "cosine"):
                found["responses"].append(
                    pd.DataFrame({**key, "quantity": quantity, "layer": blocks, "value": 1 / blocks})
                )
            values = np.zeros(len(blocks)) if step == 276 and run.seed == 1 else 1.1**-blocks
            table = {**key, "quantity": "activation", "stage": 0, "layer": blocks, "value": values}
            found["gradients"].append(pd.DataFrame(table))
            distance = 4.0 ** np.arange(-3, 1)
            found["shattering"].append(pd.DataFrame({**key, "distance": distance, "correlation": 1 - distance}))
            if run.shortcut != "none":
                n = len(blocks)
                table = {"length": range(n + 1), "share": 1 / (n + 1), "gradient": 1.0, "whole": 1.0}
                found["paths"].append(pd.DataFrame({**key, **table, "sampled": 1 / (n + 1), "binomial": 1 / (n + 1)}))
    return {name: pd.concat(tables) for name, tables in found.items()}


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
@pytest.mark.parametrize("shortcuts", [("none", "identity"), ("identity",)])
@pytest.mark.parametrize("name", ["responses", "gradients", "paths"])
def test_every_panel_has_lines(made_up, name, shortcuts, seeds):
    frames = made_up(depths=(20, 32), seeds=seeds, shortcuts=shortcuts)
    figure = FIGURES[name]({**frames, **probes_of(frames["runs"])})
    assert all(any(len(line.get_xdata()) > 2 for line in axes.lines) for axes in figure.axes)
    labels = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert labels
    assert all(np.isfinite(line.get_ydata()).all() for axes in figure.axes for line in axes.lines)
