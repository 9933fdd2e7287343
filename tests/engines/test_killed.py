"""The process that hands out runs is killed: its workers leave checkpoints and end, and the same command goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import forks
import pytest
from small_runs import is_gone, specs_of

from resx.store.run import finished_result
from resx.training.machine import Machine

SCRIPT = """
import multiprocessing, sys
from pathlib import Path
from resx.engines import train_all
from resx.spec import RunSpec
from resx.training.machine import Machine

def report(progress):
    if progress.step > 0:
        print(*(process.pid for process in multiprocessing.active_children()), flush=True)

if __name__ == "__main__":
    specs = [RunSpec.model_validate_json(text) for text in sys.argv[2:]]
    train_all(specs, Machine(results=Path(sys.argv[1]), jobs=2), report)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")
def test_workers_of_a_killed_process_end_and_nothing_is_lost(tmp_path: Path) -> None:
    specs = specs_of(Machine(), {"steps": 3000}, {"steps": 3000, "seed": 1})
    said = tmp_path / "pids"
    process = forks.python(SCRIPT, str(tmp_path), *(spec.model_dump_json() for spec in specs), out=said)
    while not (said.exists() and "\n" in said.read_text()):
        process.join(0.01)
        assert process.exitcode is None
    process.kill()
    pids = [int(pid) for pid in said.read_text().partition("\n")[0].split()]
    assert len(pids) == 2
    limit = time.monotonic() + 30
    while not all(is_gone(pid) for pid in pids):
        assert time.monotonic() < limit, "a worker outlives its parent"
        time.sleep(0.05)
    assert [finished_result(spec, tmp_path) for spec in specs] == [None, None]
    assert any((tmp_path / "runs" / spec.run_id / "checkpoint.pt").exists() for spec in specs)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("delay", [0.05, 0.15])  # while modules are imported
def test_an_early_signal_is_one_line(number: int, code: int, delay: float) -> None:
    command = [sys.executable, "-c", "import resx.__main__ as r; print(flush=True); r.main()", "train", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stderr
        process.stdout.readline()
        time.sleep(delay)
        os.kill(process.pid, number)
        error = process.stderr.read()
    if process.returncode != 0:  # else it was quicker
        assert (process.returncode, error) == (code, "resx: stopped\n")


@pytest.mark.parametrize(
    ("number", "code", "place"), [(signal.SIGINT, 130, "import"), (signal.SIGTERM, 143, "the trial of a shortcut")]
)
def test_a_signal_in_a_plugins_code_is_no_failure_of_it(tmp_path: Path, number: int, code: int, place: str) -> None:
    lines = [
        "import os",
        "from resx.model import SHORTCUTS",
        "@SHORTCUTS.register('struck')",
        "def struck(x, fx):",
        f"    os.kill(os.getpid(), {int(number)})",
        "    return x + fx",
        f"if {place == 'import'}: struck(0, 0)",
    ]
    (tmp_path / "mine.py").write_text("\n".join(lines))
    words = ["train", "--preset", "digits", "--depth", "8", "--dry-run", "--plugin", str(tmp_path / "mine.py")]
    said = tmp_path / "said"
    process = forks.python("from resx.__main__ import main; main()", *words, "--shortcut", "struck", err=said)
    process.join(300)
    assert (process.exitcode, said.read_text()) == (code, "resx: stopped\n")


def test_signals_are_handled_before_anything_that_takes_time() -> None:
    code = "import sys; before = set(sys.modules); import resx.__main__; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert {name.partition(".")[0] for name in done.stdout.split()} <= {*sys.stdlib_module_names, "resx"}
    assert not {"resx.spec", "resx.cli"} & set(done.stdout.split())
