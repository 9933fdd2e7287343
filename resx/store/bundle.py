"""Single-file bundles: runs that travel from one machine to another."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

from resx.spec import RunSpec, SpecError
from resx.store.files import write_atomic
from resx.store.run import RunFolder

# every name that a run folder may hold; a bundle with any other is refused, so it cannot write outside its folders
_MEMBER = re.compile(
    r"(?P<run>[a-z0-9.][a-z0-9.-]*-[0-9a-f]{8})/"
    r"(spec\.json|environment\.json|checkpoint\.pt|metrics\.csv|predictions\.npz|result\.json"
    r"|snapshots/step-\d{7,}\.pt|probes/[A-Za-z0-9_-]+\.csv)"
)


def export_bundle(runs: Sequence[RunFolder], target: Path) -> None:
    """Write runs with all that belongs to them into one zip file. Raises StoreError."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bundle:
        for run in runs:
            for file in sorted(run.path.rglob("*")):
                name = f"{run.run_id}/{file.relative_to(run.path).as_posix()}"
                if file.is_file() and _MEMBER.fullmatch(name):
                    bundle.write(file, name)
    write_atomic(target, buffer.getvalue())


def import_bundle(source: Path, results: Path) -> tuple[list[str], list[str]]:
    """Take in the runs of a bundle; return the ids that are new and those that were here already and stay.

    The whole file is checked before anything is written. Raises SpecError where it is no bundle, holds a name that
    no run folder has, is damaged, or holds a spec that does not belong to its folder.
    """
    try:
        bundle = zipfile.ZipFile(source)
        damaged = bundle.testzip()
    except (OSError, zipfile.BadZipFile) as error:
        raise SpecError(f"{source}: not a bundle of runs, or cut short") from error
    with bundle:
        if damaged:
            raise SpecError(f"{source}: damaged at {damaged}")
        names = bundle.namelist()
        for name in names:
            if not _MEMBER.fullmatch(name) or ".." in name:
                raise SpecError(f"{source}: holds '{name}', which is no file of a run; nothing was imported")
        ids = sorted({name.partition("/")[0] for name in names})
        for run_id in ids:
            _check_spec(bundle, run_id, source)
        new = [run_id for run_id in ids if not (results / "runs" / run_id).exists()]
        for run_id in new:
            _extract(bundle, run_id, results / "runs")
    return new, [run_id for run_id in ids if run_id not in new]


def _check_spec(bundle: zipfile.ZipFile, run_id: str, source: Path) -> None:
    try:
        spec = RunSpec.model_validate(json.loads(bundle.read(f"{run_id}/spec.json"))["spec"])
    except (KeyError, ValueError, TypeError) as error:
        raise SpecError(f"{source}: {run_id} has no readable spec.json; nothing was imported") from error
    if spec.run_id != run_id:
        raise SpecError(f"{source}: {run_id} holds the spec of {spec.run_id}; nothing was imported")


def _extract(bundle: zipfile.ZipFile, run_id: str, target: Path) -> None:
    """Unpack one run beside its place and rename it there, so that no half of a run is ever seen."""
    temporary = target / f".import-{run_id}"
    shutil.rmtree(temporary, ignore_errors=True)
    for name in bundle.namelist():
        if name.startswith(f"{run_id}/"):
            write_atomic(temporary / name.removeprefix(f"{run_id}/"), bundle.read(name))
    os.replace(temporary, target / run_id)
