"""Single-file bundles: runs that travel from one machine to another.

A bundle comes from anywhere. Its directory is checked before anything of it is read (names, number, sizes, how far it
would swell), its files are unpacked in a private folder and read there as they will be later, and only then do its runs
take their places, each by one rename.

For programs that know nothing of resx a bundle is an RO-Crate (version 1.1, researchobject.org): a description in
schema.org's words, which an import passes over.
"""

from __future__ import annotations

import datetime
import os
import secrets
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from resx.spec import SpecError, first_line
from resx.store.environment import shortened
from resx.store.files import (
    MAX_TEXT,
    Busy,
    StoreError,
    atomic_file,
    cannot_write,
    hold_lock,
    sync_folder,
    to_json,
)
from resx.store.manifest import FILE, MANIFEST, Committed, Manifest, stamp
from resx.store.mend import problems, remove_imports
from resx.store.run import RUN_ID, RunFolder, is_recorded

FILES_A_RUN = 500  # of a run: about 20, more with many measurements
SWELLING = 100  # times its packed size that a large member may unpack to; weights hardly shrink
LARGE = 64 * 2**20  # bytes
CRATE = "ro-crate-metadata.json"


def export_bundle(runs: Sequence[RunFolder], target: Path) -> None:
    """Write runs with all that is committed of them into one zip file, without paths of this machine in it.

    The same runs give the same bytes. Raises StoreError, for a damaged run too.
    """
    with atomic_file(target) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as bundle:
        for run in runs:
            committed = Committed(run.path)
            stamps = {}
            for name in committed.names():
                data = committed.read(name)
                if data is not None:
                    data = without_places(run) if name == "environment.json" else data
                    stamps[name] = stamp(data)
                    _add(bundle, f"{run.run_id}/{name}", data)
            _add(bundle, f"{run.run_id}/{MANIFEST}", Manifest(run.run_id, stamps).to_text().encode())
        _add(bundle, CRATE, to_json(_crate(runs)).encode())


def _crate(runs: Sequence[RunFolder]) -> dict[str, Any]:
    """Return the RO-Crate's description: of itself, of the whole, and of the folder of every run."""
    dates = {
        run.run_id: max((str(attempt.get("started", "")) for attempt in run.attempts()), default="") for run in runs
    }
    today = datetime.date.today().isoformat()  # where no run says when it was made
    folders = [
        {
            "@id": f"{run.run_id}/",
            "@type": "Dataset",
            "name": run.run_id,
            "description": "One network trained from one specification (spec.json), "
            f"{run.result['status'] if run.result else 'unfinished'}: curves in metrics.csv, measurements in probes/, "
            "size and SHA-256 of every file in manifest.json.",
            **({"dateCreated": dates[run.run_id]} if dates[run.run_id] else {}),
        }
        for run in runs
    ]
    whole = {
        "@id": "./",
        "@type": "Dataset",
        "name": f"{len(runs)} runs of resx",
        "description": "Recorded trainings of plain and residual networks; `resx runs import` takes them in.",
        "datePublished": max(dates.values(), default="") or today,
        "hasPart": [{"@id": folder["@id"]} for folder in folders],
    }
    itself = {
        "@id": CRATE,
        "@type": "CreativeWork",
        "about": {"@id": "./"},
        "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
    }
    return {"@context": "https://w3id.org/ro/crate/1.1/context", "@graph": [itself, whole, *folders]}


def _add(bundle: zipfile.ZipFile, name: str, data: bytes) -> None:
    member = zipfile.ZipInfo(name)  # dated 1980: a zip file cannot hold every file's own date
    member.compress_type = zipfile.ZIP_DEFLATED
    member.external_attr = 0o644 << 16
    bundle.writestr(member, data)


def without_places(run: RunFolder) -> bytes:
    """Return a run's environment.json without the folders of this machine."""
    attempts = [
        {key: shortened(value) if isinstance(value, str) else value for key, value in attempt.items()}
        for attempt in run.attempts()
    ]
    return to_json(attempts).encode()


def import_bundle(source: Path, results: Path) -> tuple[list[str], list[str]]:
    """Take in the runs of a bundle; return the ids that are new and those that were here already and stay.

    The whole file is checked before any run takes its place. Raises SpecError where it is no bundle, is damaged, or
    holds anything but intact runs; StoreError where it cannot be written.
    """
    if source.exists() and not source.is_file():
        raise SpecError(f"{source}: not a file")  # a pipe would be waited for
    try:
        with zipfile.ZipFile(source) as bundle:
            members = _members(bundle, source)
            new = [run_id for run_id in members if not is_recorded(results / "runs" / run_id)]
            _check_room(members, new, results, source)
            with _private_folder(results / "runs") as folder:
                for run_id in new:
                    _unpack(bundle, members[run_id], folder, source)
                for run_id in new:
                    _check(folder / run_id, source)
                new = [run_id for run_id in new if _place(folder / run_id, results / "runs" / run_id)]
    except (SpecError, StoreError):
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
        reason = first_line(error)
        raise SpecError(f"{source}: not a bundle of runs, or damaged ({reason}); nothing was imported") from error
    except OSError as error:
        raise SpecError(f"{source}: cannot be read ({error.strerror or error})") from error
    return new, [run_id for run_id in members if run_id not in new]


def _members(bundle: zipfile.ZipFile, source: Path) -> dict[str, list[zipfile.ZipInfo]]:
    """Return the members of each run, after a look at the directory alone. Raises SpecError."""

    def refuse(why: str) -> SpecError:
        return SpecError(f"{source}: {why}; nothing was imported")

    runs: dict[str, list[zipfile.ZipInfo]] = {}
    names = set()
    for member in bundle.infolist():
        name = member.filename
        if name == CRATE:
            continue
        run_id, _, file = name.partition("/")
        if not RUN_ID.fullmatch(run_id) or not (FILE.fullmatch(file) or file == MANIFEST):
            raise refuse(f"holds {name!r:.200}, which is not a file of a run")
        if name in names:
            raise refuse(f"holds {name} twice")
        if member.file_size > LARGE and member.file_size > SWELLING * member.compress_size:
            raise refuse(f"{name} would swell to {member.file_size / 2**30:.1f} GiB, which no file of a run does")
        if member.file_size > MAX_TEXT and file.endswith((".json", ".csv")):
            raise refuse(f"{name} is too large ({member.file_size:,} bytes)")
        names.add(name)
        runs.setdefault(run_id, []).append(member)
        if len(runs[run_id]) > FILES_A_RUN:
            raise refuse(f"{run_id} holds more than {FILES_A_RUN} files")
    if not runs:
        raise refuse("holds no run")
    return dict(sorted(runs.items()))


def _check_room(members: dict[str, list[zipfile.ZipInfo]], new: list[str], results: Path, source: Path) -> None:
    size = sum(member.file_size for run_id in new for member in members[run_id])
    place = next(folder for folder in (results, *results.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(place).free
    if size > free:
        raise SpecError(f"{source}: takes {size / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are free in {place}")


@contextmanager
def _private_folder(runs: Path) -> Iterator[Path]:
    """Make a folder that no other import uses, and remove it in the end; those that killed imports left go, too."""
    remove_imports(runs)
    folder = runs / f".import-{secrets.token_hex(8)}"
    with hold_lock(folder / ".lock", make=True):
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _unpack(bundle: zipfile.ZipFile, members: Sequence[zipfile.ZipInfo], folder: Path, source: Path) -> None:
    for member in members:
        target = folder / member.filename
        with atomic_file(target) as file, bundle.open(member) as packed:
            shutil.copyfileobj(packed, file)  # no more than the directory says; compares the checksum at the end


def _check(run: Path, source: Path) -> None:
    """Read everything of an unpacked run. Raises SpecError with the first thing that is wrong."""
    wrong = problems(run)
    with suppress(StoreError):
        files = Committed(run)
        there = {file.relative_to(run).as_posix() for file in run.rglob("*") if file.is_file()} - {MANIFEST}
        wrong += [f"{run / name}: is not in its manifest" for name in sorted(there - set(files.manifest.files))]
    if wrong:
        reason = wrong[0].replace(f"{run.parent}{os.sep}", "")
        raise SpecError(f"{source}: {reason}; nothing was imported")


def _place(run: Path, target: Path) -> bool:
    """Move an unpacked run to its place; return whether that was free. A folder without a record is replaced."""
    try:
        with hold_lock(target / ".lock", make=True):
            if is_recorded(target):
                return False
            os.rename(target, run.with_name(f"{run.name}.before"))
            os.rename(run, target)
        sync_folder(target.parent)
    except Busy:
        return False  # it is being trained here
    except OSError as error:
        raise StoreError(cannot_write(target, error)) from error
    return True
