"""`resx runs rm` and `resx runs gc`: runs and files that are not wanted any more."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from resx.cli.options import Results, Where
from resx.cli.runs.which import Names, Older, Status, WithStatus, WithTag, Yes, live_root, select_records, select_runs
from resx.spec import SpecError


class Snapshots(StrEnum):
    """Which weights of finished runs `gc` leaves."""

    none = "none"
    ends = "ends"
    log = "log"


def remove(
    names: Names = None,
    where: Where = None,
    status: WithStatus = None,
    tag: WithTag = None,
    older: Older = None,
    unfinished: Annotated[bool, typer.Option("--unfinished", help="The same as --status unfinished.")] = False,
    yes: Yes = False,
    results: Results = None,
) -> None:
    """Remove recorded runs with everything measured on them, damaged ones too.

    Examples: [bold]resx runs rm 1a2b3c4d[/bold], [bold]resx runs rm --unfinished --older 7[/bold],
    [bold]resx runs rm --where lr=1[/bold]
    """
    from resx.store.run import find_path, list_names, remove_run

    root = live_root(results)
    status = Status.unfinished if unfinished else status
    selects = bool(where or status or tag or older is not None)
    if not names and not selects:
        raise SpecError("runs rm: say which: run ids, --where, --status, --unfinished, --tag or --older")
    paths = list(dict.fromkeys(find_path(root, name) for name in names or []))
    if selects:
        there = [root / "runs" / record.row["run_id"] for record in select_records(root, where, status, tag, older)]
        paths = [path for path in paths if path in there] if names else there
    if not paths:
        typer.echo("no run matches; nothing was removed", err=True)
        return
    listed = list_names(paths)
    if not yes and not typer.confirm(f"Remove {len(paths)} runs: {listed}?", err=True):
        typer.echo("nothing was removed", err=True)
        return
    for path in paths:
        remove_run(path)
    typer.echo(f"removed {listed}")


def collect(
    snapshots: Annotated[
        Snapshots,
        typer.Option(help="Weights of finished runs that stay: none, ends (first and last) or log (all)."),
    ] = Snapshots.log,
    names: Names = None,
    yes: Yes = False,
    results: Results = None,
) -> None:
    """Free disk space: what kills left behind, and with --snapshots the weights in between of finished runs.

    A probe that needs weights which are gone says so; training the run again after `runs rm` makes them again.
    """
    from resx.store.mend import remove_leftovers, thin_snapshots

    root = live_root(results)
    question = f"Remove the weights of finished runs in {root / 'runs'} but for {snapshots}?"
    if snapshots is not Snapshots.log and not yes and not typer.confirm(question, err=True):
        typer.echo("nothing was removed", err=True)
        return
    freed = remove_leftovers(root)
    if snapshots is not Snapshots.log:
        freed += sum(thin_snapshots(run, snapshots.value) for run in select_runs(root, names) if run.result)
    typer.echo(f"{freed / 2**20:.1f} MiB freed")
