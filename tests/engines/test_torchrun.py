"""One network over two processes of torchrun: the weights of one process to rounding, and a lost process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import SMALL, specs_of

from resx.engines import train_all
from resx.spec import RunSpec, SpecError
from resx.store.run import RunFolder, finished_result, read_run
from resx.training.machine import Machine, make_machine
from resx.training.ranks import Ranks
from resx.training.resolve import resolve

# what `python -m resx` does, for several commands one after the other, since the start of torch takes most of the time
SCRIPT = """
import json, sys
from resx.cli import run
from resx.engines.torchrun import together
from resx.training import loop

if __name__ == "__main__":
    loop.CHECKPOINT_SHARE = 1e9  # a checkpoint after every chunk
    sys.exit(together(lambda: max(run(words) for words in json.loads(sys.argv[1]))))
"""


def with_torchrun(folder: Path, *commands: dict[str, Any], plugin: Path) -> str:
    """Train a small run for each of these fields in two processes, and return what was written on stderr."""
    script = folder / "commands.py"
    script.write_text(SCRIPT)
    words = [
        [
            *("train", "--results", str(folder / "together"), "--device", "cpu", "--plugin", str(plugin), "--json"),
            *(text for key, value in fields.items() for text in (f"--{key.replace('_', '-')}", str(value))),
        ]
        for fields in commands
    ]
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    done = subprocess.run([*start, str(script), json.dumps(words)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stderr


def assert_same_weights(spec: RunSpec, alone: Path, together: Path) -> RunFolder:
    """Compare weights, which differ by rounding, and return the run of two processes."""
    train_all([spec], Machine(results=alone))
    runs = [read_run(results / "runs" / spec.run_id) for results in (alone, together)]
    one, two = (run.load_weights() for run in runs)
    for name, values in one.items():
        torch.testing.assert_close(two[name], values, rtol=1e-3, atol=1e-5)
    assert any(not torch.equal(two[name], values) for name, values in one.items()), "two processes took part"
    assert [run.attempts()[-1].get("processes") for run in runs] == [None, 2]
    return runs[1]


@pytest.mark.slow
def test_two_processes_train_what_one_does(tmp_path: Path, plugin: Callable[[str], Path]) -> None:
    """Batches that they cannot share equally, whole and own statistics of batches, and a process that is killed."""
    flag = tmp_path / "flag"
    flag.touch()
    lost = f"flag = Path({str(flag)!r}); os.environ.get('RANK') == '1' and flag.exists()"
    file = plugin(f"{lost} and (flag.unlink(), os.kill(os.getpid(), signal.SIGKILL))")
    small = {**SMALL, "batch_size": 15, "normalize": "pixel-mean"}
    bare = {**small, "norm": "none", "shortcut": "scaled:alpha=0.5"}
    whole = {**small, "shortcut": "dropout", "norm_parts": 1}
    killed = {**small, "norm": "none", "shortcut": "mine:bad=true", "steps": 60, "lr": 0.005}
    said = with_torchrun(tmp_path, bare, whole, small, killed, plugin=file)
    assert not flag.exists()
    machine, together = Machine(results=tmp_path / "alone", plugin=file), tmp_path / "together"
    specs = resolve([bare, whole, killed], machine)
    attempts = [assert_same_weights(spec, machine.results, together).attempts() for spec in specs]
    assert [len(entries) for entries in attempts] == [1, 1, 2], "what was finished is not trained again"
    assert 0 < attempts[2][0]["last_step"] == attempts[2][1]["first_step"] < 60

    assert "each process's part of a batch, 1 of 2" in said
    one, parts = resolve([small, {**small, "norm_parts": 2}], machine)
    assert one.run_id != parts.run_id, "statistics of parts are another recipe"
    assert finished_result(one, together) is None
    assert finished_result(parts, together)
    [outcome] = train_all([parts], machine)
    assert outcome.error == f"{parts.run_id}: norm_parts 2 is for torchrun with 2 processes; here is one"

    (together / "runs" / specs[0].run_id / "result.json").unlink()
    [outcome] = train_all([specs[0]], Machine(results=together))
    assert "was trained with processes 2, this is 1" in str(outcome.error)


def test_shares_are_a_whole_batch() -> None:
    batch = torch.arange(15)
    shares = [Ranks(rank, 4).part(batch) for rank in range(4)]
    assert [len(share) for share in shares] == [4, 4, 4, 3]
    assert torch.equal(torch.cat(shares), batch)


def test_what_torchrun_cannot_do_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecError, match="start it with torchrun"):
        train_all(specs_of(Machine(), {}), Machine(engine="torchrun"))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert make_machine(device="cpu").engine == "torchrun"
    with pytest.raises(SpecError, match="torchrun has started this"):
        make_machine(device="cpu", engine="ray")
    machine = make_machine(device="cpu", jobs=3)
    assert machine.jobs == 1
    with pytest.raises(SpecError, match="2 cannot be shared by 4"):
        specs_of(machine, {"batch_size": 2})
    [bare] = specs_of(machine, {"batch_size": 7, "norm": "none"})
    assert bare.train.norm_parts is None
