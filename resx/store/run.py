"""The run folder: atomic writes, lock, checkpoint, results; tables of all runs; single-file bundles.

    results/runs/<run_id>/spec.json        what was run, and its id
                          environment.json versions, commit, hardware, command and time, one entry an attempt
                          checkpoint.pt    the commit point: weights, momentum, metrics, running averages
                          snapshots/       weights at about 8 log-spaced steps, the initial and the final among them
                          metrics.csv      one row an evaluation, rewritten from the checkpoint
                          predictions.npz  logits on the test images
                          probes/          one CSV a probe
                          result.json      written LAST: its presence means done

Every write is a temporary file, fsync and rename, so a kill or a full disk leaves the old file or the new one.
"""

from __future__ import annotations

import csv
import datetime
import errno
import fcntl
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pydantic import ValidationError

from resx.spec import FIELDS, RunSpec, SpecError

METRICS = (
    "step",
    "lr",
    "running_loss",
    "running_error",
    "train_loss",
    "train_error",
    "val_loss",
    "val_error",
    "test_loss",
    "test_error",
)
OUTCOMES = METRICS[4:]
# what a table of runs holds beside the spec's fields
RESULT_COLUMNS = (
    "run_id",
    "status",
    "steps_done",
    "data_label",
    "train_images",
    "test_images",
    "parameters",
    "multiply_adds",
    *OUTCOMES,
    "seconds",
    "folder",
)


class StoreError(RuntimeError):
    """Something recorded cannot be read or written. One line: which file, what is wrong, what to do."""


def results_root(option: Path | None = None) -> Path:
    """Return where results go: the option, else RESX_RESULTS, else results/ of the current folder."""
    return Path(option or os.environ.get("RESX_RESULTS") or "results")


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file so that it is either the old one or the new one, whatever happens. Raises StoreError."""
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StoreError(_cannot_write(path, error)) from error


def _cannot_write(path: Path, error: OSError) -> str:
    hints = {
        errno.ENOSPC: "the disk is full; free some space and run the same command again",
        errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
        errno.EROFS: "the file system is read-only; choose another folder with --results",
        errno.EACCES: "no permission; choose another folder with --results",
    }
    return f"{path}: cannot be written: {hints.get(error.errno or 0, error.strerror or error)}"


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)  # the rename itself must reach the disk
    finally:
        os.close(handle)


def _to_json(content: Any) -> str:
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise StoreError(f"{path}: damaged (not valid JSON); remove the run with `resx runs rm`") from error


@dataclass(frozen=True)
class RunFolder:
    """One run on disk. Open it for writing with `open_run`, which holds its lock."""

    path: Path
    spec: RunSpec

    @property
    def run_id(self) -> str:
        return self.path.name

    @property
    def result(self) -> dict[str, Any] | None:
        """What result.json says, or None for a run that is not done."""
        path = self.path / "result.json"
        return _read_json(path) if path.exists() else None

    def save_checkpoint(self, state: Mapping[str, Any], rows: Sequence[Mapping[str, float]]) -> None:
        """Commit the state (tensors, numbers, strings in dicts and lists), then rewrite metrics.csv from it."""
        content = {"run_id": self.run_id, "state": dict(state), "rows": [dict(row) for row in rows]}
        write_atomic(self.path / "checkpoint.pt", _to_bytes(content))
        write_atomic(self.path / "metrics.csv", metrics_text(rows))

    def load_checkpoint(self) -> tuple[dict[str, Any], list[dict[str, float]]] | None:
        """Return (state, rows) of the last commit, or None for a run that has none yet.

        Raises StoreError where the file is damaged or belongs to another run; it is left as it is.
        """
        path = self.path / "checkpoint.pt"
        if not path.exists():
            return None
        content = load_tensors(path)
        if not isinstance(content, dict) or content.keys() != {"run_id", "state", "rows"}:
            raise StoreError(f"{path}: not a checkpoint of resx; move it away to start this run over")
        if content["run_id"] != self.run_id:
            raise StoreError(f"{path}: belongs to {content['run_id']}; move it away to start this run over")
        return content["state"], content["rows"]

    def save_snapshot(self, step: int, weights: Mapping[str, torch.Tensor]) -> None:
        """Keep the weights of a step, for probes that follow training."""
        write_atomic(self.path / "snapshots" / f"step-{step:07d}.pt", _to_bytes(dict(weights)))

    def snapshots(self) -> dict[int, Path]:
        """Return the file of each kept step, in order."""
        files = sorted((self.path / "snapshots").glob("step-*.pt"))
        return {int(file.stem.removeprefix("step-")): file for file in files}

    def load_weights(self, step: int | None = None) -> dict[str, torch.Tensor]:
        """Return the weights of a kept step, by default the last. Raises StoreError where there is none."""
        files = self.snapshots()
        if not files or (step is not None and step not in files):
            raise StoreError(f"{self.path}: no weights of step {step}" if files else f"{self.path}: no weights kept")
        weights: dict[str, torch.Tensor] = load_tensors(files[max(files) if step is None else step])
        return weights

    def save_predictions(self, logits: np.ndarray, labels: np.ndarray) -> None:
        """Keep the outputs on the test images, [N, outputs], and the true labels or targets."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, logits=logits, labels=labels)
        write_atomic(self.path / "predictions.npz", buffer.getvalue())

    def load_predictions(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the outputs on the test images and the true labels. Raises StoreError where damaged or absent."""
        path = self.path / "predictions.npz"
        try:
            with np.load(path, allow_pickle=False) as content:
                return content["logits"], content["labels"]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise StoreError(f"{path}: cannot be read; train the run again") from error

    def save_probe(self, name: str, frame: pd.DataFrame) -> None:
        """Record what a probe measured on this run."""
        write_atomic(self.path / "probes" / f"{name}.csv", frame.to_csv(index=False))

    def load_probe(self, name: str) -> pd.DataFrame | None:
        """Return what a probe measured on this run, or None."""
        path = self.path / "probes" / f"{name}.csv"
        return pd.read_csv(path) if path.exists() else None

    def record_attempt(self, attempt: Mapping[str, Any], *, replace: bool) -> None:
        """Add an entry to environment.json, or replace the last one (as its time grows)."""
        path = self.path / "environment.json"
        attempts = _read_json(path) if path.exists() else []
        kept = attempts[:-1] if replace else attempts
        write_atomic(path, _to_json([*kept, dict(attempt)]))

    def attempts(self) -> list[dict[str, Any]]:
        """Return environment.json's entries, the oldest first."""
        path = self.path / "environment.json"
        return list(_read_json(path)) if path.exists() else []

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write result.json, which makes the run done."""
        write_atomic(self.path / "result.json", _to_json(dict(result)))


def _to_bytes(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def load_tensors(path: Path) -> Any:
    """Read a file of tensors without executing anything in it. Raises StoreError where it is damaged."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged or foreign file
        raise StoreError(f"{path}: damaged or not written by resx; move it away to start this run over") from error


def metrics_text(rows: Iterable[Mapping[str, float]]) -> str:
    """Return metrics.csv: one line an evaluation, blank where not measured; no clock in it, so it can be compared."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, METRICS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def read_run(path: Path) -> RunFolder:
    """Open a recorded run for reading. Raises StoreError where its spec.json is damaged, foreign or edited."""
    content = _read_json(path / "spec.json")
    try:
        spec = RunSpec.model_validate(content["spec"])
    except (ValidationError, KeyError, TypeError) as error:
        raise StoreError(f"{path / 'spec.json'}: not a specification that this version of resx reads") from error
    if spec.run_id != path.name:
        raise StoreError(
            f"{path / 'spec.json'}: does not belong to this run (its own id would be {spec.run_id}); "
            "restore it, or train the edited specification as a run of its own"
        )
    return RunFolder(path, spec)


@contextmanager
def open_run(results: Path, spec: RunSpec) -> Iterator[RunFolder]:
    """Create or reopen the folder of a run and hold its lock, so that no second process writes to it.

    The lock is the kernel's (flock): a killed process leaves none behind. Raises StoreError.
    """
    path = results / "runs" / spec.run_id
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = open(path / ".lock", "w")  # noqa: SIM115 (held until the run is closed)
    except OSError as error:
        raise StoreError(_cannot_write(path, error)) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StoreError(f"{path}: another process is training this run; wait for it") from error
        if (path / "spec.json").exists():
            read_run(path)
        else:
            content = {"run_id": spec.run_id, "spec": spec.model_dump(mode="json")}
            write_atomic(path / "spec.json", _to_json(content))
        yield RunFolder(path, spec)


def find_runs(results: Path) -> list[Path]:
    """Return the folders of all recorded runs, sorted by name."""
    return sorted(file.parent for file in (results / "runs").glob("*/spec.json"))


def find_run(results: Path, name: str) -> RunFolder:
    """Return the recorded run whose id is `name` or starts or ends with it. Raises SpecError otherwise."""
    paths = find_runs(results)
    near = [path for path in paths if path.name == name] or [
        path for path in paths if path.name.startswith(name) or path.name.endswith(name)
    ]
    if len(near) != 1:
        what = f"{len(near)} runs match" if near else "no run matches"
        raise SpecError(f"{what} '{name}' in {results / 'runs'}; `resx runs list` shows them")
    return read_run(near[0])


def load_runs(results: Path | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return two tidy tables of everything recorded: runs (a row a run) and curves (a row an evaluation).

    runs: run_id, status (finished, diverged, unfinished), every field of the spec under its flat name, data_label,
    reference, parameters, multiply_adds, the last iterate's losses and errors (percent), seconds, folder.
    curves: run_id and the columns of metrics.csv. Raises StoreError where a run is damaged.
    """
    root = results_root(results)
    rows, curves = [], []
    for path in find_runs(root):
        run = read_run(path)
        result = run.result or {"status": "unfinished"}
        rows.append({**run.spec.flat(), **result, "run_id": run.run_id, "folder": str(path)})
        if (path / "metrics.csv").exists():
            curves.append(pd.read_csv(path / "metrics.csv", dtype=float).assign(run_id=run.run_id))
    columns = list(dict.fromkeys([*RESULT_COLUMNS, *FIELDS]))
    runs = pd.DataFrame(rows, columns=columns)
    for column in OUTCOMES:
        runs[column] = runs[column].astype(float)
    table = pd.concat(curves, ignore_index=True) if curves else pd.DataFrame(columns=[*METRICS, "run_id"])
    return runs, table[["run_id", *METRICS]]


def load_probes(results: Path, run_ids: Iterable[str]) -> dict[str, pd.DataFrame]:
    """Return, by the probe's name, what was measured on these runs, each row with its run_id."""
    found: dict[str, list[pd.DataFrame]] = {}
    for run_id in run_ids:
        for file in sorted((results / "runs" / run_id / "probes").glob("*.csv")):
            found.setdefault(file.stem, []).append(pd.read_csv(file).assign(run_id=run_id))
    return {name: pd.concat(parts, ignore_index=True) for name, parts in found.items()}


def remove_run(run: RunFolder) -> None:
    """Delete a recorded run. Raises StoreError where it is being trained."""
    with open_run(run.path.parent.parent, run.spec):
        shutil.rmtree(run.path)


# --- bundles ------------------------------------------------------------------------------------------------------

# every name that a run folder may hold; a bundle with any other is refused, so it cannot write outside its folders
_MEMBER = re.compile(
    r"(?P<run>[a-z0-9.][a-z0-9.-]*-[0-9a-f]{8})/"
    r"(spec\.json|environment\.json|checkpoint\.pt|metrics\.csv|predictions\.npz|result\.json"
    r"|snapshots/step-\d{7,}\.pt|probes/[A-Za-z0-9_-]+\.csv)"
)
TABLES = ("spec.json", "environment.json", "metrics.csv", "result.json")


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


def export_csv(runs: Sequence[RunFolder], target: Path) -> None:
    """Write the curves of runs as one CSV: run_id, then the columns of metrics.csv."""
    frames = [
        pd.read_csv(run.path / "metrics.csv", dtype=str).assign(run_id=run.run_id)[["run_id", *METRICS]]
        for run in runs
        if (run.path / "metrics.csv").exists()
    ]
    table = pd.concat(frames) if frames else pd.DataFrame(columns=["run_id", *METRICS])
    write_atomic(target, table.to_csv(index=False))


def export_tables(runs: Sequence[RunFolder], target: Path, probes: Collection[str] | None = None) -> None:
    """Copy each run's small text files and probe tables to target/runs/, the layout that `load_runs` reads.

    probes: the names of the tables that are wanted; None for all.
    """
    for run in runs:
        tables = [file for file in (run.path / "probes").glob("*.csv") if probes is None or file.stem in probes]
        for file in [*(run.path / name for name in TABLES), *sorted(tables)]:
            if file.exists():
                write_atomic(target / "runs" / run.run_id / file.relative_to(run.path), file.read_bytes())


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


# --- environment --------------------------------------------------------------------------------------------------


def describe_environment(device: str, threads: int) -> dict[str, Any]:
    """Return what made the numbers: time, command, versions, commit and hardware."""
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "resx": version("resx"),
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": device,
        "hardware": _hardware(device),
        "threads": threads,
    }


@cache
def _commit() -> str | None:
    """Return the commit of resx's own checkout, with + where files differ from it; None outside a checkout."""
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


@cache
def _hardware(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text())
        name = found.group(1) if found else name
    return f"{name}, {os.cpu_count()} cores"
