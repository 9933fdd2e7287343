"""What is wrong with recorded runs, what can be repaired, and what only takes space."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from resx.store.files import TEMPORARY, StoreError, hold_lock, remove_tree
from resx.store.manifest import FILE, Committed, Damaged, commit, forget, manifest_of, read_manifest
from resx.store.run import RunFolder, faults, find_runs, metrics_text, open_run, read_run, remove_aside


def problems(path: Path) -> list[str]:
    """Return what is wrong with the files of a recorded run, a line each."""
    try:
        return [line for line in faults(read_run(path)).values() if line]
    except StoreError as error:
        return [str(error)]


def mend(path: Path) -> list[str]:
    """Make again what the rest of a damaged run determines, and return what was done, a line each.

    The manifest is made from the files that are surely the run's own, metrics.csv from the checkpoint; a damaged log is
    set aside. What needs the network (predictions, the result) is made by training, which goes on from the checkpoint.
    Raises StoreError where the spec itself cannot be read, and where another process works on the run.
    """
    try:
        spec = read_run(path, Committed(path, manifest_of(path))).spec  # whatever its manifest says
    except StoreError as error:
        file = path / "spec.json"
        raise StoreError(f"{file}: cannot be read; training with the command that made it writes it anew") from error
    lines = []
    with open_run(path.parent.parent, spec) as run:
        try:
            run.rows()
        except Damaged as error:
            saved = run.load_checkpoint()
            if saved is not None:
                commit(path, {"metrics.csv": metrics_text(saved[1]).encode()})
                lines.append(f"{error}; made again from checkpoint.pt")
        log = path / "environment.json"
        try:
            Committed(path).read(log.name)
        except StoreError as error:
            with suppress(FileNotFoundError):
                os.replace(log, log.with_name(f"{log.name}.damaged"))
            forget(path, [log.name])
            lines.append(f"{error}; set aside, the log starts anew")
    return lines


def remove_leftovers(results: Path) -> int:
    """Remove what kills left behind in a folder of results, and return its bytes; runs in training are left alone."""
    freed = remove_aside(results / "runs") + remove_imports(results / "runs")
    for path in find_runs(results):
        with suppress(StoreError), hold_lock(path / ".lock"):
            freed += _remove(_leftovers(path))
    return freed


def remove_imports(runs: Path) -> int:
    """Remove the folders that killed imports left, and return their bytes."""
    freed = 0
    for folder in runs.glob(".import-*"):
        with suppress(StoreError), hold_lock(folder / ".lock"):
            freed += remove_tree(folder)
    return freed


def _leftovers(path: Path) -> list[Path]:
    """Return the temporary files of killed writes, and snapshots that were never committed."""
    leftovers, manifest = list(path.rglob(TEMPORARY)), read_manifest(path)
    if manifest is not None:
        names = {f"snapshots/{file.name}": file for file in (path / "snapshots").glob("step-*.pt")}
        stray = names.keys() - {*manifest.files, *manifest.coming}
        leftovers += [names[name] for name in sorted(stray) if FILE.fullmatch(name)]
    return leftovers


def thin_snapshots(run: RunFolder, which: str) -> int:
    """Remove a finished run's weights but for the first and the last (`ends`), or all (`none`); return their bytes."""
    with open_run(run.path.parent.parent, run.spec):
        files = run.snapshots()
        ends = {min(files), max(files)} if files and which == "ends" else set()
        gone = [file for step, file in files.items() if step not in ends]
        forget(run.path, [f"snapshots/{file.name}" for file in gone])
        return _remove(gone)


def _remove(files: list[Path]) -> int:
    freed = sum(file.stat().st_size for file in files if file.exists())
    for file in files:
        file.unlink(missing_ok=True)
    return freed
