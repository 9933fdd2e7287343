"""The time of a training step with each shortcut function, next to the identity's.

All networks are measured in one process and in turns, on a CPU by core-seconds, so that a busy spell hits them alike.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from resx.bench.plan import Plan
from resx.bench.process import spread, timed
from resx.bench.show import cell
from resx.bench.subjects import engine
from resx.model.shortcuts import SHORTCUTS
from resx.probes.page import markdown
from resx.store.environment import describe_environment
from resx.store.files import write_atomic
from resx.training.machine import computing, own_settings

REFERENCE = "identity"
COLUMNS = ("<shortcut", "ms/step", "of the identity's")


def measure(plan: Plan, say: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Return [median, least, most] of a step's milliseconds and of its ratio to the identity's, by shortcut.

    The network has the plan's first depth; the shortcuts are all that are registered, with default arguments.
    """
    samples: dict[str, list[float]] = {}
    by = "wall" if plan.device.startswith("cuda") else "core"
    with ExitStack() as stack:
        stack.enter_context(own_settings())
        torch.set_num_threads(plan.threads)
        stack.enter_context(computing(plan.precision))
        subjects = {
            name: stack.enter_context(engine(replace(plan, shortcut=name), plan.depths[0])) for name in SHORTCUTS
        }
        first = [timed(subject, "train", 1) for subject in (*subjects.values(), subjects[REFERENCE])]
        steps = max(1, round(plan.seconds / first[-1].wall))  # the first ones also allocate memory
        for repetition in range(plan.repetitions):
            for name, subject in subjects.items():
                sample = timed(subject, "train", steps)
                samples.setdefault(name, []).append(getattr(sample, by) / sample.steps)
            say(f"{repetition + 1} of {plan.repetitions}")
    rows = {
        name: {
            "ms_per_step": spread([1000 * value for value in values]),
            "ratio": spread([value / own for value, own in zip(values, samples[REFERENCE], strict=True)]),
        }
        for name, values in samples.items()
    }
    environment = describe_environment(plan.device, plan.threads)
    return {"environment": environment, "plan": asdict(plan), "by": by, "shortcuts": rows}


def table_rows(result: dict[str, Any]) -> list[list[str]]:
    """Return the cells under COLUMNS, the quickest first: median (least–most)."""
    rows = sorted(result["shortcuts"].items(), key=lambda item: item[1]["ratio"][0])
    return [[name, cell(row["ms_per_step"]), cell(row["ratio"], 2)] for name, row in rows]


def caption(result: dict[str, Any]) -> str:
    """Return a line on what was measured and where."""
    plan, environment = result["plan"], result["environment"]
    clock = {"core": "core-seconds", "wall": "time on the clock"}[result["by"]]
    size, repetitions = plan["image_size"], plan["repetitions"]
    return (
        f"{environment['hardware']}, torch {environment['torch']}, {clock}: median (least–most) of {repetitions} "
        f"measurements in turns; {plan['depths'][0]} layers, batch {plan['batch_size']}, images {size}×{size}, "
        f"{plan['precision']}"
    )


def publish(result: dict[str, Any], folder: Path) -> list[Path]:
    """Write the table, shortcuts.md, into a folder."""
    columns = [column.removeprefix("<") for column in COLUMNS]
    lines = [
        "# A training step with each shortcut",
        "",
        f"`{result['environment']['command']}`, commit {result['environment']['commit']}. {caption(result)}.",
        "",
        *markdown(columns, table_rows(result)),
    ]
    write_atomic(folder / "shortcuts.md", "\n".join(lines) + "\n")
    return [folder / "shortcuts.md"]
