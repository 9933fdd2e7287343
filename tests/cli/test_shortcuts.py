"""`resx shortcuts`: what is registered, as JSON, with a plugin, and as the page of the documentation."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from resx.cli import run
from resx.cli.shortcuts import as_markdown
from resx.model import SHORTCUTS
from resx.model.facts import facts

ROOT = Path(__file__).parents[2]


def test_json_has_the_facts(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["shortcuts", "identity", "rezero", "mixing:groups=2", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == ["identity", "rezero", "mixing:groups=2"]
    assert [row["parameters"] for row in rows] == [0, 9, 9 * 4]


def test_a_formula_keeps_its_meaning_in_ascii() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "resx", "shortcuts", "delta", "conv", "depth-attention"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    text = " ".join(done.stdout.split())
    assert "x + beta(x) (v(x) - k*x) k, k = F/||F||" in text and "C^2 parameters" in text and "?" not in text
    rows = [line for line in done.stdout.splitlines() if line.startswith(("|", "+"))]
    assert len({len(line) for line in rows}) == 1, "columns are as wide as what is written in them"


def test_an_unknown_name_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["shortcuts", "identiy"]) == 2
    assert "did you mean 'identity'" in capsys.readouterr().err


def test_a_plugin_is_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(SHORTCUTS, "_entries", dict(SHORTCUTS._entries))
    assert run(["shortcuts", "echo", "--plugin", str(ROOT / "examples" / "my_streams.py"), "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)
    assert row["length"] == "kept" and row["parameters"] == 9
    for name in [name for name in sys.modules if name.startswith("resx_plugin_")]:
        del sys.modules[name]  # what it registered is forgotten too


def test_a_docstring_is_no_markup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(SHORTCUTS, "_entries", dict(SHORTCUTS._entries))
    (tmp_path / "mine.py").write_text(
        "from resx.model import SHORTCUTS\n@SHORTCUTS.register('marked')\n"
        'def marked(x, fx):\n    """x[0] + [/b]F(x)[red]: mine"""\n    return x + fx\n'
    )
    assert run(["shortcuts", "marked", "--plugin", str(tmp_path / "mine.py")]) == 0
    assert "x[0] + [/b]F(x)[red]: mine" in capsys.readouterr().out


def test_the_page_has_a_row_for_each_function() -> None:
    rows = list(facts(["identity", "sphere"]))
    lines = as_markdown(rows).splitlines()
    assert lines[-2].startswith("| identity | x + F(x): residual learning (He et al. 2016, eq. 1)")
    assert lines[-1].count("|") - lines[-1].count("\\|") == 6  # the bars of |α| are no cells
