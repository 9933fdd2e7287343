"""The run folder: lock, checkpoint, snapshots, results.

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
import fcntl
import io
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pydantic import ValidationError

from resx.spec import RunSpec, SpecError
from resx.store.files import StoreError, cannot_write, read_json, to_json, write_atomic

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
        return read_json(path) if path.exists() else None

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
        attempts = read_json(path) if path.exists() else []
        kept = attempts[:-1] if replace else attempts
        write_atomic(path, to_json([*kept, dict(attempt)]))

    def attempts(self) -> list[dict[str, Any]]:
        """Return environment.json's entries, the oldest first."""
        path = self.path / "environment.json"
        return list(read_json(path)) if path.exists() else []

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write result.json, which makes the run done."""
        write_atomic(self.path / "result.json", to_json(dict(result)))


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
    content = read_json(path / "spec.json")
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
        raise StoreError(cannot_write(path, error)) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StoreError(f"{path}: another process is training this run; wait for it") from error
        if (path / "spec.json").exists():
            read_run(path)
        else:
            content = {"run_id": spec.run_id, "spec": spec.model_dump(mode="json")}
            write_atomic(path / "spec.json", to_json(content))
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


def remove_run(run: RunFolder) -> None:
    """Delete a recorded run. Raises StoreError where it is being trained."""
    with open_run(run.path.parent.parent, run.spec):
        shutil.rmtree(run.path)


def finished_result(spec: RunSpec, results: Path) -> dict[str, Any] | None:
    """Return the recorded result of a spec, or None where it is not finished. Raises StoreError where damaged."""
    path = results / "runs" / spec.run_id
    return read_run(path).result if (path / "result.json").exists() else None
