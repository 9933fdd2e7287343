"""Train one small run in child processes that are killed at random times, then to its end. Run by test_resume.py.

Forks, so that torch is imported once; the parent itself never trains, since a fork must not inherit autograd's threads.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from math import inf
from pathlib import Path
from typing import Any

import torch

from resx.engines import train_all
from resx.spec import RunSpec
from resx.training import loop, step
from resx.training.machine import Machine

torch.set_num_threads(1)

STEPS = 16  # an attempt takes at most so many, and those of the delay, before it is killed
DELAY = 0.01  # seconds


def main(results: Path, spec: RunSpec, kills: int) -> None:
    """Kill `kills` attempts in the middle of their training, then finish."""
    machine = Machine(results=results, jobs=1)
    loop.CHECKPOINT_SHARE = inf  # a checkpoint after every chunk of steps, so that kills fall into writes, too
    random.seed(1)
    for _ in range(kills):
        reader, writer = os.pipe()
        steps, delay = random.randint(1, STEPS), random.uniform(0, DELAY)
        child = os.fork()
        if child == 0:
            _tell_after(steps, writer)
            train_all([spec], machine)
            os._exit(0)
        os.close(writer)
        os.read(reader, 1)  # returns at once, empty, if the child is gone
        os.close(reader)
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    child = os.fork()
    if child == 0:
        [outcome] = train_all([spec], machine)
        os._exit(0 if outcome.result else 1)
    _, status = os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status))


def _tell_after(steps: int, writer: int) -> None:
    """Write a byte once this process has made so many training steps."""
    original, taken = step.train_step, 0

    def train_step(*args: Any) -> None:
        nonlocal taken
        original(*args)
        taken += 1
        if taken == steps:
            os.write(writer, b".")

    step.train_step = train_step


if __name__ == "__main__":
    main(Path(sys.argv[1]), RunSpec.model_validate_json(sys.argv[2]), int(sys.argv[3]))
