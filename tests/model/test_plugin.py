"""A user's own shortcut: `--plugin FILE` makes it known, and what is wrong with it is said in one line."""

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from resx.cli import run
from resx.engines import train_all
from resx.model import GROW, SHORTCUTS
from resx.registry import load_plugin, read_plugin
from resx.spec import SpecError
from resx.training.machine import Machine
from resx.training.resolve import load_plugin_of, resolve

EXAMPLE = Path(__file__).parents[2] / "examples" / "my_shortcut.py"
STREAMS = EXAMPLE.with_name("my_streams.py")
SMALL = {"preset": "digits", "depth": 8, "width": 4, "steps": 2, "eval_every": 2, "subset": 40}
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


@pytest.mark.parametrize(
    ("body", "init", "words"),
    [
        ("x.add_(fx)", "", "in place"),
        ("torch.nn.functional.dropout(x) + fx", "", "draws random numbers"),
        ("self.drop(x) + fx", "self.drop = torch.nn.Dropout()", "draws random numbers"),
        ("x + torch.randn_like(fx)", "", "draws random numbers"),
        ("x + fx + random.random()", "import random; globals()['random'] = random", "draws random numbers"),
        ("x.view(len(x), -1).view(x.shape) + fx", "", "fails"),  # channels_last
        ("x + fx * torch.ones(4, 4)", "", "fails"),  # of one size only
        ("x + fx[:2]", "", "fails"),  # of one batch only
        ("x + fx * self.weight", "self.weight = torch.ones(1, 16, 1, 1)", "fails"),  # of one width only
        ("x + fx if self.training else x.missing", "", "fails"),
        ("x.detach().numpy() + fx", "", "fails"),
        ("exit()", "", "fails"),
        ("sys.exit(0)", "import sys; globals()['sys'] = sys", "fails"),
        ("x + fx + torch.ones(1, dtype=torch.float32) @ fx.flatten(0, 2)[:1]", "", "fails"),
    ],
)
def test_what_would_fail_in_training_is_refused_before_it(
    resx: Any, body: str, init: str, words: str, tmp_path: Path
) -> None:
    done = resx("train", *TINY, "--plugin", plugin(tmp_path, body, init), "--shortcut", "mine")
    assert done.code == 2, done.err
    assert words in done.err and "mine" in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("failure", "jobs"), [("raise KeyError('late')", 1), ("1 / 0", 1), ("raise SystemExit", 1), ("raise SystemExit", 2)]
)
def test_what_gets_past_the_trial_ends_that_run_and_says_where(
    resx: Any, failure: str, jobs: int, tmp_path: Path
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from resx.model import SHORTCUTS\n"
        "steps = 0\n"
        "@SHORTCUTS.register('mine')\n"
        "def mine(x, fx):\n"
        "    global steps\n"
        "    steps += len(x) == 64 and x.requires_grad and x.shape[1] == 4 and not x.is_meta\n"
        f"    if steps == 9: {failure}\n"
        "    return x + fx\n"
    )
    specs = resolve(
        [{**SMALL, "steps": 20, "shortcut": name} for name in ("mine", "identity")], Machine(plugin=file, jobs=jobs)
    )
    outcomes = train_all(specs, Machine(results=tmp_path, plugin=file, jobs=jobs))
    assert [outcome.result is None for outcome in outcomes] == [True, False]
    assert f"plugin {file} failed at step 9: " in str(outcomes[0].error)


def test_a_plain_function_is_a_shortcut_and_its_defaults_are_arguments(resx: Any, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from resx.model import SHORTCUTS\n"
        "@SHORTCUTS.register('mine')\n"
        "def mine(x, fx, gain=0.5):\n    'Half of F.'\n    return x + gain * fx\n"
    )
    done = resx("train", *TINY, "--plugin", file, "--shortcut", "mine:gain=2", "--json")
    assert done.code == 0, done.err
    spec = json.loads((Path(json.loads(done.out)["folder"]) / "spec.json").read_text())["spec"]
    assert spec["model"]["shortcut"] == "mine:gain=2.0"
    assert SHORTCUTS.summary("mine") == "Half of F."


def test_the_hash_belongs_to_runs_that_use_something_of_it(resx: Any, tmp_path: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text("from resx.model import SHORTCUTS\n@SHORTCUTS.register('theirs')\ndef f(x, fx): return x - fx\n")
    machine = Machine(plugin=(plugin(tmp_path), other))
    names = ("none", "identity", "mine", "theirs")
    hashes = [spec.plugin for spec in resolve([{**SMALL, "shortcut": name} for name in names], machine)]
    assert hashes[:2] == [None, None]
    assert hashes[2] == hashlib.sha256(plugin(tmp_path).read_bytes()).hexdigest()[:16]
    assert hashes[3] not in (None, hashes[2])


def test_what_runs_is_what_was_hashed(resx: Any, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    text = "from near import GAIN\nfrom resx.model import SHORTCUTS\n@SHORTCUTS.register('mine{}')\n"
    text += "def f(x, fx):\n    return x + GAIN * fx\n"
    hashes = []
    for number, gain in enumerate((1.0, 2.0, 2.0)):
        before = file.stat() if file.exists() else None
        file.write_text(text.format(number))
        (tmp_path / "near.py").write_text(f"GAIN = {gain}\n")
        if before:  # a cache of bytecode would take it for the same
            os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        sys.modules.pop("near", None)
        hashes.append(load_plugin(file))
        assert SHORTCUTS.create(f"mine{number}", 4)(torch.zeros(1), torch.ones(1)) == gain
    sys.modules.pop("near", None)
    assert len(set(hashes)) == 3
    assert not list(tmp_path.rglob("__pycache__"))


@pytest.mark.parametrize(
    ("kit", "init"),
    [("kit1", None), ("kit2", "from .core import GAIN\n"), ("kit3", "from . import core\nGAIN = core.GAIN\n")],
)
def test_a_package_next_to_a_plugin_is_part_of_its_source(tmp_path: Path, kit: str, init: str | None) -> None:
    (tmp_path / kit).mkdir()
    place = kit if init else f"{kit}.core"
    if init:
        (tmp_path / kit / "__init__.py").write_text(init)
    hashes = set()
    for gain in (1.0, 2.0):
        (tmp_path / kit / "core.py").write_text(f"from .values import N\nGAIN = {gain} * N\n")
        (tmp_path / kit / "values.py").write_text("N = 3\n")
        file = tmp_path / "mine.py"
        file.write_text(f"from {place} import GAIN\n")
        for name in [name for name in sys.modules if name.partition(".")[0] == kit]:
            del sys.modules[name]
        hashes.add(load_plugin(file))
        assert vars(sys.modules[f"resx_plugin_{read_plugin(file).digest}"])["GAIN"] == 3 * gain
    assert len(hashes) == 2


@pytest.mark.parametrize("how", ["__import__('un' + 'seen')", "import unseen"])
def test_a_file_that_would_be_no_part_of_the_source_is_refused(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "lib" if how.startswith("import") else tmp_path
    folder.mkdir(exist_ok=True)
    (folder / "unseen.py").write_text("GAIN = 1\n")
    file = tmp_path / "mine.py"
    file.write_text(f"import sys\nsys.path.insert(0, {str(folder)!r})\n{how}\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SpecError, match=r"unseen\.py would be no part of its runs"):
        load_plugin(file)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("@SHORTCUTS.register('a b')\ndef f(x, fx): ...\n", "no name"),
        ("@SHORTCUTS.register('a:b')\ndef f(x, fx): ...\n", "no name"),
        ("@SHORTCUTS.register('a')\ndef f(channels, *, alpha): ...\n", "alpha needs a number"),
        ("@SHORTCUTS.register('a')\ndef f(x, fx, names=[1]): ...\n", "names needs a number"),
        ("raise SystemExit\n", "SystemExit"),
        ("exit()\n", "SystemExit"),
        ("\0\n", "does not import"),
        ("from .near import GAIN\n", "relative import"),
        ("from ..near import GAIN\n", "relative import"),
    ],
)
def test_a_file_that_registers_what_cannot_be_is_named(resx: Any, source: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text("from resx.model import SHORTCUTS\n" + source)
    done = resx("train", *TINY, "--plugin", file, "--shortcut", "a")
    assert done.code == 2
    assert words in done.err and "broken.py" in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_a_file_that_changed_since_the_command_began_is_refused(resx: Any, tmp_path: Path) -> None:
    file = plugin(tmp_path)
    [spec] = resolve([{**SMALL, "shortcut": "mine"}], Machine(plugin=file))
    load_plugin_of(spec, Machine(plugin=file))
    file.write_text(file.read_text() + "# another\n")
    SHORTCUTS._entries.pop("mine")
    with pytest.raises(SpecError, match="another plugin"):
        load_plugin_of(spec, Machine(plugin=file))


def test_a_gate_bias_that_is_no_number(resx: Any) -> None:
    done = resx("train", *TINY, "--shortcut", "exclusive-gate:bias=low")
    assert done.code == 2
    assert done.err.strip() == "resx: shortcut 'exclusive-gate': bias must be a number, not 'low'"


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
