"""`resx runs show` and `resx runs diff`: one run, and in what two differ."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from resx.cli import complete
from resx.cli.options import Json, Results
from resx.cli.runs.which import live_root
from resx.spec import SpecError


def show(
    name: Annotated[str, typer.Argument(help="A run id, or how it begins or ends.", autocompletion=complete.runs)],
    results: Results = None,
    json: Json = False,
) -> None:
    """Show one run: its spec, its result, and on what it was made."""
    from resx.cli.terminal import number, print_json, print_lines, print_table
    from resx.store.run import find_run, read_notes

    run = find_run(live_root(results), name)
    notes, attempts = read_notes(run.path), run.attempts()
    content = {
        "run_id": run.run_id,
        "spec": run.spec.model_dump(mode="json", exclude_none=True),
        "result": run.result,
        "attempts": attempts,
        "snapshots": list(run.snapshots()),
        "folder": run.path,
        **notes,
    }
    if json:
        print_json(content)
        return
    fields = [[key, str(value)] for key, value in run.spec.flat().items() if value is not None]
    print_table(fields, ["<field", "<value"], title=run.run_id)
    result = content["result"] or {"status": "unfinished"}
    print_table(
        [[key, number(value, 4) if isinstance(value, float) else str(value)] for key, value in result.items()],
        ["<result", "<value"],
    )
    if notes["tags"] or notes["note"]:
        print_lines([f"tags: {' '.join(notes['tags'])}", f"note: {notes['note']}"])
    print_lines([_attempt(attempt) for attempt in attempts])
    if not attempts:
        print_lines(["environment.json is missing or damaged: on what it was made is not known"])


def _attempt(attempt: dict[str, Any]) -> str:
    cells = {key: attempt.get(key, "?") for key in ("first_step", "last_step", "hardware", "device", "torch", "commit")}
    return (
        f"steps {cells['first_step']}–{cells['last_step']}: {attempt['seconds']:.0f} s on {cells['hardware']} "
        f"({cells['device']}, torch {cells['torch']}, commit {cells['commit']}), {attempt.get('started', '?')}"
    )


def diff(
    first: Annotated[str, typer.Argument(help="A run id, or how it begins or ends.", autocompletion=complete.runs)],
    second: Annotated[str, typer.Argument(help="Another.", autocompletion=complete.runs)],
    results: Results = None,
    json: Json = False,
) -> None:
    """Show in what two runs differ: fields of their specs, then their results."""
    from resx.cli.terminal import print_json, print_table
    from resx.store.run import find_path, read_record
    from resx.store.select import NAMES, as_text

    root = live_root(results)
    records = [read_record(find_path(root, name)) for name in (first, second)]
    for record in records:
        if record.damage:
            raise SpecError(record.damage)
    names = [name for name in NAMES if name != "run_id"]
    rows = {name: [record.row.get(name) for record in records] for name in names}
    rows = {name: values for name, values in rows.items() if as_text(values[0]) != as_text(values[1])}
    ids = [record.row["run_id"] for record in records]
    if json:
        print_json({name: dict(zip(ids, values, strict=True)) for name, values in rows.items()})
        return
    cells = [[f"{one:g}" if isinstance(one, float) else as_text(one) for one in values] for values in rows.values()]
    print_table(
        [[name, *row] for name, row in zip(rows, cells, strict=True)],
        ["<field", *(f"<{run_id[-8:]}" for run_id in ids)],
    )
