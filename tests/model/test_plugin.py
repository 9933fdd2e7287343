"""A user's own shortcut: `--plugin FILE` makes it known, and what is wrong with it is said in one line."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from resx.cli import run
from resx.model import GROW, SHORTCUTS

EXAMPLE = Path(__file__).parents[2] / "examples" / "my_shortcut.py"
STREAMS = EXAMPLE.with_name("my_streams.py")
TINY = ["--preset", "digits", "--depth", "8", "--width", "4", "--steps", "2", "--eval-every", "2", "--subset", "40"]


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


@pytest.fixture
def resx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """Run the command line here; what plugins register is gone afterwards."""
    for registry in (SHORTCUTS, GROW):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    loaded = set(sys.modules)

    def call(*arguments: object) -> Done:
        code = run([*map(str, arguments), "--results", str(tmp_path)])
        return Done(code, *capsys.readouterr())

    yield call
    for name in set(sys.modules) - loaded:
        if name.startswith("resx_plugin_"):
            del sys.modules[name]


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


def test_the_example_trains_and_its_source_is_part_of_the_run(resx: Any) -> None:
    done = resx("train", *TINY, "--plugin", EXAMPLE, "--shortcut", "bounded:a=3", "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    spec = json.loads((Path(result["folder"]) / "spec.json").read_text())["spec"]
    assert spec["model"]["shortcut"] == "bounded:a=3.0"
    assert len(spec["plugin"]) == 16


def test_the_example_with_streams_trains(resx: Any) -> None:
    done = resx("train", *TINY, "--plugin", STREAMS, "--shortcut", "echo", "--json")
    assert done.code == 0, done.err


def test_the_study_compares_it_with_the_identity(resx: Any) -> None:
    order = ["--order", "pre", "--seeds", "1", "--jobs", "1", "--set", "margin=2"]
    asked = [*order, "--plugin", EXAMPLE, "--shortcut", "bounded", "--json"]
    done = resx("probe", "shortcuts", *TINY, *asked)
    assert done.code == 0, done.err
    ranking = json.loads(done.out)["tables"]["ranking"]
    assert {row["shortcut"] for row in ranking} == {"none", "identity", "bounded:a=2.0"}


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ("torch.cat([x, x.roll(1, 1)[:, : self.extra]], 1)", 0, ""),
        ("x", 2, "growing adapter 'mine': from 4 to 8 channels at stride 2, 1×4×4×4 became 1×4×4×4, not 1×8×4×4"),
    ],
)
def test_an_adapter_of_ones_own_is_compared_with_the_reference(
    resx: Any, body: str, code: int, words: str, tmp_path: Path
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import torch\nfrom resx.model import GROW\n"
        "@GROW.register('mine')\n"
        "class Mine(torch.nn.Module):\n"
        "    def __init__(self, in_channels, out_channels, stride):\n"
        "        super().__init__()\n        self.extra = out_channels - in_channels\n"
        f"    def forward(self, x):\n        return {body}\n"
    )
    asked = ["--adapter", "subsample+mine", "--seeds", "1", "--jobs", "1", "--set", "design=standard", "--json"]
    done = resx("probe", "mismatch", *TINY, "--plugin", file, *asked)
    assert done.code == code, done.err
    assert words in done.err
    if code == 0:
        networks = json.loads(done.out)["tables"]["networks"]
        assert {row["arm"] for row in networks} == {"subsample+pad+chop", "grow: mine", "plain"}


@pytest.mark.parametrize(
    ("body", "init", "words"),
    [
        ("(x + fx)[:, :3]", "", "shortcut 'mine': returns 2×3×4×4 for x and F(x) of 2×16×4×4"),
        ("(x, fx)", "", "shortcut 'mine': returns a tuple"),
        ("x + self.weight @ fx", "", "shortcut 'mine': fails for x and F(x) of 2×16×4×4"),
        ("x + fx", "import tourch", "shortcut 'mine': fails"),
    ],
)
def test_a_module_that_does_not_fit_is_refused_in_one_line(
    resx: Any, body: str, init: str, words: str, tmp_path: Path
) -> None:
    done = resx("train", *TINY, "--plugin", plugin(tmp_path, body, init), "--shortcut", "mine")
    assert done.code == 2
    assert words in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_streams_of_another_shape_are_refused_in_one_line(resx: Any, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    for body, words in (
        ("x[:, :1]", "returns 2×1×16×4×4 for x of 2×2×16×4×4; it must return as many streams or more"),
        ("fx", "returns 2×16×4×4 for x of 2×2×16×4×4"),
    ):
        file.write_text(STREAMS.read_text().replace("x + torch.stack([fx, self.gain * fx], 1)", body))
        done = resx("train", *TINY, "--plugin", file, "--shortcut", "echo")
        SHORTCUTS._entries.pop("echo")
        assert done.code == 2 and words in done.err and len(done.err.strip().splitlines()) == 1
    file.write_text(STREAMS.read_text().replace("return x.sum(1)", "return x"))
    done = resx("train", *TINY, "--plugin", file, "--shortcut", "echo")
    assert done.code == 2 and "reads 2×2×16×4×4 of x of 2×2×16×4×4; it must read 2×16×4×4" in done.err


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import tourch\n", "does not import (ModuleNotFoundError: No module named 'tourch')"),
        ("def f(:\n", "does not import (SyntaxError"),
        ("from resx.model import SHORTCUTS\n@SHORTCUTS.register('identity')\ndef f(c): ...\n", "registered twice"),
    ],
)
def test_a_file_that_does_not_import_is_named(resx: Any, source: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text(source)
    done = resx("train", *TINY, "--plugin", file, "--shortcut", "mine")
    assert done.code == 2
    assert words in done.err and "broken.py" in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_a_gate_bias_that_is_no_number(resx: Any) -> None:
    done = resx("train", *TINY, "--shortcut", "exclusive-gate:bias=low")
    assert done.code == 2
    assert done.err.strip() == "resx: shortcut 'exclusive-gate': bias must be a float, not 'low'"


def test_a_plain_function_is_a_shortcut_and_defaults_need_no_star(resx: Any, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import torch\nfrom resx.model import SHORTCUTS\n"
        "@SHORTCUTS.register('half')\n"
        "def half(x, fx, share=0.5):\n    '''share·x + F(x).'''\n    return share * x + fx\n"
        "@SHORTCUTS.register('third')\n"
        "class Third(torch.nn.Module):\n"
        "    def __init__(self, channels, share=0.3):\n        super().__init__()\n        self.share = share\n"
        "    def forward(self, x, fx):\n        return self.share * x + fx\n"
    )
    for asked, written in (
        ("half", "half:share=0.5"),
        ("half:share=0.1", "half:share=0.1"),
        ("third", "third:share=0.3"),
    ):
        done = resx("train", *TINY, "--plugin", file, "--shortcut", asked, "--json")
        assert done.code == 0, done.err
        folder = Path(json.loads(done.out)["folder"])
        assert json.loads((folder / "spec.json").read_text())["spec"]["model"]["shortcut"] == written
    assert SHORTCUTS.summary("half") == "share·x + F(x)."
