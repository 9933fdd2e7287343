"""Runs a study: trains what is missing, measures what is not measured yet, judges, draws and writes.

What a probe measured on a run is written to the run's folder as soon as it is known, so an interruption loses nothing.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

import pandas as pd
import torch

from resx import data
from resx.engines import Outcome, train_all
from resx.figures import FIGURES, style
from resx.probes import load_study
from resx.probes.study import Findings, Measure, Study
from resx.registry import load_plugin
from resx.spec import RunSpec, SpecError
from resx.store.files import StoreError, write_atomic
from resx.store.run import RunFolder, read_run
from resx.store.tables import load_probes, load_runs
from resx.training.loop import Stopped
from resx.training.machine import Machine, make_machine
from resx.training.resolve import resolve

Say = Callable[[str], None]


@dataclass(frozen=True)
class Done:
    """A study's findings and the files that were written."""

    findings: Findings
    files: list[Path]


def measure_all(
    name: str,
    study: Study,
    outcomes: Sequence[Outcome],
    settings: Mapping[str, Any],
    machine: Machine,
    say: Say,
) -> None:
    """Measure every finished run that can bear it and is not measured yet, several at a time on a CPU.

    Runs that are left out are named. Raises SpecError where no run at all can bear a probe.
    """
    tasks = []
    for probe, measure in study.measures.items():
        reasons = {}
        wanted = [outcome for outcome in outcomes if measure.wants(outcome.spec, settings)]
        for outcome in wanted:
            reason = _left_out(outcome, measure) or measure.refuses(outcome.spec)
            if reason:
                reasons[outcome.spec.run_id] = reason
            elif not _is_measured(_folder(outcome.spec, machine), probe, measure, settings):
                tasks.append((probe, outcome.spec))
        for run_id, reason in reasons.items():
            say(f"{probe}: {run_id} is left out: {reason}")
        if wanted and len(reasons) == len(wanted):
            raise SpecError(f"{probe}: no run can bear it: {next(iter(reasons.values()))}")
    if not tasks:
        return
    say(f"measuring {len(tasks)} runs")
    with _stopped_by_signals():
        _measure_tasks(name, tasks, settings, machine, say)


def _measure_tasks(
    name: str, tasks: Sequence[tuple[str, RunSpec]], settings: Mapping[str, Any], machine: Machine, say: Say
) -> None:
    if machine.jobs == 1 or len(tasks) == 1 or machine.device.startswith("cuda"):
        for count, (probe, spec) in enumerate(tasks, 1):
            measure_run(name, probe, spec, settings, machine)
            say(f"{probe}: {spec.run_id} measured ({count}/{len(tasks)})")
        return
    ignore = (signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; this one ends the others
    with ProcessPoolExecutor(machine.jobs, get_context("spawn"), signal.signal, ignore) as pool:
        futures = {
            pool.submit(measure_run, name, probe, spec, dict(settings), machine): (probe, spec) for probe, spec in tasks
        }
        try:
            for count, future in enumerate(as_completed(futures), 1):
                future.result()
                probe, spec = futures[future]
                say(f"{probe}: {spec.run_id} measured ({count}/{len(tasks)})")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in active_children():
                process.terminate()
            raise


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Raise Stopped on Ctrl-C or SIGTERM; what was measured until then is recorded."""

    def stop(number: int, frame: Any) -> None:
        raise Stopped("", 0, number)

    if current_thread() is not main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def measure_run(name: str, probe: str, spec: RunSpec, settings: Mapping[str, Any], machine: Machine) -> None:
    """Apply one probe of a study to one finished run and record what it found, in this process."""
    torch.set_num_threads(1)
    if machine.plugin:
        load_plugin(machine.plugin)
    measure = load_study(name).measures[probe]
    run = _folder(spec, machine)
    frame = measure.probe(run, data.load(spec.data, machine.data_dir), settings, torch.device(machine.device))
    run.save_probe(probe, frame.assign(settings=_settings_text(measure, settings)))


def _folder(spec: RunSpec, machine: Machine) -> RunFolder:
    return read_run(machine.results / "runs" / spec.run_id)


def _settings_text(measure: Measure, settings: Mapping[str, Any]) -> str:
    return json.dumps({key: settings[key] for key in measure.keys}, sort_keys=True)


def _is_measured(run: RunFolder, probe: str, measure: Measure, settings: Mapping[str, Any]) -> bool:
    known = run.load_probe(probe)
    return known is not None and len(known) > 0 and known["settings"].iloc[0] == _settings_text(measure, settings)


def _left_out(outcome: Outcome, measure: Measure) -> str | None:
    if outcome.result is None:
        return "it is not finished"
    return "it diverged" if outcome.result["status"] == "diverged" and not measure.diverged else None


def load_frames(results: Path, run_ids: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Return the tables of these runs: runs, curves, and one per probe that was measured on any of them."""
    runs, curves = load_runs(results)
    frames = {name: frame[frame["run_id"].isin(run_ids)] for name, frame in (("runs", runs), ("curves", curves))}
    return frames | load_probes(results, frames["runs"]["run_id"])


def conclude(study: Study, frames: dict[str, pd.DataFrame], settings: Mapping[str, Any], folder: Path) -> Done:
    """Judge, draw and write: one CSV per table, verdicts.csv, answer.txt, and the figures, in `folder`."""
    findings = study.judge(frames, settings)
    files = []
    tables = {**findings.tables, **({"verdicts": _verdict_table(findings)} if findings.verdicts else {})}
    for name, table in tables.items():
        files.append(folder / f"{name}.csv")
        write_atomic(files[-1], table.to_csv(index=False, float_format="%.6g"))
    if findings.answer:
        files.append(folder / "answer.txt")
        write_atomic(files[-1], findings.answer + "\n")
    for name in study.figures:
        files += style.save(FIGURES[name](frames), folder / name)
    return Done(findings, files)


def _verdict_table(findings: Findings) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "hypothesis": verdict.hypothesis,
                "criterion": verdict.criterion,
                "word": verdict.word,
                "measured": estimate.name,
                "mean": estimate.mean,
                "low": estimate.low,
                "high": estimate.high,
                "n": estimate.n,
                "p": estimate.p,
            }
            for verdict in findings.verdicts
            for estimate in verdict.estimates
        ]
    )


def train(spec: RunSpec | None = None, *, machine: Machine | None = None, **fields: Any) -> dict[str, Any]:
    """Train one network, or return it where it is finished already: the Python face of `resx train`.

    Give a RunSpec or flat fields (`train(preset="digits", depth=56, shortcut="none")`). Returns the content of
    result.json with the folder. Raises SpecError for bad input, StoreError where training failed.
    """
    machine = machine or make_machine()
    given = spec.flat() if spec else {}
    [resolved] = resolve([{**given, **fields}], machine)
    [outcome] = train_all([resolved], machine)
    if outcome.result is None:
        raise StoreError(outcome.error or f"{resolved.run_id}: did not finish")
    return {**outcome.result, "folder": str(machine.results / "runs" / resolved.run_id)}
