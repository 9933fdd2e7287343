"""`resx runs check`: what is wrong with which run, and its repair."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from resx.cli.options import Results
from resx.cli.runs.which import Names, live_root
from resx.spec import SpecError


def check(
    names: Names = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Make again what can be: metrics and predictions from the checkpoint, …")
    ] = False,
    results: Results = None,
) -> None:
    """Read every file of runs as it will be read later, and say what is wrong with which; then exit code 1.

    --repair restores the manifest, metrics.csv, predictions and the result from the checkpoint. A log or measurements
    that nothing ties to the run are set aside. Nothing else is changed.
    """
    from resx.store.files import StoreError
    from resx.store.mend import mend, problems
    from resx.store.run import find_path, find_runs

    root = live_root(results)
    paths = [find_path(root, name) for name in names] if names else find_runs(root)
    wrong = 0
    for path in paths:
        lines = problems(path)
        if lines and repair:
            try:
                for line in [*mend(path), *_train_again(path)]:
                    typer.echo(f"resx: {line}", err=True)
                lines = problems(path)
            except (StoreError, SpecError) as error:
                lines = [str(error)]
        for line in lines:
            typer.echo(f"resx: {line}", err=True)
        wrong += bool(lines)
    typer.echo(f"{len(paths)} runs checked, {wrong} damaged")
    if wrong:
        raise typer.Exit(1)


def _train_again(path: Path) -> list[str]:
    """Make the predictions and the result of a run from its checkpoint, where only they are damaged."""
    from resx.store.mend import problems

    lines = problems(path)
    if not lines or not all("result.json" in line or "predictions.npz" in line for line in lines):
        return []
    from resx.engines import train_all
    from resx.store.run import read_run
    from resx.training.machine import Machine

    [outcome] = train_all([read_run(path).spec], Machine(results=path.parent.parent))
    return [outcome.error] if outcome.error else [f"{line}; made again from checkpoint.pt" for line in lines]
