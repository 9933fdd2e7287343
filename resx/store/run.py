"""The run folder: lock, checkpoint, snapshots, results.

    results/runs/<run_id>/spec.json        what was run, and its id
                          environment.json versions, commit, hardware, command and time, one entry an attempt
                          checkpoint.pt    the commit point: weights, momentum, metrics, running averages
                          snapshots/       weights at about 8 log-spaced steps, the initial and the final among them
                          metrics.csv      one row an evaluation, rewritten from the checkpoint
                          predictions.npz  logits on the test images
                          probes/          one CSV a probe
                          result.json      written LAST: its presence means done
                          manifest.json    size and hash of all of these, as they were committed
                          notes.json       a person's tags and note; no part of the run

Every write is a temporary file, fsync and rename, so a kill or a full disk leaves the old file or the new one; every
read is compared with the manifest, so damage is reported and never used. Reading needs torch for weights alone.
"""

from __future__ import annotations

import csv
import io
import math
import os
import re
import secrets
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resx.spec import FIELDS, RunSpec, SpecError, printable
from resx.store.files import (
    LOG,
    StoreError,
    csv_text,
    hold_lock,
    lock_holder,
    parse_json,
    read_file,
    remove_temporary,
    remove_tree,
    to_json,
    write_atomic,
)
from resx.store.manifest import (
    MANIFEST,
    Committed,
    Damaged,
    Manifest,
    Stamp,
    commit,
    has_committed_file,
    manifest_of,
    read_manifest,
)

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch

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
TEXTS = {"name": str, "blocks": str}  # columns of measurements that are text even where a block is called 1.10
RUN_ID = re.compile(r"[a-z0-9.][a-z0-9.-]*-[0-9a-f]{8}")
_NUMBERS = ("seconds", "train_images", "test_images", "parameters", "multiply_adds", *OUTCOMES)  # of result.json


@dataclass
class _Session:
    """What a process that writes to a run has not committed yet.

    staged: content of files that the next commit writes. is_mine: whether another process has not taken the lock over;
    None where none is held. unproven: the files that are there, in place of a manifest that is being made again.
    """

    staged: dict[str, bytes] = field(default_factory=dict)
    is_mine: Callable[[], bool] | None = None
    unproven: Manifest | None = None


@dataclass(frozen=True)
class RunFolder:
    """One run on disk. Open it for writing with `open_run`, which holds its lock."""

    path: Path
    spec: RunSpec
    _session: _Session = field(default_factory=_Session, compare=False, repr=False)

    @property
    def run_id(self) -> str:
        return self.path.name

    @property
    def result(self) -> dict[str, Any] | None:
        """What result.json says, or None for a run that is not done. Raises StoreError where it is damaged."""
        return _result(self, self._files())

    def rows(self) -> list[list[float]]:
        """Return the rows of metrics.csv, in the order of METRICS. Raises StoreError where it is damaged."""
        data = self._read("metrics.csv")
        return [] if data is None else parse_metrics(data, self.path / "metrics.csv")

    def save_checkpoint(self, state: Mapping[str, Any], rows: Sequence[Mapping[str, float]]) -> None:
        """Commit the state (tensors, numbers, strings in dicts and lists), and metrics.csv made from the rows."""
        content = {"run_id": self.run_id, "state": dict(state), "rows": [dict(row) for row in rows]}
        self._commit({"checkpoint.pt": _to_bytes(content), "metrics.csv": metrics_text(rows).encode()})

    def load_checkpoint(self) -> tuple[dict[str, Any], list[dict[str, float]]] | None:
        """Return (state, rows) of the last commit, or None for a run that has none yet.

        Raises StoreError where the file is damaged or belongs to another run; it is left as it is.
        """
        path = self.path / "checkpoint.pt"
        try:
            data = self._read("checkpoint.pt")
            if data is None:
                return None
            content = load_tensors(data, path)
            if not isinstance(content, dict) or content.keys() != {"run_id", "state", "rows"}:
                raise StoreError(f"{path}: not a checkpoint of resx")
            if content["run_id"] != self.run_id:
                raise StoreError(f"{path}: belongs to {content['run_id']}")
        except StoreError as error:
            advice = f"`resx runs rm {self.run_id}` removes the run, and it can be trained again"
            raise StoreError(f"{_foreign(path, self.run_id) or error}; {advice}") from error
        return content["state"], content["rows"]

    def save_snapshot(self, step: int, weights: Mapping[str, torch.Tensor]) -> None:
        """Save the weights of a step, for probes that follow training, at the next commit."""
        content = {"run_id": self.run_id, "step": step, "weights": dict(weights)}
        self._stage(_snapshot(step), _to_bytes(content))

    def snapshots(self) -> dict[int, Path]:
        """Return the file of each saved step, in order."""
        names = {*self._files().names(), *self._session.staged}
        steps = {int(name[15:-3]): self.path / name for name in names if name.startswith("snapshots/")}
        return dict(sorted(steps.items()))

    def load_weights(self, step: int | None = None) -> dict[str, torch.Tensor]:
        """Return the weights of a saved step, by default the last. Raises StoreError where there is none."""
        weights: dict[str, torch.Tensor]
        files = self.snapshots()
        if not files and step is None and self.result and (saved := self.load_checkpoint()):
            weights = saved[0]["network"]
            return weights
        step = max(files, default=-1) if step is None else step
        data = self._read(_snapshot(step)) if step in files else None
        if data is None:
            raise StoreError(f"{self.path}: no weights of step {step}" if files else f"{self.path}: no weights saved")
        content = load_tensors(data, files[step])
        if not isinstance(content, dict):
            raise Damaged(f"{files[step]}: holds no weights")
        if content.keys() != {"run_id", "step", "weights"}:  # of an older version
            self._refuse_nameless(files[step])
            return content
        if (content["run_id"], content["step"]) != (self.run_id, step):
            raise Damaged(f"{files[step]}: belongs to step {content['step']} of {content['run_id']}")
        weights = content["weights"]
        return weights

    def _refuse_nameless(self, path: Path) -> None:
        """Raise Damaged for a file without this run's id where no manifest says that it is this run's."""
        if self._session.unproven is not None:
            raise Damaged(f"{path}: does not name its run")

    def save_predictions(self, logits: np.ndarray, labels: np.ndarray) -> None:
        """Save the outputs on the test images, [N, outputs], and the true labels or targets, at the next commit."""
        import numpy as np

        buffer = io.BytesIO()
        np.savez_compressed(buffer, logits=logits, labels=labels, run_id=np.array(self.run_id))
        self._stage("predictions.npz", buffer.getvalue())

    def load_predictions(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the outputs on the test images and the true labels. Raises StoreError where damaged or absent."""
        import numpy as np

        path = self.path / "predictions.npz"
        data = self._read("predictions.npz")
        if data is None:
            raise StoreError(f"{path}: is missing; the run is not finished")
        try:
            _refuse_bomb(data)
            with np.load(io.BytesIO(data), allow_pickle=False) as content:
                logits, labels = content["logits"], content["labels"]
                owner = str(content["run_id"]) if "run_id" in content else None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, MemoryError) as error:
            raise StoreError(f"{path}: cannot be read; train the run again") from error
        if logits.ndim < 1 or labels.ndim < 1 or len(logits) != len(labels):
            raise StoreError(f"{path}: outputs and labels do not belong together; train the run again")
        if owner is None:  # of an older version
            self._refuse_nameless(path)
        elif owner != self.run_id:
            raise Damaged(f"{path}: belongs to {owner}")
        return logits, labels

    def has_predictions(self) -> bool:
        """Whether the outputs on the test images are saved and whole."""
        try:
            return self._read("predictions.npz") is not None
        except StoreError:
            return False

    def save_probe(self, name: str, frame: pd.DataFrame) -> None:
        """Record what a probe measured on this run. Raises Busy where another process holds its lock."""
        with nullcontext() if self._session.is_mine else hold_lock(self.path / ".lock"):
            _adopt(self)
            commit(self.path, {f"probes/{name}.csv": frame.to_csv(index=False).encode()})

    def load_probe(self, name: str) -> pd.DataFrame | None:
        """Return what a probe measured on this run; None where it was not measured, or (with a line) is damaged."""
        try:
            return self.read_probe(name)
        except StoreError as error:
            LOG.warning("%s; it is left out, and measured again where it is needed", error)
            return None

    def read_probe(self, name: str) -> pd.DataFrame | None:
        """Return what a probe measured on this run, or None. Raises StoreError where it is damaged."""
        import pandas as pd

        path = self.path / "probes" / f"{name}.csv"
        data = self._read(f"probes/{name}.csv")
        if data is None:
            return None
        try:
            return pd.read_csv(io.BytesIO(data), dtype=TEXTS)
        except (ValueError, OverflowError) as error:  # pandas' own errors are ValueErrors
            raise Damaged(f"{path}: damaged (not a table)") from error

    def probes(self) -> list[str]:
        """Return the names of what was measured on this run."""
        return [name[7:-4] for name in self._files().names() if name.startswith("probes/")]

    def record_attempt(self, attempt: Mapping[str, Any], *, replace: bool) -> None:
        """Add an entry to environment.json, or replace the last one (as its time grows), at the next commit."""
        attempts = self.attempts()
        previous = attempts[:-1] if replace else attempts
        self._stage("environment.json", to_json([*previous, dict(attempt)]).encode())

    def attempts(self) -> list[dict[str, Any]]:
        """Return environment.json's entries, the oldest first; none where this log is damaged."""
        path = self.path / "environment.json"
        try:
            attempts = parse_json(self._session.staged.get(path.name) or read_file(path), path)
        except (FileNotFoundError, StoreError):
            return []
        return attempts if isinstance(attempts, list) and all(_is_attempt(entry) for entry in attempts) else []

    def finish(self, result: Mapping[str, Any]) -> None:
        """Commit result.json, which makes the run done."""
        self._commit({"result.json": to_json(dict(result)).encode()})

    def _read(self, name: str) -> bytes | None:
        return self._session.staged.get(name) or self._files().read(name)

    def _files(self) -> Committed:
        return Committed(self.path, self._session.unproven)

    def _stage(self, name: str, data: bytes) -> None:
        self._refuse_lost()
        self._session.staged[name] = data

    def _refuse_lost(self) -> None:
        if self._session.is_mine and not self._session.is_mine():
            raise StoreError(
                f"{self.path}: another process has taken this run over, or removed it; nothing more is written to it"
            )

    def _commit(self, contents: Mapping[str, bytes]) -> None:
        self._refuse_lost()
        files = {**self._session.staged, **contents}
        if not (self.path / "spec.json").exists():
            files["spec.json"] = spec_text(self.spec).encode()
        commit(self.path, files)
        self._session.staged.clear()


def _snapshot(step: int) -> str:
    return f"snapshots/step-{step:07d}.pt"


def write_notes(folder: Path, tags: Sequence[str], note: str) -> None:
    """Write tags and a note on a run; they are no part of it."""
    write_atomic(folder / "notes.json", to_json({"tags": list(tags), "note": note}))


def read_notes(folder: Path) -> dict[str, Any]:
    """Return what a person wrote on a run: tags (a list of words) and note (text); both may be empty."""
    try:
        content = parse_json(read_file(f"{folder}{os.sep}notes.json"), folder / "notes.json")
        tags, note = content["tags"], content["note"]
    except (FileNotFoundError, StoreError, KeyError, TypeError):
        return {"tags": [], "note": ""}
    right = isinstance(tags, list) and all(isinstance(tag, str) for tag in tags) and isinstance(note, str)
    return {"tags": tags, "note": note} if right else {"tags": [], "note": ""}


def spec_text(spec: RunSpec) -> str:
    """Return the content of spec.json."""
    return to_json({"run_id": spec.run_id, "spec": spec.model_dump(mode="json")})


def _is_attempt(entry: Any) -> bool:
    """Whether an entry of environment.json has what its readers need."""
    if not isinstance(entry, dict) or not isinstance(entry.get("seconds"), int | float):
        return False
    texts = all(printable(value) == value for value in entry.values() if isinstance(value, str))
    return texts and all(isinstance(value, str | int | float | None) for value in entry.values())


def _to_bytes(content: Any) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def load_tensors(data: bytes, path: Path) -> Any:
    """Read a file of tensors without executing anything in it. Raises StoreError where it is damaged."""
    import torch

    try:
        _refuse_bomb(data)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if archive.testzip():  # torch itself compares no checksum
                raise ValueError("wrong checksum")
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged or foreign file
        raise Damaged(f"{path}: damaged, or not a file of this program") from error


def _refuse_bomb(data: bytes) -> None:
    """Raise ValueError for an archive whose members would take much more memory than it does."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > max(64 * 2**20, 100 * len(data)):
        raise ValueError("too large when unpacked")


def _foreign(path: Path, run_id: str) -> str | None:
    """Return a line for a checkpoint that is another run's, or None."""
    try:
        owner = load_tensors(read_file(path), path)["run_id"]
    except (StoreError, FileNotFoundError, KeyError, TypeError, IndexError):
        return None
    return f"{path}: belongs to {owner}" if isinstance(owner, str) and owner != run_id else None


def metrics_text(rows: Iterable[Mapping[str, float]]) -> str:
    """Return metrics.csv: every digit of every number, empty where there is none."""
    return csv_text(METRICS, rows)


def parse_metrics(data: bytes, path: Path) -> list[list[float]]:
    """Return the rows of metrics.csv, nan for an empty cell. Raises StoreError where it is not such a table."""
    try:
        header, *rows = csv.reader(io.StringIO(data.decode()))
        if header != list(METRICS) or any(len(row) != len(METRICS) for row in rows):
            raise ValueError("columns")
        numbers = [[float(cell) if cell else math.nan for cell in row] for row in rows]
        steps = [row[0] for row in numbers]
        if not all(step.is_integer() and step >= 0 for step in steps) or any(
            not later > earlier for earlier, later in pairwise(steps)
        ):
            raise ValueError("steps")
    except (ValueError, csv.Error) as error:
        raise Damaged(f"{path}: damaged (not a table of metrics)") from error
    return numbers


def _result(run: RunFolder, files: Committed) -> dict[str, Any] | None:
    data = files.read("result.json")
    if data is None:
        return None
    path = run.path / "result.json"
    result = parse_json(data, path)
    if not isinstance(result, dict) or result.get("status") not in ("finished", "diverged"):
        raise Damaged(f"{path}: damaged (not a result)")
    if result.get("run_id") != run.run_id:
        raise Damaged(f"{path}: belongs to {result.get('run_id')}")
    wrong = [key for key in _NUMBERS if isinstance(result.get(key), bool | str | list | dict)]
    wrong += [key for key in ("data_label", "reference") if not isinstance(result.get(key), str | None)]
    wrong += ["steps_done"] if type(result.get("steps_done", 0)) is not int else []
    wrong += [key for key, value in result.items() if isinstance(value, str) and printable(value) != value]
    if wrong:
        raise Damaged(f"{path}: damaged ({wrong[0]} is of a wrong type)")
    return result


def read_run(path: Path, files: Committed | None = None) -> RunFolder:
    """Open a recorded run for reading. Raises StoreError where its spec.json is missing, damaged, foreign or edited."""
    file = path / "spec.json"
    data = (files or Committed(path)).read("spec.json")
    if data is None:
        raise Damaged(f"{file}: is missing")
    try:
        spec = RunSpec.model_validate(parse_json(data, file)["spec"])
        if any(isinstance(value, str) and printable(value) != value for value in spec.flat().values()):
            raise ValueError("control characters")
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{file}: not a specification that this version of resx reads") from error
    if spec.run_id != path.name:
        raise Damaged(
            f"{file}: does not belong to this run (its own id would be {spec.run_id}); "
            "restore it, or train the edited specification as a run of its own"
        )
    return RunFolder(path, spec)


@contextmanager
def open_run(results: Path, spec: RunSpec) -> Iterator[RunFolder]:
    """Create or reopen the folder of a run and hold its lock, so that no second process writes to it.

    Leftovers of a kill are removed, and what can be is made again: a damaged spec.json from `spec`, a damaged manifest
    from the files. A folder in which nothing was committed is removed again. Raises StoreError, Busy.
    """
    path = results / "runs" / spec.run_id
    with hold_lock(path / ".lock", make=True) as is_mine:
        session = _Session(is_mine=is_mine)
        run = RunFolder(path, spec, session)
        try:
            remove_temporary(path)
            _adopt(run)
            _mend_spec(run)
            yield run
            if session.staged:
                run._commit({})
        finally:
            session.is_mine = None  # the lock is gone
            if is_mine() and not is_recorded(path):
                shutil.rmtree(path, ignore_errors=True)


def holder(results: Path, run_id: str) -> str | None:
    """Return which process works on a run, or None where none does."""
    return lock_holder(results / "runs" / run_id / ".lock")


def is_recorded(path: Path) -> bool:
    """Whether anything of a run was ever committed in a folder."""
    if (path / "spec.json").exists():
        return True
    try:
        manifest = read_manifest(path)
    except Damaged:
        return True
    return bool(manifest.files) if manifest else has_committed_file(path)  # no files: killed in its first commit


def _adopt(run: RunFolder) -> None:
    """Write the manifest of a run that has none, or a damaged one, from those of its files that are surely its own.

    They are the checkpoint with this run's id in it, what agrees with it, and what has the id as well. Any other is
    listed with a hash that no file has; measurements, which have no id, are set aside, to be made again.
    """
    try:
        Committed(run.path)
        return
    except Damaged:
        LOG.warning("%s: damaged or missing; it is made again from the run's files", run.path / MANIFEST)
        (run.path / MANIFEST).unlink(missing_ok=True)
    for file in (run.path / "probes").glob("*.csv"):
        LOG.warning("%s: does not name its run; set aside, and measured again where it is needed", file)
        os.replace(file, file.with_name(f"{file.name}.damaged"))
    files: dict[str, Stamp] = {}
    there = manifest_of(run.path)
    for name, fault in faults(RunFolder(run.path, run.spec, _Session(unproven=there))).items():
        if fault:
            LOG.warning("%s", fault)
        files[name] = (0, "") if fault else there.files[name]
    write_atomic(run.path / MANIFEST, Manifest(run.run_id, files).to_text())


def _refuse_contradiction(run: RunFolder, name: str) -> None:
    """Raise Damaged for a metrics.csv or result.json that is not what the checkpoint gives; text is easily edited."""
    saved = run.load_checkpoint()
    if saved is None:
        raise Damaged(f"{run.path / name}: is without the checkpoint.pt that it was made from")
    state, rows = saved
    if name == "metrics.csv":
        same = run._read(name) == metrics_text(rows).encode()
    else:
        result, last = run.result or {}, rows[-1] if rows else {}
        expected = {"status": "diverged" if state.get("diverged") else "finished", "steps_done": last.get("step")}
        expected |= {key: last.get(key) for key in OUTCOMES}
        same = all(result.get(key) == value for key, value in expected.items())
    if not same:
        raise Damaged(f"{run.path / name}: does not agree with checkpoint.pt")


def _mend_spec(run: RunFolder) -> None:
    try:
        if is_recorded(run.path):
            read_run(run.path)
    except Damaged as error:
        LOG.warning("%s; it is written anew from the request", error)
        commit(run.path, {"spec.json": spec_text(run.spec).encode()})


def faults(run: RunFolder) -> dict[str, str]:
    """Read every file of a run as it will be read later; return a line for each, empty where the file is whole."""
    lines = {}
    for name, read in _readers(run).items():
        try:
            read()
            lines[name] = ""
        except StoreError as error:
            lines[name] = str(error)
    return lines


def _readers(run: RunFolder) -> dict[str, Callable[[], object]]:
    """Return what reads each file of a run, and raises StoreError where it is damaged."""
    checks: dict[str, Callable[[], object]] = {
        "spec.json": lambda: read_run(run.path, run._files()),
        "environment.json": lambda: _check_attempts(run),
        "checkpoint.pt": run.load_checkpoint,
        "metrics.csv": run.rows,
        "predictions.npz": run.load_predictions,
        "result.json": lambda: run.result,
    }
    names = run._files().names()
    checks = {name: check for name, check in checks.items() if name in names}
    steps = set(run.snapshots())
    if run._session.unproven is not None:
        texts = [name for name in ("metrics.csv", "result.json") if name in checks]
        checks |= {name: partial(_refuse_contradiction, run, name) for name in texts}
        if steps and not run.spec.foreign:
            steps.add(0)  # no manifest says which weights were kept, but the first and the last always are
            with suppress(StoreError):
                if (result := run.result) and result["status"] == "finished":
                    steps.add(result.get("steps_done", 0))
    for step in sorted(steps):
        checks[_snapshot(step)] = partial(run.load_weights, step)
    for name in run.probes():
        checks[f"probes/{name}.csv"] = partial(run.read_probe, name)
    return checks


def _check_attempts(run: RunFolder) -> None:
    if run._read("environment.json") is not None and not run.attempts():
        raise Damaged(f"{run.path / 'environment.json'}: damaged")


@dataclass(frozen=True)
class Record:
    """What tables show of one run, read without torch.

    row: run_id, status (finished, diverged, unfinished, damaged), folder, and, as far as they can be read, the spec's
    fields under their flat names and the content of result.json. curve: rows of metrics.csv, if they were asked for.
    run: None for a run that was not read, or is damaged; `damage` is then one line that names the file.
    """

    row: dict[str, Any]
    run: RunFolder | None = None
    curve: list[list[float]] = field(default_factory=list)
    damage: str | None = None


def read_record(path: Path, *, curve: bool = False) -> Record:
    """Read what tables need of one run folder; never raises."""
    place = {"run_id": path.name, "folder": str(path)}
    fields: dict[str, Any] = {}
    try:
        files = Committed(path)
        run = read_run(path, files)
        fields = run.spec.flat()
        result = _result(run, files) or {"status": "unfinished"}
        own = {key: value for key, value in result.items() if key not in FIELDS or key == "reference"}
        return Record({**fields, **own, **place}, run, run.rows() if curve else [])
    except StoreError as error:
        return Record({**fields, **place, "status": "damaged"}, damage=str(error))


def find_runs(results: Path) -> list[Path]:
    """Return the folders of all recorded runs, damaged ones too, sorted by name.

    A folder whose name is no run id (such as a copy of a run) is named on stderr and left out. Raises StoreError where
    the folder of the runs cannot be read.
    """
    root = results / "runs"
    try:
        with os.scandir(root) as entries:
            names = sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"{root}: cannot be read ({error.strerror})") from error
    foreign = [name for name in names if not RUN_ID.fullmatch(name)]
    if foreign:
        LOG.warning("%s: no folder of a run, left out: %s", root, ", ".join(foreign))
    return [root / name for name in names if RUN_ID.fullmatch(name) and is_recorded(root / name)]


def find_path(results: Path, name: str) -> Path:
    """Return the folder of the recorded run whose id is `name` or starts or ends with it, whole or damaged.

    Raises SpecError that names the candidates where several match.
    """
    root = results / "runs"
    if RUN_ID.fullmatch(name) and os.path.lexists(root / name):  # a file or a dangling link there, too
        return root / name
    if name and os.path.basename(name) == name and name not in (".", "..") and (root / name).is_dir():
        return root / name
    near = [path for path in find_runs(results) if path.name.startswith(name) or path.name.endswith(name)]
    if not near or not name.strip():
        raise SpecError(f"no run matches '{name}' in {root}; `resx runs list` shows them")
    if len(near) > 1:
        raise SpecError(f"{len(near)} runs match '{name}' in {root}: {list_names(near)}")
    return near[0]


def list_names(paths: Sequence[Path]) -> str:
    """Return the ids of runs as a text; of more than eight, only the first eight."""
    return ", ".join(path.name for path in paths[:8]) + (f" and {len(paths) - 8} more" if len(paths) > 8 else "")


def find_run(results: Path, name: str) -> RunFolder:
    """Return the recorded run whose id is `name` or starts or ends with it. Raises SpecError, StoreError if damaged."""
    return read_run(find_path(results, name))


def remove_run(path: Path) -> None:
    """Delete a recorded run, whole or damaged. Raises Busy where it is being trained, StoreError.

    It is moved aside first, so that a kill leaves either the run or nothing that is seen.
    """
    aside = path.with_name(f".removed-{secrets.token_hex(8)}")
    try:
        if path.is_symlink() or not path.is_dir():
            path.unlink()
            return
        lock = path / ".lock"
        with hold_lock(lock) if not lock.is_symlink() and not lock.is_dir() else nullcontext():  # else nobody can
            os.rename(path, aside)
        remove_aside(path.parent)
    except OSError as error:
        raise StoreError(f"{path}: cannot be removed ({error.strerror})") from error


def remove_aside(runs: Path) -> int:
    """Delete what was moved aside, by killed processes too, and return its bytes."""
    return sum(map(remove_tree, list(runs.glob(".removed-*"))))


def finished_result(spec: RunSpec, results: Path) -> dict[str, Any] | None:
    """Return the recorded result of a spec, or None where it is not finished or a part of it must be made again."""
    path = results / "runs" / spec.run_id
    if not (path / "result.json").exists():
        return None
    try:
        run = read_run(path)
        for name in ("metrics.csv", "predictions.npz"):
            run._read(name)
        return run.result
    except StoreError:
        return None
