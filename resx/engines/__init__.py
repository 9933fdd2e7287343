"""Where tasks run: RunSpecs in, finished runs out, several at a time; a failure of one leaves the others alone.

On a CPU every network trains on one thread in a process of its own, as many processes as `jobs`: measured, two
processes of one thread beat one of two, and the numbers do not depend on how many there are. On a GPU networks that
share data and schedule train side by side in one process, as branches of one CUDA graph, at most `jobs` of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resx.engines.here import Report, train_here
from resx.engines.processes import train_in_processes
from resx.spec import RunSpec
from resx.store.run import finished_result
from resx.training.machine import Machine


@dataclass(frozen=True)
class Outcome:
    """What became of a run. result: its result.json; error: one line where it failed."""

    spec: RunSpec
    result: Mapping[str, Any] | None = None
    error: str | None = None

    def summary(self, results: Path) -> dict[str, Any]:
        """Return what `--json` prints of a run; errors in percent, None where there is no number."""
        result = self.result or {}
        return {
            "run_id": self.spec.run_id,
            "status": result.get("status", "failed"),
            "steps": result.get("steps_done"),
            "train_error": result.get("train_error"),
            "test_error": result.get("test_error"),
            "seconds": result.get("seconds"),
            "folder": str(results / "runs" / self.spec.run_id),
        }


def train_all(specs: Sequence[RunSpec], machine: Machine, report: Report = lambda progress: None) -> list[Outcome]:
    """Train what is not finished yet and return the outcome of every spec, in the order given.

    A diverged run is an outcome; a failed one has `error`. Raises Stopped, with checkpoints left, on Ctrl-C or SIGTERM.
    """
    errors: dict[str, str] = {}
    todo = [spec for spec in specs if finished_result(spec, machine.results) is None]
    todo.sort(key=lambda spec: spec.model.depth * spec.train.steps, reverse=True)  # the longest first: none waits alone
    for generation in _generations(todo):
        if machine.device.startswith("cuda") or machine.jobs == 1 or len(generation) == 1:
            errors |= train_here(generation, machine, report)
        else:
            errors |= train_in_processes(generation, machine, report)
    return [Outcome(spec, finished_result(spec, machine.results), errors.get(spec.run_id)) for spec in specs]


def _generations(todo: Sequence[RunSpec]) -> Iterator[list[RunSpec]]:
    """Yield the specs in groups: a run that starts from another's weights comes after it."""
    left = list(todo)
    while left:
        ids = {spec.run_id for spec in left}
        ready = [spec for spec in left if spec.init_from is None or spec.init_from.run not in ids]
        yield ready
        left = [spec for spec in left if spec not in ready]


def left_to_train(specs: Sequence[RunSpec], machine: Machine) -> dict[str, int]:
    """Return the steps of every run that is not finished yet, by its id. Raises StoreError where one is damaged."""
    return {spec.run_id: spec.train.steps for spec in specs if finished_result(spec, machine.results) is None}
