"""Kill workers, drivers and Ray's head at random while runs are trained on an engine, then let the command finish.

    python tests/kill_engines.py --engine ray --minutes 10

The same as tests/engines/test_kill.py does once. In the end every run has the bytes of an undisturbed one, and no step
was trained twice that a checkpoint had kept.
"""

from __future__ import annotations

import argparse
import os
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from small_runs import specs_of

from resx.engines import train_all
from resx.spec import RunSpec
from resx.store.run import finished_result, read_run
from resx.training.machine import Machine

MARK = "RESX_KILL"  # in the environment of the driver, and of all that it starts
VICTIMS = {"local": ("worker", "driver"), "slurm": ("worker", "driver"), "ray": ("worker", "driver", "head")}
FILES = ("metrics.csv", "predictions.npz")
LIMIT = 300.0  # seconds that a driver may take, on a machine that is busy


def small_sweep(machine: Machine, steps: int = 500) -> list[RunSpec]:
    """Return runs that take some seconds each."""
    return specs_of(machine, *({"steps": steps, "seed": seed, "eval_every": 100} for seed in range(3)))


def drive(engine: str, results: Path, specs: Sequence[RunSpec], mark: str) -> subprocess.Popen[bytes]:
    """Start a process that trains the runs on an engine."""
    words = [engine, str(results), *(spec.model_dump_json() for spec in specs)]
    return subprocess.Popen([sys.executable, __file__, "--drive", *words], env={**os.environ, MARK: mark})


def victim(kind: str, driver: int, results: Path, specs: Sequence[RunSpec], mark: str) -> int | None:
    """Return the process of a kind that is to be killed now, or None where there is none."""
    if kind == "driver":
        return driver
    if kind == "head":
        marked = (pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))) if is_marked(pid, mark))
        return next((pid for pid in marked if b"gcs_server" in read(f"/proc/{pid}/cmdline").partition(b"\0")[0]), None)
    locks = [results / "runs" / spec.run_id / ".lock" for spec in specs if not finished_result(spec, results)]
    holders = [int(words[1]) for lock in locks if len(words := read(str(lock)).split()) == 4]
    return next((pid for pid in holders if pid != driver and is_marked(pid, mark)), None)


def is_marked(pid: int, mark: str) -> bool:
    return f"{MARK}={mark}".encode() in read(f"/proc/{pid}/environ")


def read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def disturb(engine: str, results: Path, specs: Sequence[RunSpec], kills: Iterable[str]) -> int:
    """Train the runs, with a kill in every attempt, then to the end. Return how many kills hit something."""
    hits = 0
    for kind in kills:
        mark = secrets.token_hex(8)
        with drive(engine, results, specs, mark) as driver:
            limit = time.monotonic() + LIMIT
            while driver.poll() is None and victim("worker", driver.pid, results, specs, mark) is None:
                assert time.monotonic() < limit, "nothing is trained"
                time.sleep(0.02)
            time.sleep(random.uniform(0, 1))
            pid = victim(kind, driver.pid, results, specs, mark)
            if driver.poll() is None and pid is not None:
                os.kill(pid, signal.SIGKILL)
                hits += 1
            driver.wait(LIMIT)
        if all(finished_result(spec, results) for spec in specs):
            return hits
    for _ in range(2):  # jobs of a driver that was killed may still be at some of the runs
        with drive(engine, results, specs, "") as driver:
            driver.wait(LIMIT)
        if all(finished_result(spec, results) for spec in specs):
            break
    return hits


def compare(results: Path, undisturbed: Path, specs: Sequence[RunSpec]) -> None:
    """Raise AssertionError where runs are not those of an undisturbed process, or something was trained twice."""
    train_all(specs, Machine(results=undisturbed))
    for spec in specs:
        run, other = (read_run(folder / "runs" / spec.run_id) for folder in (results, undisturbed))
        for name in FILES:
            assert (run.path / name).read_bytes() == (other.path / name).read_bytes(), f"{run.path / name} differs"
        steps = [(attempt["first_step"], attempt["last_step"]) for attempt in run.attempts()]
        assert [first for first, _ in steps[1:]] == [last for _, last in steps[:-1]], f"{run.path}: {steps}"
        assert steps[-1][1] == spec.train.steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=VICTIMS, default="local")
    parser.add_argument("--minutes", type=float, default=10)
    chosen = parser.parse_args()
    end, hits = time.monotonic() + 60 * chosen.minutes, 0
    with tempfile.TemporaryDirectory() as folder:
        for round_ in range(10**6):
            results = Path(folder) / str(round_)
            specs = small_sweep(Machine())
            hits += disturb(chosen.engine, results / "killed", specs, random.choices(VICTIMS[chosen.engine], k=3))
            compare(results / "killed", results / "whole", specs)
            print(f"round {round_ + 1}: {hits} kills, all runs as undisturbed", flush=True)
            if time.monotonic() > end:
                return


if __name__ == "__main__":
    if sys.argv[1:2] == ["--drive"]:
        engine, results, *texts = sys.argv[2:]
        wanted = [RunSpec.model_validate_json(text) for text in texts]
        train_all(wanted, Machine(results=Path(results), jobs=2, engine=engine))
    else:
        main()
