"""`resx runs note`: tags and a note on runs."""

from __future__ import annotations

from typing import Annotated

import typer

from resx.cli import complete
from resx.cli.options import Results
from resx.cli.runs.which import live_root, select_runs
from resx.spec import SpecError


def note(
    names: Annotated[
        list[str], typer.Argument(help="Run ids, or how they begin or end.", autocompletion=complete.runs)
    ],
    text: Annotated[str | None, typer.Option("--text", help="The note; an empty one removes it.")] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="Add a tag; repeat for several.")] = None,
    untag: Annotated[list[str] | None, typer.Option("--untag", help="Remove a tag; repeat for several.")] = None,
    results: Results = None,
) -> None:
    """Write tags and a note on runs; they are no part of a run or of its id.

    Example: [bold]resx runs note 1a2b3c4d --tag lecture --text "first try"[/bold]
    """
    from resx.spec import printable
    from resx.store.run import read_notes, write_notes

    bad = [word for word in tag or [] if word.split() != [word] or printable(word) != word]
    if bad:
        raise SpecError(f"--tag: one word each, not '{bad[0]}'")
    for run in select_runs(live_root(results), names):
        before = read_notes(run.path)
        tags = [word for word in dict.fromkeys([*before["tags"], *(tag or [])]) if word not in (untag or [])]
        note = before["note"] if text is None else text
        write_notes(run.path, tags, note)
        typer.echo(f"{run.run_id}: {' '.join(tags) or 'no tags'}; {note or 'no note'}")
