"""`resx plot` over recorded tables: what it writes, where, and what it refuses."""

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from resx import lab
from resx.cli.plot import plot
from resx.figures import select
from resx.spec import SpecError

app = typer.Typer()
app.command()(plot)


@pytest.fixture(name="invoke")
def invoke_fixture(made_up, loads, tmp_path, monkeypatch):
    monkeypatch.setattr(lab, "load_frames", loads(made_up()))
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, arguments)


def test_all_formats_by_default_in_the_results(invoke, tmp_path):
    name = "degradation"
    done = invoke(name, "--results", "here", "--depth", "20,56")
    assert done.exit_code == 0, done.output
    assert done.output.split() == [f"here/figures/{name}.{kind}" for kind in ("pdf", "svg", "png")]
    assert {path.name for path in (tmp_path / "here/figures").iterdir()} == {
        f"{name}.{kind}" for kind in ("pdf", "svg", "png")
    }


@pytest.mark.parametrize(
    ("out", "written"),
    [("a/fig.png", ["a/fig.png"]), ("v1.5", ["v1.5.pdf", "v1.5.svg", "v1.5.png"]), (".", ["degradation.pdf"])],
)
def test_out(out, written, invoke, tmp_path):
    assert invoke("degradation", "--out", out).exit_code == 0
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")}
    assert set(written) <= files
    assert len(files) == (1 if out.endswith(".png") else 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["degradaton"], "did you mean 'degradation'"),
        (["degradation", "--depth", "110"], "there are: depth 20, 56"),
        (["degradation", "--where", "lr"], "write field=value"),
        (["degradation", "--where", "lrr=1"], "did you mean 'lr'"),
    ],
)
def test_bad_usage_is_one_line_and_writes_nothing(arguments, message, invoke, tmp_path):
    error = invoke(*arguments).exception
    assert isinstance(error, SpecError)
    assert len(error.errors) == 1
    assert message in str(error)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["degradation", "depth"])
def test_runs_of_two_recipes_are_not_mixed(name, made_up, loads, tmp_path, monkeypatch):
    parts = [made_up(steps=steps, width=width) for steps, width in ((100, 16), (30, 16), (30, 8))]
    frames = {key: pd.concat([part[key] for part in parts], ignore_index=True) for key in parts[0]}
    monkeypatch.setattr(lab, "load_frames", loads(frames))
    monkeypatch.chdir(tmp_path)
    error = CliRunner().invoke(app, [name]).exception
    assert isinstance(error, SpecError)
    assert "(width: 8, 16; " in str(error) and "steps: 30, 100" in str(error) and "--where width=8" in str(error)
    done = CliRunner().invoke(app, [name, "--where", "width=8"])
    assert done.exit_code == 0, done.output


def test_a_shortcut_from_a_plugin_is_drawn_next_to_the_others(made_up, loads, tmp_path, monkeypatch):
    frames = made_up(shortcuts=("none", "identity", "negation"))
    own = frames["runs"]["shortcut"] == "negation"
    frames["runs"]["plugin"] = own.map({True: "0123456789abcdef", False: None})
    monkeypatch.setattr(lab, "load_frames", loads(frames))
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["degradation"])
    assert done.exit_code == 0, done.exception


def test_one_value_is_a_filter_too(made_up):
    frames = made_up()
    assert set(select(frames, depth=20)["runs"]["depth"]) == {20}
    assert set(select(frames, shortcut="none", depth=None)["runs"]["shortcut"]) == {"none"}
