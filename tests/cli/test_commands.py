"""The command line from outside: exit codes, one line per mistake, JSON that holds what it promises."""

from __future__ import annotations

import json
import os
import platform
import signal
import time
from pathlib import Path

import forks
import pytest
from pretended_cuda import Machine as Cards

from resx.cli import run
from resx.cli.show import print_estimate
from resx.spec import build_spec
from resx.store.run import open_run
from resx.training.machine import Machine
from resx.training.resolve import resolve

TINY = ["--dataset", "synthetic:classes=3,size=8,train=96,test=48", "--width", "4", "--batch-size", "16", "--jobs", "1"]


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Record into a folder of the test's own."""
    monkeypatch.setenv("RESX_RESULTS", str(tmp_path / "results"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "results"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "--depth", "57"], "6n+2"),
        (["train", "--shortcut", "identiy"], "did you mean 'identity'"),
        (["train", "--shortcut", "scaled:alpha=much"], "alpha must be a number"),
        (["train", "--dataset", "digts"], "did you mean 'digits'"),
        (["train", "--lr", "-1"], "lr: "),
        (["train", "--lr", "fast"], "--lr"),
        (["train", "--adapter", "pad"], "neither A, B, C"),
        (["train", "--adapter", "subsample+padd"], "did you mean 'pad'"),
        (["train", "--order", "middle"], "order: "),
        (["train", "--preset", "digit"], "did you mean 'digits'"),
        (["train", "--precision", "tf32"], "CUDA"),
        (["train", "--spec", "absent.toml"], "absent.toml"),
        (["train", "--plain", "--shortcut", "identity"], "either --plain"),
        (["train", "--dataset", "folder", "--data-dir", "."], "train"),
        (["train", "--plugin", "absent.py"], "absent.py"),
        (["train", "--no-such-option"], "No such option"),
        (["compare", "absent.toml"], "absent.toml"),
        (["compare", "--depths", "20,x"], "whole numbers"),
        (["compare", "--seeds", "0"], "at least one"),
        (["compare", "--seeds", "1000000000"], "at most 100,000"),
        (["compare", "--drops", "half"], "shares of the steps"),
        (["probe", "degradation", "--set", "primary"], "key=value"),
        (["run", "absent.toml"], "absent.toml"),
        (["plot", "degradation"], "resx compare"),
        (["plot", "degradatoin"], "did you mean 'degradation'"),
        (["runs", "show", "nothing"], "no run matches"),
        (["runs", "export", "x.csv"], "nothing is recorded"),
        (["runs", "import", "absent.zip"], "absent.zip"),
        (["trian"], "train"),
    ],
)
def test_bad_usage_is_a_line_and_exit_code_2(
    words: list[str], said: str, results: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 2
    error = capfd.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not (results / "runs").exists(), "nothing is written before the input is known to be good"


def test_no_cuda_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    assert run(["train", "--device", "cuda"]) == 2
    assert "--device cpu" in capfd.readouterr().err


def test_all_mistakes_come_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "--depth", "57", "--shortcut", "x", "--lr", "-1", "--preset", "digits"]) == 2
    assert len(capfd.readouterr().err.splitlines()) == 3


def test_train_prints_what_it_promises(results: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "--depth", "8", "--plain", "--steps", "4", *TINY, "--json"]) == 0
    output = capfd.readouterr()
    content = json.loads(output.out)
    assert list(content) == ["run_id", "status", "steps", "train_error", "test_error", "seconds", "folder"]
    assert (content["status"], content["steps"]) == ("finished", 4)
    assert Path(content["folder"]).parent == results / "runs"
    assert output.err.splitlines()[0].startswith("preset "), "the first line says which preset and why"


@pytest.mark.parametrize("command", ["train", "compare"])
def test_the_long_default_of_a_gpu_is_announced(
    command: str, capsys: pytest.CaptureFixture[str], cards: Cards, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {"fp32": 2.0, "tf32": 1.0}
    monkeypatch.setattr("resx.training.estimate._step_seconds", lambda spec, machine: seconds[spec.train.precision])
    words = [command, "--depth", "8", "--steps", "4", "--eval-images", "48", "--device", "cuda:0", *TINY]
    for more, announced in (([], True), (["--preset", "paper", "--seed", "1"], False)):
        assert run([*words, *more]) == 0
        lines = [line for line in capsys.readouterr().err.splitlines() if "at most about" in line]
        assert len(lines) == announced
        assert all(
            "on Pretended Card 0, " in line and "with --precision tf32. Shorter: --preset" in line for line in lines
        )


def test_a_comparison_on_a_gpu_records_how_its_steps_were_driven(results: Path, cards: Cards) -> None:
    assert run(["compare", "--depth", "8", "--steps", "4", "--device", "cuda:0", *TINY]) == 0
    [table] = results.glob("findings/*/fields.json")
    assert json.loads(table.read_text())["runs"]["mode"] == "graph"


def test_a_diverged_run_is_a_result(capfd: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--depth", "8", "--plain", "--norm", "none", "--lr", "1e4", "--steps", "9", *TINY, "--json"]
    assert run(words) == 0
    content = json.loads(capfd.readouterr().out)
    assert (content["status"], content["train_error"]) == ("diverged", None)


def test_a_comparison_of_which_every_run_diverged_is_printed_and_drawn(capfd: pytest.CaptureFixture[str]) -> None:
    words = ["compare", "--depths", "8", "--seeds", "1", "--norm", "none", "--lr", "1e4", "--steps", "9", *TINY, "-q"]
    assert run(words) == 0
    assert "degradation.png" in capfd.readouterr().out


@pytest.mark.parametrize("target", [".", "/", "folder"])
@pytest.mark.parametrize("form", ["csv", "bundle"])
def test_a_folder_is_no_file_to_export_to(target: str, form: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "--depth", "8", "--steps", "2", *TINY, "-q"]) == 0
    Path("folder").mkdir()
    capfd.readouterr()
    assert run(["runs", "export", "--format", form, target]) == 1
    assert len(capfd.readouterr().err.splitlines()) == 1


def test_what_another_process_trains_is_skipped_without_waiting(
    results: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["--depth", "8", "--steps", "4", *TINY, "--no-wait", "--quiet"]
    [spec] = resolve(
        [{"preset": "digits", "dataset": TINY[1], "depth": 8, "width": 4, "batch_size": 16, "steps": 4}], Machine()
    )
    with open_run(results, spec):
        assert run(["train", *words, "--preset", "digits"]) == 0
    who = f"process {os.getpid()} on {platform.node()}"
    assert capfd.readouterr().err == f"resx: {spec.run_id} is being trained by {who}: skipped, the rest is done\n"


def test_a_failed_run_is_exit_code_1(results: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--depth", "8", "--steps", "2", *TINY, "--json"]
    assert run(words) == 0
    folder = Path(json.loads(capfd.readouterr().out)["folder"])
    (folder / "result.json").unlink()
    (folder / "checkpoint.pt").write_bytes(b"cut")
    assert run(words) == 1
    assert "checkpoint.pt" in capfd.readouterr().err
    assert (folder / "checkpoint.pt").read_bytes() == b"cut"


def test_compare_prints_what_it_promises(results: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["compare", "--depths", "8,14", "--seeds", "2", "--steps", "4", *TINY, "--publish", "curated"]
    assert run([*words, "--json", "--quiet"]) == 0
    content = json.loads(capfd.readouterr().out)
    assert content.keys() == {"probe", "scale", "runs", "tables", "effects", "verdicts", "answer", "files"}
    assert content["scale"] == "toy"
    assert len(content["runs"]) == 8
    assert {item["spec"]["depth"] for item in content["runs"]} == {8, 14}
    columns = {"part", "family", "effect", "mean", "low", "high", "n", "p"}
    assert all(effect.keys() == columns for effect in content["effects"])
    assert {effect["n"] for effect in content["effects"]} == {2}
    assert content["verdicts"][0]["claim"] == "degradation:depth-costs-plain-more"
    assert all(Path(file).exists() for file in content["files"])
    assert run(words) == 0
    shown = capfd.readouterr()
    assert "--seeds 6" in shown.out.splitlines()[-1], "the last line says what a judgement costs"
    assert run(["plot", "degradation", "--results", "curated"]) == 0, "the published form reads like the original"
    assert run(["runs", "list", "--results", "curated", "--json"]) == 0


def test_an_experiment_runs_without_the_name_of_its_probe(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.toml").write_text(
        'probe = "degradation"\n[run]\npreset = "digits"\nsteps = 4\nwidth = 4\nbatch_size = 16\n'
        f'dataset = "{TINY[1]}"\n[[grid]]\ndepth = [8]\nseed = [0, 1]\n[[grid]]\ndepth = [14]\nseed = [0]\n'
    )
    assert run(["run", "mine.toml", "--json", "--jobs", "1"]) == 0
    assert len(json.loads(capfd.readouterr().out)["runs"]) == 6
    assert run(["probe", "gradients", "mine.toml", "--dry-run"]) == 2
    assert "of the probe 'degradation'" in capfd.readouterr().err


def test_a_dry_run_trains_nothing(results: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", "--depths", "8", "--steps", "4", *TINY, "--dry-run", "--json"]) == 0
    content = json.loads(capfd.readouterr().out)
    assert (content["runs"], content["to_train"]) == (2, 2)
    assert content["seconds"] > 0
    assert not (results / "runs").exists()


def test_flags_a_file_and_python_give_the_same_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from resx import train
    from resx.training.machine import make_machine

    (tmp_path / "e.toml").write_text(
        '[run]\npreset = "digits"\ndataset = "synthetic:classes=3,size=8,train=96,test=48"\n'
        "depth = 8\nwidth = 4\nsteps = 2\nbatch_size = 16\nseed = 5\n"
    )
    assert run(["train", "--spec", "e.toml", "--json"]) == 0
    from_file = json.loads(capfd.readouterr().out)["run_id"]
    assert run(["train", "--preset", "digits", "--depth", "8", "--steps", "2", "--seed", "5", *TINY, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["run_id"] == from_file
    fields = {"depth": 8, "width": 4, "steps": 2, "batch_size": 16, "seed": 5, "dataset": TINY[1]}
    assert train(preset="digits", machine=make_machine(jobs=1), **fields)["run_id"] == from_file


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_a_checkpoint_and_says_how_to_go_on(results: Path, number: int, code: int) -> None:
    words = ["train", "--depth", "8", "--steps", "100000", "--eval-every", "5", "--preset", "digits", *TINY]
    process = forks.python("from resx.cli import main; main()", *words, err=Path("err"))
    until = time.monotonic() + 60
    while time.monotonic() < until and not list(results.glob("runs/*/checkpoint.pt")):
        time.sleep(0.05)
    os.kill(process.pid, number)
    process.join(60)
    process.kill()
    error = Path("err").read_text()
    assert process.exitcode == code
    assert "same command" in error.splitlines()[-1]
    assert "Traceback" not in error
    assert list(results.glob("runs/*/checkpoint.pt"))


def test_runs_travel_in_a_bundle(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "--depth", "8", "--steps", "2", *TINY, "--quiet"]) == 0
    assert run(["runs", "export", "--format", "bundle", "b.zip"]) == 0
    assert run(["runs", "import", "b.zip", "--results", "there"]) == 0
    capfd.readouterr()
    assert run(["runs", "list", "--results", "there", "--json"]) == 0
    [row] = json.loads(capfd.readouterr().out)
    assert row["status"] == "finished"
    assert run(["runs", "rm", "--yes", row["run_id"], "--results", "there"]) == 0
    assert list((tmp_path / "there" / "runs").iterdir()) == []


def test_tensorboard_gets_the_curves(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    assert run(["train", "--depth", "8", "--steps", "2", *TINY, "--quiet"]) == 0
    assert run(["runs", "export", "--format", "tensorboard", "events"]) == 0
    assert list((tmp_path / "events").rglob("events.out.*"))


def test_an_option_that_takes_one_value_is_refused_twice(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "--depth", "8", "--depth=20"]) == 2
    assert capsys.readouterr().err.strip() == "resx: --depth: given twice; it takes one value"


def test_another_option_is_no_value(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", "--report", "--results", "mine"]) == 2
    assert capsys.readouterr().err.strip() == "resx: --report: takes a value, and --results is an option"
    assert run(["runs", "list", "--where", "--sort=lr"]) == 2
    assert capsys.readouterr().err.strip() == "resx: --where: takes a value, and --sort is an option"


def test_a_probe_takes_several_shortcuts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    several = ["--shortcut", "negation", "--shortcut", "permutation"]
    asked = ["probe", "shortcuts", "--preset", "digits", *several, "--order", "pre", "--seeds", "1", "--dry-run"]
    assert run([*asked, "--json", "--results", str(tmp_path)]) == 0
    assert '"runs": 4' in capsys.readouterr().out


def test_what_others_trained_is_not_estimated_as_training(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    foreign = {"network": "torchvision/resnet18", "weights": "0" * 16}
    spec = build_spec({"preset": "digits", "foreign": foreign})
    print_estimate([spec], Machine(results=results), as_json=True)
    assert json.loads(capsys.readouterr().out) == {"runs": 1, "to_train": 0, "seconds": 0.0, "bytes": 0}
