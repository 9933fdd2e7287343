"""One spelling for depths and seeds, files that every command takes, recipes that come back, help that fits."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.text import Text

from resx import lab
from resx.cli import complete, run
from resx.cli.options import FIELD_OPTIONS, MACHINE_OPTIONS
from resx.data import DATASETS
from resx.figures import FIGURES
from resx.model import SHORTCUTS
from resx.probes import Request, load_probe, planned
from resx.spec import SpecError, build_spec, load_toml
from resx.training.machine import make_machine

DATA = "synthetic:classes=3,size=8,train=96,test=48"
TINY = ["--dataset", DATA, "--width", "4", "--batch-size", "16", "--jobs", "1", "--device", "cpu", "--preset", "digits"]


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RESX_RESULTS", str(tmp_path / "results"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "results"


def printed(capfd: pytest.CaptureFixture[str], *words: str) -> Any:
    assert run([*words, "--dry-run", "--json"]) == 0
    return json.loads(capfd.readouterr().out)["runs"]


@pytest.mark.parametrize("depths", ["--depth", "--depths"])
@pytest.mark.parametrize(("seeds", "count"), [(["--seeds", "3"], 3), (["--seed", "3"], 1), (["--seed", "3,5"], 2)])
def test_depths_and_seeds_have_one_spelling(
    depths: str, seeds: list[str], count: int, capfd: pytest.CaptureFixture[str]
) -> None:
    assert printed(capfd, "compare", depths, "8,14", *seeds, *TINY) == 4 * count
    assert printed(capfd, "probe", "responses", depths, "8", *seeds, *TINY) == 2 * count
    assert run(["train", depths, "8", "--seeds", "1", *TINY, "--print-spec"]) == 0


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["train", "--depth", "8,14"], "depth: one network is trained, not one for each of 8, 14"),
        (["train", "--seeds", "3"], "seed: one network is trained, not one for each of 0, 1, 2"),
        (["train", "--shortcut", "none", "--shortcut", "identity"], "shortcut: one network is trained"),
        (["compare", "--seed", "1", "--seeds", "2"], "--seed, --seeds: give one of them"),
        (["train", "--epochs", "0"], "epochs: must be a number above 0"),
        (["probe", "paths", "--shortcut", "none", "--preset", "digits"], "paths: it applies to none of the runs"),
    ],
)
def test_what_does_not_fit_is_one_line_before_training(
    words: list[str], line: str, results: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run([*words, "--device", "cpu"]) == 2
    shown = [text for text in capfd.readouterr().err.splitlines() if text.startswith("resx: ")]
    assert len(shown) == 1
    assert line in shown[0]
    assert not results.exists()


@pytest.mark.parametrize(
    "fields",
    [
        {"preset": "digits", "shortcut": "scaled:alpha=0.5", "order": "pre", "seed": 4},
        {"preset": "digits", "adapter": "average+copy", "subset": 200, "eval_images": None, "drops": (0.3,)},
        {"preset": "digits", "widths": "alternating", "adapter": "C", "depth": 14, "warmup": True},
        {"preset": "paper", "depth": 110, "seed": 1},
        {"preset": "small", "normalize": None, "augment": None},
        {"preset": "digits", "family": "vgg", "depth": 16, "shortcut": "none", "dataset": "cifar10"},
        {"preset": "digits", "family": "mlp", "depth": 8},
        {"preset": "paper", "init_from": {"run": "plain-20-cifar-10-s0-12345678", "transform": "deepen"}},
    ],
)
def test_a_printed_recipe_comes_back_as_the_same_run(fields: dict[str, Any], tmp_path: Path) -> None:
    machine = make_machine(device="cpu", jobs=1)
    spec = lab.plan_run(fields=fields, machine=machine)
    (tmp_path / "recipe.toml").write_text(lab.as_toml(spec))
    for preset in ({}, {"preset": "paper"}):
        again = lab.plan_run(load_toml(tmp_path / "recipe.toml"), fields=preset, machine=machine)
        assert again.run_id == spec.run_id


def test_what_a_command_prints_it_takes_back(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert run(["train", "--depth", "8", "--epochs", "2", *TINY, "--print-spec"]) == 0
    output = capfd.readouterr()
    assert "2 epochs of 96 images in batches of 16: 12 steps" in caplog.text
    (tmp_path / "one.toml").write_text(output.out)
    ids = []
    for words in (["--spec", "one.toml"], ["one.toml"]):
        assert run(["train", *words, "--device", "cpu", "--json", "--quiet"]) == 0
        output = capfd.readouterr()
        ids.append(json.loads(output.out)["run_id"])
        assert "preset" not in output.err, "the file leaves nothing to a preset"
    assert ids[0] == ids[1]
    assert "nothing was done" in output.err
    assert f"# resx train --spec FILE, the run {ids[0]}" in (tmp_path / "one.toml").read_text()
    assert run(["compare", "--depths", "8,14", *TINY, "--print-spec"]) == 0
    (tmp_path / "all.toml").write_text(capfd.readouterr().out)
    for command in (["run"], ["compare"], ["probe", "degradation"]):
        assert printed(capfd, *command, "all.toml", "--device", "cpu") == 4


def test_one_run_of_an_experiment_is_chosen_by_flags(capfd: pytest.CaptureFixture[str]) -> None:
    Path("all.toml").write_text(
        f'probe = "responses"\n[run]\npreset = "digits"\ndataset = "{DATA}"\n[grid]\ndepth = [8, 14]\n'
    )
    assert run(["train", "all.toml", "--device", "cpu", "--print-spec"]) == 2
    assert "all: is of several runs; choose one with --depth" in capfd.readouterr().err
    assert run(["train", "all.toml", "--depth", "14", "--device", "cpu", "--print-spec"]) == 0
    assert "depth = 14" in capfd.readouterr().out
    assert printed(capfd, "probe", "responses", "all.toml", "--depth", "8", "--seeds", "1", "--device=cpu") == 2, (
        "a flag goes first"
    )
    assert run(["compare", "all.toml", "--device", "cpu"]) == 2
    assert "`resx probe responses` takes it" in capfd.readouterr().err


@pytest.mark.parametrize("words", [[], ["runs"], ["probe"]])
def test_a_group_of_commands_alone_shows_its_help(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 0
    assert "Usage" in capfd.readouterr().out


def test_help_shows_defaults_and_no_type_of_flags(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "--help"]) == 0
    text = " ".join(capfd.readouterr().out.replace("│", " ").split())
    assert "default: digits 276; small 390; paper 64000" in text
    assert "<bool>" not in text


def test_no_help_of_an_option_is_lost_as_markup() -> None:
    for text in (option.__metadata__[0].help for option in {**FIELD_OPTIONS, **MACHINE_OPTIONS}.values()):
        words = re.sub(r"\[/?(dim|bold)\]", "", text).replace("\\[", "[")
        assert Text.from_markup(text).plain == words


@pytest.mark.parametrize("name", ["construct", "interventions", "mapping", "transfer"])
def test_what_a_probe_chooses_is_refused_and_not_in_its_help(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    probe = load_probe(name)
    chosen = [field for field in probe.chooses if field in ("depth", "shortcut")]
    values = {"depth": 26, "shortcut": "negation"}
    for field in chosen:
        asked = {"preset": "digits", field: values[field]}
        with pytest.raises(SpecError):
            planned(probe, Request(asked, [0], probe.settings(), lambda cells: [build_spec(cell) for cell in cells]))
    assert run(["probe", name, "--help"]) == 0
    shown = capfd.readouterr().out
    assert not [field for field in chosen if f"--{field}" in shown.replace(f"--set {field}", "")]


def test_a_shell_is_offered_what_is_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(complete.shortcuts("")) == set(SHORTCUTS)
    assert set(complete.datasets("")) == set(DATASETS)
    assert set(complete.figures("")) == set(FIGURES)
    assert complete.shortcuts("nega") == ["negation"]
    (tmp_path / "mine.toml").touch()
    assert list(complete.experiments("mi")) == ["mine.toml"]
    monkeypatch.setenv("COMP_WORDS", "resx train --shortcut nega")
    monkeypatch.setenv("COMP_CWORD", "3")
    monkeypatch.setenv("_RESX_COMPLETE", "complete_bash")
    with pytest.raises(SystemExit):
        run([])
