"""Train one small run in child processes that are killed at random times, then to its end. Run by test_resume.py.

Forks, so that torch is imported once; the parent itself never trains, since a fork must not inherit autograd's threads.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from resx.spec import RunSpec
from resx.training.many import Machine, train_all

torch.set_num_threads(1)


def main(results: Path, spec: RunSpec, kills: int) -> None:
    """Kill `kills` attempts, print the step that each resumed from, and finish."""
    machine = Machine(results=results, jobs=1)
    random.seed(1)
    for attempt in range(kills):
        child = os.fork()
        if child == 0:
            train_all([spec], machine)
            os._exit(0)
        _wait_for_attempt(results / "runs" / spec.run_id / "environment.json", attempt)
        time.sleep(random.uniform(0, 0.2))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    child = os.fork()
    if child == 0:
        [outcome] = train_all([spec], machine)
        os._exit(0 if outcome.result else 1)
    _, status = os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status))


def _wait_for_attempt(record: Path, attempt: int) -> None:
    """Wait until the child has begun to train, so that the kill falls into training."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if record.exists() and len(json.loads(record.read_text())) > attempt:
            return
        time.sleep(0.005)


if __name__ == "__main__":
    main(Path(sys.argv[1]), RunSpec.model_validate_json(sys.argv[2]), int(sys.argv[3]))
