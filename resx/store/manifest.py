"""What is committed: the size and SHA-256 of every file of a run, so that nothing else is read as the run's.

    manifest.json   run_id
                    files    what is committed, by name
                    coming   what a commit under way puts in place of some of them
                    seal     SHA-256 of the above

A commit first announces what is coming, then writes the files, then lists them as committed. Killed at any point, it
leaves every file as it was or as announced, and the manifest tells both from anything else. A file in neither list is
not the run's, so a record without a manifest is damaged.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from resx.store.files import MAX_TEXT, StoreError, parse_json, read_file, to_json, write_atomic

MANIFEST = "manifest.json"
Stamp = tuple[int, str]  # size in bytes, SHA-256
# the names of a run's files; a manifest or a bundle with any other is refused, so it reaches no file elsewhere
FILE = re.compile(
    r"spec\.json|environment\.json|checkpoint\.pt|metrics\.csv|predictions\.npz|result\.json"
    r"|snapshots/step-\d{7,15}\.pt|probes/[A-Za-z0-9_-]+\.csv"
)


class Damaged(StoreError):
    """A file of a run is missing, or is not what was committed."""


def stamp(data: bytes) -> Stamp:
    return len(data), hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Manifest:
    """What is committed of a run (files), and what a commit under way puts in place of some of it (coming)."""

    run_id: str
    files: Mapping[str, Stamp] = field(default_factory=dict)
    coming: Mapping[str, Stamp] = field(default_factory=dict)

    def to_text(self) -> str:
        body = to_json({"run_id": self.run_id, "files": dict(sorted(self.files.items())), "coming": dict(self.coming)})
        body = body.removesuffix("\n}\n")
        return f'{body}{_SEAL}{hashlib.sha256(body.encode()).hexdigest()}"\n}}\n'


_SEAL = ',\n "seal": "'


def read_manifest(folder: Path) -> Manifest | None:
    """Return a run's manifest, or None where it has none. Raises Damaged where it was changed."""
    path = folder / MANIFEST
    try:
        data = read_file(path, MAX_TEXT)
    except FileNotFoundError:
        return None
    try:
        content = parse_json(data, path)
        body, _, _ = data.rpartition(_SEAL.encode())
        if content["seal"] != hashlib.sha256(body).hexdigest():
            raise ValueError("seal")
        parts = (content["files"], content["coming"])
        files, coming = ({name: (size, digest) for name, (size, digest) in part.items()} for part in parts)
        if not all(FILE.fullmatch(name) for name in (*files, *coming)):
            raise ValueError("names")
        manifest = Manifest(content["run_id"], files, coming)
    except (StoreError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise Damaged(f"{path}: damaged") from error
    if manifest.run_id != folder.name:
        raise Damaged(f"{path}: belongs to {manifest.run_id}")
    return manifest


class Committed:
    """The files of a run as they were committed. Raises Damaged for a record without a manifest.

    manifest: by default the run's own.
    """

    def __init__(self, folder: Path, manifest: Manifest | None = None) -> None:
        self.folder = folder
        self.manifest = manifest or read_manifest(folder) or _of_nothing(folder)

    def names(self) -> list[str]:
        """Return the names of the committed files, sorted."""
        arrived = [name for name in self.manifest.coming if (self.folder / name).exists()]
        return sorted({*self.manifest.files, *arrived})

    def read(self, name: str) -> bytes | None:
        """Return a file's content, or None for one that was never committed.

        Raises Damaged where it is missing or not what was committed, StoreError where it cannot be read.
        """
        while True:
            try:
                data = read_file(f"{self.folder}/{name}")  # joining paths takes as long as reading them
            except FileNotFoundError:
                data = None
            if data is not None and stamp(data) in (self.manifest.files.get(name), self.manifest.coming.get(name)):
                return data
            if data is None and name not in self.manifest.files:
                return None
            before, self.manifest = self.manifest, read_manifest(self.folder) or _of_nothing(self.folder)
            if self.manifest == before:  # else a commit was made in between: look again
                break
        path = self.folder / name
        if data is None:
            raise Damaged(f"{path}: is missing")
        if name in self.manifest.files or name in self.manifest.coming:
            raise Damaged(f"{path}: damaged, or of another run: it is not what was committed")
        if not name.startswith("snapshots/") and name != "predictions.npz":  # an older version's kills left those
            raise Damaged(f"{path}: is not this run's: it was never committed")
        return None


def has_committed_file(folder: Path) -> bool:
    """Whether a folder holds a file that only a commit writes, after announcing it in a manifest."""
    return any((folder / name).exists() for name in ("spec.json", "checkpoint.pt", "result.json", "metrics.csv"))


def _of_nothing(folder: Path) -> Manifest:
    """Return the manifest of a folder in which nothing was committed. Raises Damaged where something was."""
    if has_committed_file(folder):
        repair = "`resx runs check --repair` makes it again from the checkpoint"
        raise Damaged(f"{folder / MANIFEST}: is missing, so nothing says what was committed; {repair}")
    return Manifest(folder.name)


def manifest_of(folder: Path) -> Manifest:
    """Return a manifest of the files that are in a folder and can be read, whoever wrote them."""
    files = {}
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        if FILE.fullmatch(name):
            with suppress(StoreError, FileNotFoundError):
                files[name] = stamp(read_file(file))
    return Manifest(folder.name, files)


def commit(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write files of a run and list them as committed; the caller holds the run's lock. Raises StoreError."""
    manifest = read_manifest(folder) or Manifest(folder.name)
    files = {**manifest.files, **_arrived(folder, manifest)}
    coming = {name: stamp(data) for name, data in contents.items()}
    write_atomic(folder / MANIFEST, Manifest(folder.name, files, coming).to_text())
    for name, data in contents.items():
        write_atomic(folder / name, data)
    write_atomic(folder / MANIFEST, Manifest(folder.name, {**files, **coming}).to_text())


def _arrived(folder: Path, manifest: Manifest) -> dict[str, Stamp]:
    """Return the files that a killed commit had written."""
    arrived = {}
    for name, expected in manifest.coming.items():
        with suppress(FileNotFoundError):
            if stamp(read_file(folder / name)) == expected:
                arrived[name] = expected
    return arrived


def forget(folder: Path, names: list[str]) -> None:
    """Take files out of what is committed; the caller holds the run's lock."""
    manifest = read_manifest(folder)
    if manifest is not None:
        files = {**manifest.files, **_arrived(folder, manifest)}
        remaining = {name: content for name, content in files.items() if name not in names}
        write_atomic(folder / MANIFEST, Manifest(folder.name, remaining).to_text())
