"""The results of a measurement: a table, lines for the reader, and the numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from resx.bench.plan import loops_of
from resx.probes.page import markdown
from resx.store.files import write_atomic

STEPS = {"graph": "steps are replayed as a CUDA graph", "eager": "steps are started one by one"}
COLUMNS = ("depth", "what", "loop", "ms/step", "images/s", "of limit", "MiB")


def table_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """Return the cells under COLUMNS: median (least–most); memory is the peak above that of a bare process."""
    return [
        [
            str(row["depth"]),
            row["what"],
            row["loop"],
            cell(row["ms_per_step"]),
            cell(row["images_per_second"]),
            f"{row['share_of_limit'][0]:.0%}" if row["share_of_limit"] else "–",
            "–" if row["peak_memory"] is None else f"{row['peak_memory'] / 2**20:.0f}",
        ]
        for row in result["rows"]
    ]


def summary_lines(result: Mapping[str, Any]) -> list[str]:
    """Return the ratios, the limit with its assumptions, where a step's time goes, and warnings."""
    lines = [f"depth {item['depth']}, {item['what']}: {cell(item['ratio'], 2)}" for item in result["ratios"]]
    flops, traffic = result["limits"]["flops_per_second"], result["limits"]["bytes_per_second"]
    lines.append(
        f"limit: {flops[0] / 1e9:.0f} GFLOP/s ({flops[1] / 1e9:.0f}–{flops[2] / 1e9:.0f}), the best of matrix products "
        f"and convolutions; {traffic[0] / 1e9:.0f} GB/s ({traffic[1] / 1e9:.0f}–{traffic[2] / 1e9:.0f}), a large copy. "
        "A step takes at least the longer of its arithmetic (convolutions and linear layers) at the first and its "
        "traffic (unfused operations, inputs and outputs once each) at the second"
    )
    if result["environment"]["device"] == "cuda":
        lines += [f"{name}: {STEPS[mode]}" for name, mode in result["modes"].items()]
        lines += [_best_number(result, depth) for depth in result["plan"]["depths"]]
    for depth, shares in result["profiles"].items():
        listed = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        lines.append(f"where a training step's time goes at depth {depth}: {listed}")
    return lines + [f"WARNING: {warning}" for warning in result["warnings"]]


def _best_number(result: Mapping[str, Any], depth: int) -> str:
    """Return a line on how many networks side by side train the most images a second on a GPU."""
    numbers = loops_of(result["plan"]["networks"])
    rates = {
        row["loop"]: row["images_per_second"][0]
        for row in result["rows"]
        if (row["depth"], row["what"]) == (depth, "train") and row["loop"] in numbers
    }
    best = max(rates, key=lambda name: rates[name])
    return f"depth {depth}: the most images a second ({rates[best]:.0f}) with --jobs {numbers[best]}"


def cell(spread: Sequence[float], digits: int | None = None) -> str:
    def text(value: float) -> str:
        return f"{value:.{digits}f}" if digits is not None else f"{value:.3g}" if value < 100 else f"{value:.0f}"

    return f"{text(spread[0])} ({text(spread[1])}–{text(spread[2])})"


def publish(result: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write the table (Markdown) and the numbers (JSON) into a folder, named after the machine and the networks."""
    environment, plan = result["environment"], result["plan"]
    layers = "-".join(map(str, plan["depths"]))
    words = f"{environment['hardware']}-{plan['precision']}-{layers}-layers-{plan['image_size']}px-{plan['batch_size']}"
    words += "-checkpoint-activations" if plan["checkpoint_activations"] else ""
    slug = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")
    lines = [
        f"# {environment['hardware']}",
        "",
        f"`{environment['command']}`; torch {environment['torch']}, Python {environment['python']}, commit "
        f"{environment['commit']}, {environment['started']}. {plan['precision']}, batch {plan['batch_size']}, images "
        f"{plan['image_size']}×{plan['image_size']}, {plan['threads']} thread(s) a process, median (least–most) of "
        f"{plan['repetitions']} measurements in turns.",
        "",
        *markdown(COLUMNS, table_rows(result)),
        "",
        *(f"* {line}" for line in summary_lines(result)),
        "",
    ]
    files = [folder / f"{slug}.md", folder / f"{slug}.json"]
    write_atomic(files[0], "\n".join(lines))
    write_atomic(files[1], json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    return files
