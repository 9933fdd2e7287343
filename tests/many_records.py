"""How long commands take in a folder of many recorded runs, next to importing pandas.

    python tests/many_records.py --runs 10000 --publish results/bench

The runs are made up: what a finished run of 276 steps records, without weights.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from resx.spec import build_spec
from resx.store.environment import describe_environment
from resx.store.files import write_atomic
from resx.store.index import SETTLED
from resx.store.manifest import Manifest, stamp
from resx.store.run import metrics_text, spec_text

DRAWN = 24  # of the runs, in a figure
SPLITS = ("train", "test")


def make_up(results: Path, runs: int) -> None:
    """Write so many finished runs that differ in their seed."""
    base = build_spec({"preset": "digits", "depth": 8})
    losses = {f"{split}_{name}": value for split in SPLITS for name, value in (("loss", 1.0), ("error", 50.0))}
    curve = metrics_text([{"step": float(step), "lr": 0.02, **losses} for step in range(0, 277, 23)])
    for seed in range(runs):
        spec = base.model_copy(update={"seed": seed})
        outcome = {"run_id": spec.run_id, "status": "finished", "steps_done": 276, "data_label": "digits", **losses}
        folder = results / "runs" / spec.run_id
        folder.mkdir(parents=True)
        texts = {
            "spec.json": spec_text(spec),
            "metrics.csv": curve,
            "result.json": json.dumps({**outcome, "seconds": 1.0, "parameters": 9}),
        }
        for name, text in texts.items():
            (folder / name).write_text(text)
        stamps = {name: stamp(text.encode()) for name, text in texts.items()}
        (folder / "manifest.json").write_text(Manifest(spec.run_id, stamps).to_text())


def seconds_of(*command: str) -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    return time.perf_counter() - begun


def measure(runs: int) -> dict[str, Any]:
    """Return wall seconds by what is done, each the least of three, but for the first list."""
    with tempfile.TemporaryDirectory() as name:
        results = Path(name)
        make_up(results, runs)
        there = ("--results", name)
        seeds = ",".join(map(str, range(min(DRAWN, runs))))
        listing = ("-m", "resx", "runs", "list", *there)
        commands = {
            "python -c 'import pandas'": ("-c", "import pandas"),
            "resx runs list": listing,
            "resx runs list --json": (*listing, "--json"),
            f"resx plot curves, {DRAWN} runs": ("-m", "resx", "plot", "curves", "--seed", seeds, *there),
        }
        time.sleep(SETTLED)
        first = {"resx runs list, which makes the index": seconds_of(*listing)}
        seconds = first | {what: min(seconds_of(*command) for _ in range(3)) for what, command in commands.items()}
    made = describe_environment("cpu", 1)
    return {key: made[key] for key in ("hardware", "commit", "started")} | {"runs": runs, "seconds": seconds}


def page(result: dict[str, Any], command: str) -> str:
    rows = [f"| {what} | {seconds:.1f} |" for what, seconds in result["seconds"].items()]
    head = ["# Many recorded runs", "", f"`{command}` · {result['hardware']} · a folder of {result['runs']:,} runs;"]
    return (
        "\n".join([*head, "the least of three, but for the first list.", "", "| what | seconds |", "|---|---|", *rows])
        + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--publish", type=Path)
    given = parser.parse_args()
    result = measure(given.runs)
    text = page(result, f"python tests/many_records.py --runs {given.runs} --publish results/bench")
    print(text)
    if given.publish:
        write_atomic(given.publish / "records.md", text)


if __name__ == "__main__":
    main()
