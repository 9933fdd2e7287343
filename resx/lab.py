"""The laboratory's way in: run a probe, train a network, judge what is recorded. Commands and notebooks call this.

    run("degradation", depths…)  ->  plan, train, measure, judge, draw, write  ->  Findings

Every measurement is recorded with its run at once and used again, so an interruption loses nothing. Findings are judged
from the tables in the written folder, so that the same folder always gives the same findings.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resx import data
from resx.figures import FIGURES, refuse_two_of_a_seed, select, style
from resx.figures.fitted import fitted
from resx.probes import (
    Findings,
    Measure,
    MeasureFunction,
    Probe,
    Request,
    Settings,
    judge,
    load_probe,
    parse_settings,
    planned,
    probe_names,
)
from resx.probes.page import MANY_ROWS, page, shown_tables, updated
from resx.spec import MAX_RUNS, Experiment, RunSpec, SpecError, command_of, load_toml, recipe, slug, without, write_toml
from resx.store.files import LOG, Busy, StoreError, results_root, write_atomic
from resx.store.run import find_run, open_run, read_run
from resx.store.tables import load_environments, load_frames, write_frames

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from torch import nn

    from resx.engines import Outcome
    from resx.engines.tasks import Desk
    from resx.progress import Display
    from resx.training.loop import Report
    from resx.training.machine import Machine

Say = Callable[[str], None]
PATHS = ("results", "data_dir", "plugin")  # settings of a machine that may be text
PUBLISHED = ("svg",)  # formats of figures in a published folder


@dataclass(frozen=True)
class Plan:
    """A probe about to be run, and its runs.

    name: of the folder for its findings. uses: experiments that store some of its runs. is_written: whether it comes
    from an experiment's file.
    """

    probe: str
    request: Request
    specs: Sequence[RunSpec]
    machine: Machine
    name: str
    uses: Sequence[str] = ()
    is_written: bool = False


@dataclass(frozen=True)
class Done:
    """The result of a probe: findings, the outcome of every run, and the files that were written.

    errors: a line for each figure that could not be drawn.
    """

    findings: Findings
    outcomes: Sequence[Outcome]
    files: Sequence[Path] = ()
    errors: Sequence[str] = ()


def plan(
    probe: str,
    experiment: Experiment | Path | None = None,
    *,
    fields: Mapping[str, Any],
    grid: Mapping[str, Sequence[Any]] | None = None,
    seeds: Sequence[int] | None = None,
    settings: Mapping[str, Any] | None = None,
    machine: Machine,
) -> Plan:
    """Return the runs of a probe, resolved. Arguments override the experiment's file.

    fields: of every run, the preset among them. grid: values of fields that vary. Raises SpecError with all mistakes.
    """
    from resx.training.resolve import resolve

    written = _experiment(experiment)
    if written.probe and written.probe != probe:
        raise SpecError(
            f"{written.name}: is an experiment of the probe '{written.probe}', not of '{probe}'; "
            f"`resx probe {written.probe}` takes it, and so does `resx run`"
        )
    definition = load_probe(probe)
    data.look_again()  # once: the cells of a grid are resolved a few at a time
    fields = _in_steps({**written.run, **fields}, machine) if "epochs" in fields else fields
    grids = [{**without(one, *fields), **(grid or {})} for one in written.grids or ({},)]
    if seeds:
        grids = [without(one, "seed") for one in grids]
    elif len(grids) == 1:
        seeds = grids[0].pop("seed", None)
    request = Request(
        base={**written.run, **fields},
        seeds=list(seeds or range(definition.seeds)),
        settings=parse_settings(definition, {**written.settings, **(settings or {})}),
        resolve=lambda cells: resolve(cells, machine, same_files=True),
        grids=grids,
    )
    specs = planned(definition, request)
    _refuse_unmeasurable(definition, specs, request.settings)
    options = {**fields, **(grid or {}), **(settings or {})}
    name = written.name or _name(probe, specs, options)
    return Plan(probe, request, specs, machine, name, written.uses, bool(written.name))


def _experiment(given: Experiment | Path | str | None) -> Experiment:
    return load_toml(Path(given)) if isinstance(given, str | Path) else given or Experiment()


def plan_run(
    experiment: Experiment | Path | None = None,
    *,
    fields: Mapping[str, Any],
    grid: Mapping[str, Sequence[Any]] | None = None,
    seeds: Sequence[int] | None = None,
    machine: Machine,
) -> RunSpec:
    """Return the run with these fields; of an experiment's runs, the one that they choose.

    Raises SpecError where several are left.
    """
    from resx.training.resolve import resolve

    written = _experiment(experiment)
    given = {**(grid or {}), **({"seed": seeds} if seeds else {})}
    for key, values in given.items():
        if len(values) > 1:
            listed = ", ".join(map(str, values))
            raise SpecError(
                f"{key}: one network is trained, not one for each of {listed}; `resx compare` takes several"
            )
    given = {**fields, **{key: values[0] for key, values in given.items()}}
    grids = [without(one, *given) for one in written.grids] or [{}]
    several = dict.fromkeys(key for one in grids for key, values in one.items() if len(values) > 1)
    if several or len({str(one) for one in grids}) > 1:
        keys = ", ".join(f"--{key}" for key in several or grids[0])
        raise SpecError(f"{written.name}: is of several runs; choose one with {keys}, or `resx run` trains them all")
    cell = {key: values[0] for key, values in grids[0].items()}
    [spec] = resolve([_in_steps({**written.run, **cell, **given}, machine)], machine)
    return spec


def _in_steps(fields: Mapping[str, Any], machine: Machine) -> dict[str, Any]:
    """Return the fields with epochs, passes over the training images, as steps, whose number is logged."""
    from resx.training.resolve import resolve

    rest = without(fields, "epochs")
    if "epochs" not in fields:
        return rest
    try:
        epochs = float(fields["epochs"])
    except (TypeError, ValueError):
        epochs = math.nan
    if not 0 < epochs < math.inf:
        raise SpecError(f"epochs: must be a number above 0, not {fields['epochs']}")
    [spec] = resolve([rest], machine)
    images = spec.data.subset or data.facts(spec.data, machine.data_dir).train - (spec.data.validation or 0)
    steps = max(1, round(epochs * images / spec.train.batch_size))
    LOG.warning(
        "%g epochs of %s images in batches of %d: %s steps", epochs, f"{images:,}", spec.train.batch_size, f"{steps:,}"
    )
    return {**rest, "steps": steps}


def as_toml(plan: Plan | RunSpec) -> str:
    """Return the text of a file from which a command runs the same."""
    if isinstance(plan, Plan):
        return _written(plan)
    return write_toml(Experiment(run=recipe(plan)), f"resx train --spec FILE, the run {plan.run_id}")


def _refuse_unmeasurable(probe: Probe, specs: Sequence[RunSpec], settings: Any) -> None:
    for name, measure in probe.measures.items():
        candidates = [spec for spec in specs if measure.wants(spec, settings)]
        reasons = [measure.refuses(spec) for spec in candidates if not spec.foreign]
        if reasons and all(reasons):
            raise SpecError(f"{name}: it applies to none of the runs: {reasons[0]}")


def _name(probe: str, specs: Sequence[RunSpec], options: Mapping[str, Any]) -> str:
    """Return a folder's name made of the options, so that one comparison does not overwrite another's findings."""
    data = specs[0].data.label or specs[0].data.dataset
    words = [
        f"{key} {', '.join(map(str, value)) if isinstance(value, list) else value}"
        for key, value in options.items()
        if key not in ("preset", "dataset", "label", "seed")
    ]
    text = " ".join([probe, data, *words])
    name = slug(text)
    return name if len(text) <= len(name) + 4 else f"{name[:50]}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def run(
    probe: str,
    experiment: Experiment | Path | str | None = None,
    *,
    seeds: int | Sequence[int] | None = None,
    settings: Mapping[str, Any] | None = None,
    grid: Mapping[str, Sequence[Any]] | None = None,
    machine: Machine | None = None,
    quiet: bool | None = None,
    **fields: Any,
) -> Findings:
    """Run a probe and return its findings: the Python face of `resx probe`.

    experiment: a TOML file. seeds: how many, or which. fields: of every run, such as preset="digits" or depth=20, a
    list where it varies, as in depth=[20, 56]; also plain and, unless a machine is given, its settings: device, jobs,
    results, data_dir, plugin, …. quiet: without progress, which a terminal and a notebook show by default. Findings
    show themselves as a table in a notebook; files go to the machine's results. Raises SpecError for bad input and
    StoreError where no run finished.
    """
    from resx.training.machine import default_preset

    fields, machine = _as_flags(fields, machine)
    several = {key: list(value) for key, value in fields.items() if _is_several(key, value)}
    fields, grid = without(fields, *several), {**several, **(grid or {})}
    written = _experiment(experiment)
    if "preset" not in {**written.run, **fields}:
        fields["preset"], _ = default_preset(machine)
    numbers = range(min(seeds, MAX_RUNS + 1)) if isinstance(seeds, int) else seeds
    planned_runs = plan(probe, written, fields=fields, grid=grid, seeds=numbers, settings=settings, machine=machine)
    with _display(planned_runs.specs, machine, quiet) as display:
        return carry_out(planned_runs, display.report, display.say).findings


def _is_several(field: str, value: Any) -> bool:
    """Whether these are several values of a field; one value of `drops` is a sequence itself."""
    return field != "drops" and isinstance(value, Sequence) and not isinstance(value, str)


def _display(specs: Sequence[RunSpec], machine: Machine, quiet: bool | None) -> Display:
    from resx.engines import left_to_train
    from resx.progress import Display, is_watched

    return Display(left_to_train(specs, machine), quiet=not is_watched() if quiet is None else quiet)


def compare(
    *, depths: Sequence[int] | None = None, shortcut: str | Sequence[str] | None = None, **given: Any
) -> Findings:
    """Compare plain networks, the identity and other shortcuts at several depths: the Python face of `resx compare`.

    given: as in `run`, such as seeds=6, plugin="mine.py".
    """
    shortcuts = [shortcut] if isinstance(shortcut, str) else list(shortcut or ())
    grid = {**given.pop("grid", {}), **({"depth": list(depths)} if depths else {})}
    return run("degradation", grid=grid | ({"shortcut": shortcuts} if shortcuts else {}), **given)


def _as_flags(fields: Mapping[str, Any], machine: Machine | None) -> tuple[dict[str, Any], Machine]:
    """Return fields of runs and the machine, from fields among which the machine's settings may be.

    Raises SpecError where both a machine and its settings are given, or both plain and a shortcut.
    """
    from resx.training.machine import Machine, make_machine

    own = {field.name for field in dataclasses.fields(Machine)}
    settings = {key: value for key, value in fields.items() if key in own}
    fields = without(fields, *own)
    if machine and settings:
        raise SpecError(f"{', '.join(settings)}: give either a machine or these")
    if "plain" in fields:
        if "shortcut" in fields:
            raise SpecError("plain: give either it or a shortcut")
        fields["shortcut"] = "none" if fields.pop("plain") else "identity"
    paths = {key: Path(value) for key, value in settings.items() if key in PATHS and value is not None}
    return fields, machine or make_machine(**{**settings, **paths})


def carry_out(
    plan: Plan, report: Report = lambda progress: None, say: Say = lambda line: None, folder: Path | None = None
) -> Done:
    """Train what is missing, measure what is not measured yet, judge, draw and write.

    report: receives the progress of training and measuring; say: lines on measuring. folder: for the findings, by
    default findings/NAME in the results. Raises StoreError where no run finished.
    """
    from resx.engines import train_all

    machine, probe = plan.machine, load_probe(plan.probe)
    outcomes = train_all(plan.specs, machine, report)
    finished = [outcome.spec.run_id for outcome in outcomes if outcome.result]
    if not finished:
        raise StoreError(f"{plan.probe}: no run finished: {next(one.error for one in outcomes if one.error)}")
    outcomes = _measure(probe, outcomes, plan.request.settings, machine, say, report)
    frames = load_frames(machine.results, finished, list(probe.measures))
    target = folder or machine.results / "findings" / plan.name
    environments = load_environments(machine.results, finished)
    write_frames(frames, environments, target, uses=plan.uses if folder else ())
    write_atomic(target / "experiment.toml", _written(plan))
    try:
        findings = read(target)
    except SpecError as error:
        failures = [one.error for one in outcomes if one.error]
        raise StoreError("; ".join([*failures[:1], *error.errors])) if failures else error from None
    files, errors = write(findings, target, publish=folder is not None)
    return Done(findings, outcomes, files, errors)


def _measure(
    probe: Probe,
    outcomes: list[Outcome],
    settings: Any,
    machine: Machine,
    say: Say,
    report: Report = lambda progress: None,
) -> list[Outcome]:
    """Make all missing measurements of finished runs, and return the outcomes, with an error where one failed.

    Raises SpecError where a measurement applies to none of the runs, StoreError where all measurements failed.
    """
    from resx.engines import run_tasks, share
    from resx.engines.tasks import Task
    from resx.training.loop import MEASURING, Progress

    todo = {f"{one.name}: {one.spec.run_id}": one for one in _unmeasured(probe, outcomes, settings, machine, say)}
    if not todo:
        return outcomes
    say(f"measuring {len(todo)} runs")
    count = itertools.count(1)

    def ended(name: str) -> None:
        if todo[name].is_done(machine):  # not by another process, and no failure
            done = next(count)
            say(f"{name} measured ({done}/{len(todo)})")
            report(Progress(MEASURING, done, len(todo), 0.0, math.nan, math.nan))

    failed: dict[str, str] = {}
    share(
        {name: one.spec.run_id for name, one in todo.items()},
        "measured",
        lambda left: run_tasks([Task(name, todo[name]) for name in left], machine, ended=ended),
        lambda name: todo[name].is_done(machine),
        machine,
        failed,
    )
    if len(failed) == len(todo):
        raise StoreError(next(iter(failed.values())))
    errors = {todo[name].spec.run_id: line for name, line in failed.items()}
    return [replace(one, error=errors.get(one.spec.run_id, one.error)) for one in outcomes]


@dataclass(frozen=True, eq=False)
class _Measurement:
    """A measurement of one finished run. recorded: the settings that it depends on, as they stand in its table."""

    name: str
    function: MeasureFunction
    spec: RunSpec
    settings: Any
    recorded: str

    def is_done(self, machine: Machine) -> bool:
        table = read_run(machine.results / "runs" / self.spec.run_id).load_probe(self.name)
        return table is not None and list(table.get("settings", ())[:1]) == [self.recorded]

    def __call__(self, desk: Desk) -> None:
        """Measure the run and record the table with it, unless another process does so or has done so."""
        import torch

        from resx.measurements.inputs import Specimen
        from resx.training.resolve import load_plugin_of

        load_plugin_of(self.spec, desk.machine)
        with suppress(Busy), open_run(desk.machine.results, self.spec) as run:
            if not self.is_done(desk.machine):
                specimen = Specimen(run, desk.datasets(self.spec.data), torch.device(desk.machine.device))
                table = self.function(specimen, self.settings)
                run.save_probe(self.name, table.assign(settings=self.recorded))


def _unmeasured(
    probe: Probe, outcomes: Sequence[Outcome], settings: Any, machine: Machine, say: Say
) -> Iterator[_Measurement]:
    """Yield the missing measurements; a line names each run that is left out. Raises SpecError as `_measure` does."""
    for name, measure in probe.measures.items():
        candidates = [outcome for outcome in outcomes if measure.wants(outcome.spec, settings)]
        reasons = {one.spec.run_id: reason for one in candidates if (reason := _left_out(one, measure))}
        for run_id, reason in reasons.items():
            say(f"{name}: {run_id} is left out: {reason}")
        if candidates and len(reasons) == len(candidates):
            raise SpecError(f"{name}: it applies to none of the runs: {next(iter(reasons.values()))}")
        recorded = json.dumps(settings.model_dump(mode="json", include=set(measure.keys)), sort_keys=True)
        for one in candidates:
            measurement = _Measurement(name, measure.function, one.spec, settings, recorded)
            if one.spec.run_id not in reasons and not measurement.is_done(machine):
                yield measurement


def _left_out(outcome: Outcome, measure: Measure) -> str | None:
    if outcome.result is None:
        return "it is not finished"
    if outcome.result["status"] == "diverged" and not measure.diverged:
        return "it diverged"
    return measure.refuses(outcome.spec)


def _written(plan: Plan) -> str:
    """Return the text of experiment.toml: the runs and settings, and the command that runs them again."""
    request = plan.request
    grids = [{key: list(values) for key, values in one.items()} for one in request.grids]
    grids = [
        one if "foreign" in one else {"seed": list(request.seeds), **one} for one in grids
    ]  # foreign weights have none
    settings = request.settings.model_dump(mode="json")
    experiment = Experiment(plan.name, plan.probe, plan.uses, request.base, grids, settings)
    command = f"resx run experiments/{plan.name}.toml" if plan.is_written else "resx run experiment.toml"
    if any(spec.data.dataset == "folder" for spec in plan.specs):
        command += " --data-dir FOLDER"
    return write_toml(experiment, command)


def read(folder: Path) -> Findings:
    """Return the findings of a folder that a probe wrote, live or published, judged from its tables.

    Raises StoreError where the folder holds no findings, a table is damaged, or another version wrote it.
    """
    written = load_toml(folder / "experiment.toml")
    settings = parse_settings(load_probe(written.probe), written.settings)
    return _judged(written.probe, load_frames(folder), settings, folder)


def _judged(probe: str, frames: Mapping[str, pd.DataFrame], settings: Any, source: Path) -> Findings:
    try:
        return judge(probe, frames, settings)
    except KeyError as error:  # a measurement, a column, a value
        raise StoreError(f"{source}: has no {error}, which this version of resx judges '{probe}' by") from error


def write(
    findings: Findings, folder: Path, source: Path | None = None, *, publish: bool = False
) -> tuple[list[Path], list[str]]:
    """Write what follows from a folder's tables: the tables that are shown, verdicts, figures and the page.

    source: the folder of the tables, by default the same. publish: without tables that the page shows whole, and
    figures in one format. What a person wrote on the page stays. Returns the files, and a line for each figure that
    could not be drawn.
    """
    source = source or folder
    tables = {name: table for name, table in shown_tables(findings).items() if not publish or len(table) > MANY_ROWS}
    tables["verdicts"] = findings.evidence_table()
    files = []
    for name, table in tables.items():
        files.append(folder / f"{name}.csv")
        write_atomic(files[-1], table.to_csv(index=False, float_format="%.6g"))
    drawn, errors = draw(findings, folder / "figures", PUBLISHED if publish else style.FORMATS)
    command = command_of(source / "experiment.toml")
    own = page(findings, source.name, command, _cost(findings, source))
    path = folder / "README.md"
    write_atomic(path, updated(path.read_text(encoding="utf-8") if path.exists() else "", source.name, own))
    return [*files, *drawn, path], errors


def _cost(findings: Findings, folder: Path) -> str:
    runs, environments = findings.frames["runs"], load_environments(folder)
    names = environments["hardware"].dropna() if "hardware" in environments else ()
    hardware = ", ".join(sorted(set(map(str, names))))
    work = "evaluation, nothing was trained" if runs["foreign"].notna().all() else "training in all"
    return f"{len(runs)} runs, {runs['seconds'].sum() / 60:.0f} minutes of {work}" + f", {hardware}" * bool(hardware)


def rewrite(folder: Path) -> list[Path]:
    """Write again what follows from the tables of a published experiment.

    Raises StoreError where it has none, and where a figure could not be drawn.
    """
    files, errors = write(read(folder), folder, publish=True)
    if errors:
        raise StoreError(f"{folder}: {'; '.join(errors)}")
    return files


def draw(findings: Findings, folder: Path, formats: Sequence[str] = style.FORMATS) -> tuple[list[Path], list[str]]:
    """Draw every figure of the findings' probe; return the files, and a line for each that could not be drawn.

    So a figure that fails costs no numbers. Raises StoreError where a file cannot be written.
    """
    files, errors = [], []
    for name, (figure, drawn) in findings.drawings().items():
        try:
            files += style.save(FIGURES[figure](drawn), folder / name, formats)
        except StoreError:
            raise
        except Exception as error:
            reason = str(error) if isinstance(error, SpecError) else f"{type(error).__name__}: {error}"
            errors.append(f"figure {name} could not be drawn: {' '.join(reason.split())}")
    return files, errors


def plot(
    name: str,
    *,
    results: Path | str | None = None,
    title: bool = True,
    width: float | None = None,
    look: str = "screen",
    where: Mapping[str, object] | None = None,
    **filters: object,
) -> Figure:
    """Return a figure of recorded runs: the Python face of `resx plot`; nothing is trained.

    results: a folder of live runs or a published experiment. title, width, look: as in `resx.figures.fitted`. filters:
    values by field, such as depth=[20, 56], as in `resx.figures.select`; where: the same, also for the field `width`
    (channels). Raises SpecError for an unknown name, where no run is left or a seed has runs of several recipes, and
    for a width at which the figure is unreadable.
    """
    draw_figure, probe = FIGURES[name], probe_of(name)
    measurements = list(load_probe(probe).measures) if probe else []
    root = results_root(Path(results) if results else None)
    selected = select(load_frames(root, measurements=(), curves=False), **{**filters, **(where or {})})
    frames = load_frames(root, list(selected["runs"]["run_id"]), measurements)
    findings = Findings("", Settings(), frames)
    if probe:
        try:
            findings = _judged(probe, frames, load_probe(probe).settings(), root)
        except ValueError as error:
            if not isinstance(error, SpecError):
                refuse_two_of_a_seed(frames["runs"])  # what is recorded here may be of two recipes
            raise
    return fitted(draw_figure(findings), title=title, width=width, look=look)


def probe_of(figure: str) -> str | None:
    """Return the probe whose findings a figure draws; None for a figure of any runs."""
    return next((key for key in probe_names() if figure in load_probe(key).figures), None)


def as_document(done: Done, machine: Machine) -> dict[str, Any]:
    """Return the document of `--json`: runs, tables, effects, verdicts, answer, scale and files."""
    findings = done.findings
    return {
        "probe": findings.probe,
        "scale": findings.scale,
        "runs": [{**one.summary(machine.results), "spec": one.spec.flat()} for one in done.outcomes],
        "tables": {name: table.to_dict("records") for name, table in shown_tables(findings).items()},
        "effects": findings.effects_table().to_dict("records"),
        "verdicts": findings.verdicts_table().to_dict("records"),
        "answer": list(findings.answer),
        "files": done.files,
    }


def train(
    spec: RunSpec | Path | str | None = None,
    *,
    machine: Machine | None = None,
    quiet: bool | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """Train one network, or return it where it is finished already: the Python face of `resx train`.

    Give a RunSpec, a file or flat fields (`train(preset="digits", depth=56, plain=True)`), and, as in `run`, settings
    of the machine, and quiet. The machine chooses the preset where none is given. Returns the content of result.json
    with the folder. Raises SpecError for bad input, StoreError where training failed.
    """
    from resx.engines import train_all
    from resx.training.machine import default_preset

    fields, machine = _as_flags(fields, machine)
    given = spec.flat() if isinstance(spec, RunSpec) else {}
    written = _experiment(None if isinstance(spec, RunSpec) else spec)
    if not given and "preset" not in {**written.run, **fields}:
        given = {"preset": default_preset(machine)[0]}
    resolved = plan_run(written, fields={**given, **fields}, machine=machine)
    with _display([resolved], machine, quiet) as display:
        [outcome] = train_all([resolved], machine, display.report)
    if outcome.result is None:
        raise StoreError(outcome.error or f"{resolved.run_id}: did not finish")
    return {**outcome.result, "folder": str(machine.results / "runs" / resolved.run_id)}


def load(name: str, *, results: Path | None = None, step: int | None = None, data_dir: Path | None = None) -> nn.Module:
    """Return a recorded run's network in eval mode, on the CPU, with the weights of a saved step, by default the last.

    name: a run id, or its beginning or end. Raises SpecError for a name that is not one run's, StoreError where its
    weights are damaged or were not saved.
    """
    from resx.training.initial import unloaded_network

    run = find_run(results_root(results), name)
    network = unloaded_network(run.spec, data.load(run.spec.data, data_dir))
    network.load_state_dict(run.load_weights(step))
    return network.eval()
