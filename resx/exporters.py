"""Recorded runs in other people's tools, each through its own client: spec, curves, tables, the figure and the status.

EXPORTERS has a function per tool. It is given a target (where the tool keeps its records) and returns `write(run)`,
which brings one run up to date there and returns whether anything was new. A second export changes nothing, a run that
grew gets what is new, and numbers that contradict those that are there already are refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import json
import logging
import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_core import to_jsonable_python

from resx.registry import Registry
from resx.spec import SpecError, with_kind
from resx.store.bundle import without_places
from resx.store.files import LOG, StoreError, to_json
from resx.store.manifest import MANIFEST, Committed
from resx.store.run import METRICS, RunFolder, read_notes, read_run

if TYPE_CHECKING:
    from resx.training.loop import Progress, Report

Write = Callable[[RunFolder], bool]
Points = dict[int, dict[str, float]]  # step -> numbers by name

EXPORTERS: Registry[Callable[[str], Write]] = Registry("exporter")
COSTS = ("seconds", "parameters", "multiply_adds", "train_images", "test_images")  # of a result, next to its outcomes
SHARE = 0.05  # of the time of training that may go into showing runs meanwhile
_BATCH = 1000  # metrics that mlflow takes in one call


def export(tool: str, runs: Sequence[RunFolder], target: str) -> int:
    """Bring runs up to date in a tool, and return how many of them had anything new.

    Raises SpecError where the tool's package is absent and, after all other runs, with a line for each run that
    contradicts what is there; StoreError where the tool fails.
    """
    new, errors = 0, []
    with _faults_of(tool):
        write = EXPORTERS[tool](target)
        for run in runs:
            try:
                new += write(run)
            except SpecError as error:
                errors += error.errors
    if errors:
        raise SpecError(errors)
    return new


@contextmanager
def follow(track: str | None, results: Path, run_ids: Collection[str], report: Report) -> Iterator[Report]:
    """Give what trains a report that also exports: each run where a checkpoint of it is new, and all in the end.

    track: TOOL:TARGET, or None for the report as it is. Where the tool fails, that is one line in the log, and training
    goes on. Raises SpecError, before anything is trained, for a tool that is absent.
    """
    if track is None:
        yield report
        return
    tool, _, target = track.partition(":")
    if not target:
        raise SpecError(f"--track: write TOOL:TARGET, such as mlflow:mlflow.db, not '{track}'")
    if re.search(r"://[^/@]*:[^/@]*@", target):
        raise SpecError("--track: a command is recorded with its run; give the password in the tool's own variables")
    with _faults_of(tool):
        write: Write | None = EXPORTERS[tool](target)
    seen: dict[str, bytes] = {}  # run -> its manifest when it was exported
    unfinished: set[str] = set()

    def bring(run_id: str) -> None:
        nonlocal write
        path = results / "runs" / run_id
        try:
            manifest = (path / MANIFEST).read_bytes()
            if write and seen.get(run_id) != manifest:
                seen[run_id] = manifest
                write(read_run(path))
            if (path / "result.json").exists():
                unfinished.discard(run_id)
        except FileNotFoundError:  # nothing is committed yet
            return
        except (SpecError, StoreError) as error:  # of this run
            LOG.warning("%s", error)
        except Exception as error:  # of any kind, from clients of servers that may be gone
            LOG.warning("%s: %s; `resx runs export --format %s` brings what is missing", tool, with_kind(error), tool)
            write = None

    ended = cost = 0.0  # of the last export, in seconds

    def reported(progress: Progress) -> None:
        nonlocal ended, cost
        report(progress)
        if progress.row:
            unfinished.add(progress.run_id)
        begun = time.monotonic()
        if progress.row and begun - ended > cost / SHARE:
            for run_id in sorted(unfinished):
                bring(run_id)
            ended = time.monotonic()
            cost = ended - begun

    try:
        yield reported
    finally:
        for run_id in run_ids:
            bring(run_id)


@contextmanager
def _faults_of(tool: str) -> Iterator[None]:
    try:
        yield
    except (SpecError, StoreError):
        raise
    except Exception as error:  # clients raise their own kinds, and those of databases and networks
        raise StoreError(f"{tool}: {with_kind(error)}") from error


def _client(module: str, tool: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise SpecError(f"{tool} is not installed: pip install 'resx[{tool}]'") from error


@dataclass(frozen=True)
class Content:
    """What a tool gets of a run.

    fields: the spec's, without nulls, as JSON values. points: numbers of the evaluations, and at the last step what the
    run cost. files: spec, environment, curves, result, notes and all measurements, by name. status: finished, diverged
    or unfinished. times: when it began and ended, in milliseconds since 1970, if recorded.
    """

    run: RunFolder
    fields: Mapping[str, Any]
    points: Points
    files: Mapping[str, bytes]
    status: str
    times: tuple[int, int] | None
    notes: Mapping[str, Any]

    @property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of each file."""
        return {name: hashlib.sha256(data).hexdigest() for name, data in self.files.items()}

    def missing(self, there: Mapping[tuple[int, str], float]) -> Points:
        """Return the points that a tool does not have. Raises SpecError where it has another number."""
        new: Points = {}
        for step, numbers in self.points.items():
            for name, value in numbers.items():
                if (step, name) not in there:
                    new.setdefault(step, {})[name] = value
                elif there[step, name] != value:
                    raise SpecError(
                        f"{self.run.run_id}: {name} at step {step} is {value:g} here and {there[step, name]:g} there; "
                        "delete the run there to export this one"
                    )
        return new

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """Make a temporary folder with the files, and the figure of the curves for a run that is done."""
        with tempfile.TemporaryDirectory() as temporary:
            for name, data in self.files.items():
                file = Path(temporary) / name
                file.parent.mkdir(exist_ok=True)
                file.write_bytes(data)
            if self.status != "unfinished" and self.points:
                self._draw(Path(temporary))
            yield Path(temporary)

    def _draw(self, folder: Path) -> None:
        from resx.figures import FIGURES, style
        from resx.probes import Findings, Settings
        from resx.store.tables import load_frames

        frames = load_frames(self.run.path.parent.parent, [self.run.run_id], [])
        style.save(FIGURES["curves"](Findings("", Settings(), frames)), folder / "curves", ["png"])


def _content(run: RunFolder) -> Content:
    """Read what is exported of a run. Raises StoreError where it is damaged."""
    committed = Committed(run.path)
    names = [name for name in committed.names() if name.endswith((".json", ".csv"))]
    files = {name: data for name in names if (data := committed.read(name)) is not None}
    if "environment.json" in files:
        files["environment.json"] = without_places(run)
    notes, result = read_notes(run.path), run.result or {}
    if notes["tags"] or notes["note"]:
        files["notes.json"] = to_json(notes).encode()
    points: Points = {}
    for row in run.rows():
        numbers = dict(zip(METRICS, row, strict=True))
        step = int(numbers.pop("step"))
        points[step] = {name: value for name, value in numbers.items() if math.isfinite(value)}
    if result:
        costs = {name: float(result[name]) for name in COSTS if result.get(name) is not None}
        last = result.get("steps_done", max(points, default=0))
        points[last] = {**points.get(last, {}), **costs}
    fields = to_jsonable_python({key: value for key, value in run.spec.flat().items() if value is not None})
    return Content(run, fields, points, files, result.get("status", "unfinished"), _times(run), notes)


def _times(run: RunFolder) -> tuple[int, int] | None:
    attempts = run.attempts()
    try:
        starts = [1000 * datetime.fromisoformat(str(attempt["started"])).timestamp() for attempt in attempts]
        return int(starts[0]), int(starts[-1] + 1000 * attempts[-1]["seconds"])
    except (IndexError, KeyError, ValueError):
        return None


@EXPORTERS.register("mlflow")
def _mlflow(target: str) -> Write:
    """An mlflow server or database; target: its tracking URI, or a file of SQLite. The experiment is called resx."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    client_class = _client("mlflow.tracking", "mlflow").MlflowClient
    entities = importlib.import_module("mlflow.entities")
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    uri, artifacts = _tracking_uri(target)
    client = client_class(tracking_uri=uri)
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "resx")
    experiment = client.get_experiment_by_name(name)
    place = experiment.experiment_id if experiment else client.create_experiment(name, artifact_location=artifacts)

    def write(run: RunFolder) -> bool:
        content = _content(run)
        digest = hashlib.sha256(to_json(content.hashes).encode()).hexdigest()
        started, ended = content.times or (None, None)
        existing = client.search_runs([place], f"tags.`resx.run_id` = '{run.run_id}'")
        tags = {"resx.run_id": run.run_id}
        there = existing[0] if existing else client.create_run(place, started, tags, run.run_id)
        if there.data.tags.get("resx.digest") == digest:
            return False
        key = there.info.run_id
        names = {name for numbers in content.points.values() for name in numbers}
        points = {
            (metric.step, name): metric.value for name in names for metric in client.get_metric_history(key, name)
        }
        metrics = [
            entities.Metric(name, value, started or there.info.start_time, step)
            for step, numbers in content.missing(points).items()
            for name, value in numbers.items()
        ]
        for start in range(0, len(metrics), _BATCH):
            client.log_batch(key, metrics=metrics[start : start + _BATCH])
        texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in content.fields.items()}
        new = [entities.Param(name, text) for name, text in texts.items() if name not in there.data.params]
        client.log_batch(key, params=new)
        with content.folder() as folder:
            client.log_artifacts(key, str(folder))
        client.set_tag(key, "resx.status", content.status)
        client.set_tag(key, "resx.tags", " ".join(content.notes["tags"]))
        client.set_tag(key, "mlflow.note.content", content.notes["note"])
        if content.status != "unfinished":
            client.set_terminated(key, "FINISHED" if content.status == "finished" else "FAILED", ended)
        elif there.info.status != "RUNNING":
            client.update_run(key, status="RUNNING")
        client.set_tag(key, "resx.digest", digest)  # the last: what a kill interrupts is done again
        return True

    return write


def _tracking_uri(target: str) -> tuple[str, str | None]:
    """Return mlflow's tracking URI, and where artifacts go if no server decides that.

    Raises SpecError for a folder: mlflow has given up its file store.
    """
    if "://" in target and not target.startswith(("sqlite:", "file:")):
        return target, None
    file = Path(target.removeprefix("sqlite:///"))
    if target.startswith("file:") or file.is_dir():
        raise SpecError(f"mlflow: {target} is a folder; name a SQLite file, such as mlflow.db, or a server's URI")
    file = file.absolute()
    file.parent.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{file}", file.with_name(f"{file.stem}-artifacts").as_uri()


@EXPORTERS.register("trackio")
def _trackio(target: str) -> Write:
    """Trackio's store on this machine (TRACKIO_DIR); target: the project. The status is a field of a run's config."""
    _check_project("trackio", target)
    remote = [name for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL") if os.environ.get(name)]
    if remote:
        raise SpecError(
            f"trackio: runs are exported to this machine's store; unset {remote[0]}, and use `trackio sync`"
        )
    os.environ.setdefault("TRACKIO_STORAGE_MODE", "sqlite")  # else points on a network's disk could not be read back
    trackio = _client("trackio", "trackio")
    store = importlib.import_module("trackio.sqlite_storage").SQLiteStorage

    def write(run: RunFolder) -> bool:
        content = _content(run)
        there = {
            (log["step"], name): value
            for log in store.get_logs(target, run.run_id)
            for name, value in log.items()
            if name not in ("step", "timestamp")
        }
        artifact = (store.get_artifact_manifest(target, run.run_id, "latest") or {}).get("manifest", [])
        digests = {entry["path"]: entry["digest"].rpartition(":")[2] for entry in artifact}
        points = content.missing(there)
        if not points and all(digests.get(name) == digest for name, digest in content.hashes.items()):
            return False
        config = {**content.fields, "status": content.status, **content.notes}
        with contextlib.redirect_stdout(io.StringIO()), content.folder() as folder:
            session = trackio.init(
                target, run.run_id, config=config, resume="allow", embed=False, auto_log_gpu=False, auto_log_cpu=False
            )
            for step, numbers in points.items():
                session.log(numbers, step=step)
            session.log_artifact(folder, name=run.run_id, type="run")
            trackio.finish()
        return True

    return write


@EXPORTERS.register("wandb")
def _wandb(target: str) -> Write:
    """Folders for `wandb sync` in WANDB_DIR, without an account; target: the project.

    A folder cannot be added to without one, so that of a run that grew is written anew.
    """
    _check_project("wandb", target)
    wandb = _client("wandb", "wandb")
    root = Path(os.environ.get("WANDB_DIR", ".")).absolute() / "wandb"  # absolute: for wandb's own process
    settings = wandb.Settings(
        silent=True, console="off", disable_git=True, disable_code=True, x_disable_stats=True, x_disable_meta=True
    )
    codes = {"finished": 0, "diverged": 1, "unfinished": 255}  # wandb shows the last as killed

    def write(run: RunFolder) -> bool:
        content = _content(run)
        earlier = sorted(root.glob(f"offline-run-*-{run.run_id}"))
        if any(_holds(folder / "files", content.files) for folder in earlier):
            return False
        if synced := [folder for folder in earlier if any(folder.glob("*.synced"))]:
            raise SpecError(
                f"{run.run_id}: has changed since {synced[0]} was uploaded; delete the run there and this folder first"
            )
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".resx-") as temporary, content.folder() as folder:
            session = wandb.init(
                project=target,
                id=run.run_id,
                name=run.run_id,
                dir=temporary,
                mode="offline",
                config=dict(content.fields),
                tags=content.notes["tags"],
                notes=content.notes["note"],
                settings=settings,
            )
            try:
                for step, numbers in sorted(content.points.items()):
                    session.log(numbers, step=step)
                shutil.copytree(folder, session.dir, dirs_exist_ok=True)
                for file in folder.rglob("*.*"):
                    session.save(str(Path(session.dir) / file.relative_to(folder)), base_path=session.dir, policy="now")
                session.summary["status"] = content.status
            finally:
                session.finish(exit_code=codes[content.status])
            [made] = Path(temporary, "wandb").glob(f"offline-run-*-{run.run_id}")
            for old in earlier:
                shutil.rmtree(old)
            made.rename(root / made.name)
        return True

    return write


@EXPORTERS.register("tensorboard")
def _tensorboard(target: str) -> Write:
    """Tensorboard's event files, which replace those that were there; target: a folder, with one for each run."""
    writer_class = _client("torch.utils.tensorboard", "tensorboard").SummaryWriter

    def write(run: RunFolder) -> bool:
        folder, rows = Path(target) / run.run_id, run.rows()
        for earlier in folder.glob("events.out.tfevents.*"):
            earlier.unlink()  # else every point would be there twice
        with writer_class(str(folder)) as writer:
            for step, *numbers in rows:
                for name, value in zip(METRICS[1:], numbers, strict=True):
                    if not math.isnan(value):
                        writer.add_scalar(name, value, int(step))
        return True

    return write


def _check_project(tool: str, name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", name):
        raise SpecError(f"{tool}: a project's name has letters, digits, - and _, unlike '{name}'")


def _holds(folder: Path, files: Mapping[str, bytes]) -> bool:
    return all((folder / name).is_file() and (folder / name).read_bytes() == data for name, data in files.items())
