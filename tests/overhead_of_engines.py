"""What an engine adds to the time of many short runs, against this machine's own processes.

    python tests/overhead_of_engines.py --runs 100 --publish results/bench

Runs of about two seconds each (residual networks of 8 layers on scikit-learn's digits), the same on every engine, in a
folder of their own. slurm is submitit's local executor where there is no srun, ray a Ray that is started here.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from resx.engines import ENGINES, train_all
from resx.spec import RunSpec
from resx.store.environment import describe_environment
from resx.store.files import write_atomic
from resx.training.machine import Machine
from resx.training.resolve import resolve

ENGINE_NAMES = ("local", "slurm", "ray")
SECONDS = 2.0  # of one run


def specs_of(runs: int, steps: int) -> list[RunSpec]:
    fields = {"preset": "digits", "depth": 8, "steps": steps, "eval_every": steps}
    return resolve([{**fields, "seed": seed} for seed in range(runs)], Machine())


def timed(specs: list[RunSpec], **settings: Any) -> float:
    """Train specs in a new folder and return the seconds that it took. Raises RuntimeError where a run failed."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        outcomes = train_all(specs, Machine(results=Path(folder), **settings))
        seconds = time.perf_counter() - begun
    if errors := [outcome.error for outcome in outcomes if outcome.error]:
        raise RuntimeError(errors[0])
    return seconds


def measure(engines: list[str], runs: int, jobs: int) -> dict[str, Any]:
    """Return wall seconds by engine. The length of a run is chosen from one that is trained before, in this process."""
    timed(specs_of(1, 20), jobs=1)  # loads what the first run loads
    steps = max(20, round(200 * SECONDS / timed(specs_of(1, 200), jobs=1)))
    specs = specs_of(runs, steps)
    seconds = {}
    for name in engines:
        seconds[name] = timed(specs, jobs=jobs, engine=name)
        print(f"{name}: {seconds[name]:.1f} s", flush=True)
    made = describe_environment("cpu", 1)
    return {key: made[key] for key in ("hardware", "commit", "started")} | {
        "runs": runs, "jobs": jobs, "steps": steps, "seconds": seconds,
    }  # fmt: skip


def page(result: dict[str, Any], command: str) -> str:
    local = result["seconds"]["local"]
    rows = [
        f"| {name} | {seconds:.0f} | {(seconds - local) / result['runs']:+.2f} |"
        for name, seconds in result["seconds"].items()
    ]
    lines = [
        "# What engines add",
        "",
        f"`{command}` · {result['hardware']} · {result['runs']} runs of {result['steps']} steps, {result['jobs']} at a",
        "time, once. slurm is submitit's local executor, ray a Ray that is started here; its start is in its seconds.",
        "",
        "| engine | seconds | more than local, seconds a run |",
        "|---|---|---|",
        *rows,
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", choices=list(ENGINES), default=list(ENGINE_NAMES))
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--publish", type=Path)
    given = parser.parse_args()
    result = measure(given.engines, given.runs, given.jobs)
    text = page(result, f"python tests/overhead_of_engines.py --runs {given.runs} --publish results/bench")
    print(text)
    if given.publish:
        write_atomic(given.publish / "engines.md", text)


if __name__ == "__main__":
    main()
