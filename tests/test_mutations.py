"""Whatever happens to a file of a run, commands answer in a line, others stay as they are, nothing wrong is served."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resx.cli import run as call
from resx.engines import train_all
from resx.figures import FIGURES
from resx.probes import judge, load_probe, parse_settings
from resx.spec import FIELDS, RunSpec, SpecError, build_spec, load_toml, printable
from resx.store.files import StoreError
from resx.store.run import OUTCOMES, RunFolder
from resx.store.tables import load_frames
from resx.training.machine import Machine
from resx.training.resolve import resolve

FAST = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
FILES = [
    "spec.json",
    "environment.json",
    "checkpoint.pt",
    "metrics.csv",
    "predictions.npz",
    "result.json",
    "manifest.json",
    "snapshots/step-0000000.pt",
    "snapshots/step-0000004.pt",
]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[RunSpec]]:
    """Two finished runs that took a moment."""
    results = tmp_path_factory.mktemp("mutations") / "results"
    fields = {"preset": "digits", "depth": 8, "width": 4, "steps": 4, "eval_every": 2, "subset": 40}
    specs = resolve([{**fields, "seed": seed} for seed in (0, 1)], Machine())
    train_all(specs, Machine(results=results, jobs=1))
    return results, specs


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command; return its output where it ended in one of its ways, without a traceback."""

    def command(*words: object) -> str:
        capsys.readouterr()
        code = call([str(word) for word in words])
        shown = capsys.readouterr()
        assert code in (0, 1, 2), words
        assert "Traceback" not in shown.err
        return shown.out

    return command


Mutation = tuple[str, str, float, bytes]


@st.composite
def mutations(draw: st.DrawFn) -> list[Mutation]:
    """What is done to one file; or to several, the manifest among them, which may be as another run's as the rest."""
    kinds = ["flip", "cut", "insert", "replace", "remove", "other", "renamed"]
    strange = st.sampled_from(["remove", "other", "renamed"])

    def mutation(name: str, kind: st.SearchStrategy[str]) -> Mutation:
        return name, draw(kind), draw(st.floats(0, 1)), draw(st.binary(max_size=40))

    if draw(st.booleans()):
        return [mutation(draw(st.sampled_from(FILES)), st.sampled_from(kinds))]
    names = draw(st.sets(st.sampled_from([name for name in FILES if name != "manifest.json"]), min_size=1))
    return [mutation("manifest.json", strange), *(mutation(name, strange) for name in sorted(names))]


def mutate(file: Path, other: Path, kind: str, place: float, junk: bytes) -> None:
    """Harm a file; `other` is the same file of another run."""
    data = file.read_bytes()
    at = int(place * (len(data) - 1))
    if kind == "flip":
        file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    elif kind == "cut":
        file.write_bytes(data[:at])
    elif kind == "insert":
        file.write_bytes(data[:at] + junk + data[at:])
    elif kind == "replace":
        file.write_bytes(junk)
    elif kind == "remove":
        file.unlink()
    elif kind == "other":
        file.write_bytes(other.read_bytes())
    else:
        old, new = (path.parts[path.parts.index("runs") + 1].encode() for path in (other, file))
        file.write_bytes(other.read_bytes().replace(old, new))  # with this run's id in it


def served(run: RunFolder) -> dict[str, Any]:
    """Return what is read of a run, without what cannot be."""
    readers: dict[str, Callable[[], Any]] = {
        "rows": run.rows,
        "result": lambda: (run.result or {}).get("test_error"),
        "first": lambda: {name: tensor.tolist() for name, tensor in run.load_weights(0).items()},
        "last": lambda: run.result and {name: tensor.tolist() for name, tensor in run.load_weights().items()},
        "outputs": lambda: run.load_predictions()[0].tolist(),
    }
    values = {}
    for name, read in readers.items():
        with suppress(StoreError):
            values[name] = read()
    return values


def wrong(values: dict[str, Any], whole: dict[str, Any]) -> list[str]:
    return [name for name, value in values.items() if value not in (None, [], whole[name])]


def rows(printed: Any, results: Path) -> dict[str, dict[str, Any]]:
    return {row["run_id"]: row for row in json.loads(printed("runs", "list", "--json", "--results", results))}


@FAST
@given(mutation=mutations())
def test_a_mutated_file_is_never_served_and_harms_no_other_run(
    recorded: tuple[Path, list[RunSpec]], printed: Any, tmp_path: Path, mutation: list[Mutation]
) -> None:
    results, specs = recorded
    here = tmp_path / "results"
    shutil.rmtree(here, ignore_errors=True)
    shutil.copytree(results, here)
    before = rows(printed, here)
    first, second = (here / "runs" / spec.run_id for spec in specs)
    whole = served(RunFolder(first, specs[0]))
    assert len(whole) == 5
    for name, *how in mutation:
        mutate(first / name, second / name, *how)
    after = rows(printed, here)
    assert after[second.name] == before[second.name]
    row = after.get(first.name, {"status": "unfinished"})  # nothing that was recorded may be left
    good = {key: value for key, value in before[first.name].items() if key not in ("status", "written")}
    assert row["status"] in ("damaged", "unfinished") or {key: row[key] for key in good} == good
    for words in (
        ["runs", "show", first.name],
        ["runs", "check"],
        ["plot", "curves", "-q", "-o", tmp_path / "x.svg"],
        ["runs", "export", tmp_path / "x"],
    ):
        printed(*words, "--results", here)
    printed("runs", "export", "--format", "bundle", tmp_path / "b.zip", second.name, "--results", here)
    assert wrong(served(RunFolder(first, specs[0])), whole) == []
    [outcome, other] = train_all(specs, Machine(results=here, jobs=1))
    assert other.result is not None and other.result["test_error"] == before[second.name]["test_error"]
    assert outcome.result is None or outcome.result["test_error"] == before[first.name]["test_error"]
    assert outcome.result is not None or outcome.error
    assert wrong(served(RunFolder(first, specs[0])), whole) == []


@FAST
@given(kind=st.sampled_from(["flip", "cut", "insert", "replace"]), place=st.floats(0, 1), junk=st.binary(max_size=40))
def test_a_mutated_bundle_brings_in_what_it_held_or_nothing(
    recorded: tuple[Path, list[RunSpec]], printed: Any, tmp_path: Path, kind: str, place: float, junk: bytes
) -> None:
    results, _ = recorded
    printed("runs", "export", "--format", "bundle", tmp_path / "b.zip", "--results", results)
    mutate(tmp_path / "b.zip", tmp_path / "b.zip", kind, place, junk)
    there = tmp_path / "there"
    shutil.rmtree(there, ignore_errors=True)
    printed("runs", "import", tmp_path / "b.zip", "--results", there)
    before = rows(printed, results)
    for run_id, row in rows(printed, there).items():
        assert row["status"] == "finished"
        assert row["test_error"] == before[run_id]["test_error"]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(FAST, max_examples=60)
@given(fields=st.dictionaries(st.sampled_from([*FIELDS, "preset"]), ANYTHING, max_size=3))
def test_any_value_of_a_field_is_taken_or_refused_in_lines(fields: dict[str, Any]) -> None:
    try:
        spec = build_spec(fields)
    except SpecError as error:
        lines = error.errors
    else:
        lines = ["taken"]
        assert build_spec(json.loads(json.dumps(spec.flat(), default=lambda value: value.model_dump()))) == spec
    assert lines and all(line and printable(line) == line for line in lines)


@settings(FAST, max_examples=60)
@given(text=st.text(max_size=60) | st.binary(max_size=60).map(lambda data: data.decode("latin-1")))
def test_any_text_as_a_file_is_read_or_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "x.toml"
    for content in (text, f"[run]\n{text}", f"[grid]\nseed = [{text}]"):
        file.write_bytes(content.encode("utf-8", "surrogatepass"))
        lines: list[str] = []
        try:
            load_toml(file)
        except SpecError as error:
            lines = error.errors
        assert all(line.startswith(str(file)) for line in lines)


PUBLISHED = Path(__file__).parents[1] / "results"


@settings(FAST, max_examples=3)
@given(data=st.data())
@pytest.mark.parametrize("name", ["construct-digits", "question2-digits", "question3-digits", "landscape-digits"])
def test_any_part_of_what_was_recorded_is_judged_and_drawn_or_refused_in_lines(name: str, data: st.DataObject) -> None:
    written = load_toml(PUBLISHED / name / "experiment.toml")
    frames = dict(load_frames(PUBLISHED / name))
    runs = frames["runs"]
    field = data.draw(st.sampled_from(["depth", "shortcut", "seed", "adapter", "widths", "family"]))
    texts = runs[field].map(str)
    runs = runs[texts.isin(data.draw(st.sets(st.sampled_from(sorted(set(texts))), min_size=1)))].copy()
    status = data.draw(st.sampled_from(["finished", "diverged", "unfinished", "damaged"]))
    lost = runs.sample(frac=data.draw(st.sampled_from([0.0, 0.5, 1.0])), random_state=0).index
    if status != "finished":
        runs.loc[lost, ["status", *OUTCOMES]] = [status, *[float("nan")] * len(OUTCOMES)]
    for absent in data.draw(st.sets(st.sampled_from(sorted(frames.keys() - {"runs", "curves"})), max_size=1)):
        del frames[absent]
    frames = {key: table[table["run_id"].isin(runs["run_id"])] for key, table in {**frames, "runs": runs}.items()}
    if data.draw(st.booleans()):
        frames["curves"] = frames["curves"].iloc[:0]
    lines = ["drawn"]
    try:
        findings = judge(written.probe, frames, parse_settings(load_probe(written.probe), written.settings))
        for figure, drawn in findings.drawings().values():
            FIGURES[figure](drawn)
    except SpecError as error:
        lines = error.errors
    assert all(line and printable(line) == line for line in lines)
