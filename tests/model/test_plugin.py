"""A user's own shortcut: `--plugin FILE` makes it known, and what is wrong with it is said in one line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "my_shortcut.py"
TINY = ["--preset", "digits", "--depth", "8", "--width", "4", "--steps", "2", "--eval-every", "2", "--subset", "40"]


def resx(*arguments: object, results: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, since a plugin stays registered in the one that loads it."""
    code = "from resx.cli import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments), "--results", str(results)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def plugin(folder: Path, body: str = "x + fx", init: str = "") -> Path:
    file = folder / "mine.py"
    file.write_text(
        "import torch\nfrom resx.model import SHORTCUTS\n"
        "@SHORTCUTS.register('mine')\n"
        "class Mine(torch.nn.Module):\n"
        f"    def __init__(self, channels):\n        super().__init__()\n        {init}\n"
        f"    def forward(self, x, fx):\n        return {body}\n"
    )
    return file


def test_the_example_trains_and_its_source_is_part_of_the_run(tmp_path: Path) -> None:
    done = resx("train", *TINY, "--plugin", EXAMPLE, "--shortcut", "bounded:a=3", "--json", results=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    spec = json.loads((Path(result["folder"]) / "spec.json").read_text())["spec"]
    assert spec["model"]["shortcut"] == "bounded:a=3.0"
    assert len(spec["plugin"]) == 16


def test_the_study_compares_it_with_the_identity(tmp_path: Path) -> None:
    order = ["--order", "pre", "--seeds", "1", "--jobs", "1", "--set", "margin=2"]
    asked = [*order, "--plugin", EXAMPLE, "--shortcut", "bounded", "--json"]
    done = resx("probe", "shortcuts", *TINY, *asked, results=tmp_path)
    assert done.returncode == 0, done.stderr
    ranking = json.loads(done.stdout)["tables"]["ranking-pre"]
    assert {row["shortcut"] for row in ranking} == {"none", "identity", "bounded:a=2.0"}


@pytest.mark.parametrize(
    ("body", "init", "words"),
    [
        ("(x + fx)[:, :3]", "", "shortcut 'mine': returns 2×3×4×4 for x and F(x) of 2×16×4×4"),
        ("(x, fx)", "", "shortcut 'mine': returns a tuple"),
        ("x + self.weight @ fx", "", "shortcut 'mine': fails for x and F(x) of 2×16×4×4"),
        ("x + fx", "import tourch", "shortcut 'mine': fails"),
    ],
)
def test_a_module_that_does_not_fit_is_refused_in_one_line(body: str, init: str, words: str, tmp_path: Path) -> None:
    done = resx("train", *TINY, "--plugin", plugin(tmp_path, body, init), "--shortcut", "mine", results=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import tourch\n", "does not import (ModuleNotFoundError: No module named 'tourch')"),
        ("def f(:\n", "does not import (SyntaxError"),
        ("from resx.model import SHORTCUTS\n@SHORTCUTS.register('identity')\ndef f(c): ...\n", "registered twice"),
    ],
)
def test_a_file_that_does_not_import_is_named(source: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text(source)
    done = resx("train", *TINY, "--plugin", file, "--shortcut", "mine", results=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr and "broken.py" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_gate_bias_that_is_no_number(tmp_path: Path) -> None:
    done = resx("train", *TINY, "--shortcut", "exclusive-gate:bias=low", results=tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip() == "resx: shortcut 'exclusive-gate': bias must be a float, not 'low'"
