"""How many runs at a time a machine takes by default: what this process may use, not what the host has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from resx.training import machine


def group(root: Path, name: str, quota: str) -> None:
    (root / name).mkdir(parents=True, exist_ok=True)
    (root / name / "cpu.max").write_text(quota)


@pytest.mark.parametrize(
    ("quotas", "cores"),
    [
        ({"": "max 100000"}, []),
        ({"": "300000 100000"}, [3.0]),
        ({"job": "max 100000", "job/task": "150000 100000"}, [1.5]),
        ({"": "400000 100000", "job": "200000 100000", "job/task": "max 100000"}, [2.0, 4.0]),
        ({"job": "not a number"}, []),
    ],
)
def test_quotas_of_the_group_and_those_above_count(tmp_path: Path, quotas: dict[str, str], cores: list[float]) -> None:
    for name, quota in quotas.items():
        group(tmp_path / "fs", name, quota)
    (tmp_path / "cgroup").write_text("12:devices:/x\n0::/job/task\n")
    assert list(machine._quotas(tmp_path / "cgroup", tmp_path / "fs")) == cores
    assert list(machine._quotas(tmp_path / "absent", tmp_path / "fs")) == []


@pytest.mark.parametrize(("slurm", "quota", "cores"), [("", 64, 4), ("3", 64, 3), ("3", 2.5, 2), ("x", 0.5, 1)])
def test_the_least_counts(monkeypatch: pytest.MonkeyPatch, slurm: str, quota: float, cores: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(4)), raising=False)
    monkeypatch.setattr(machine, "_quotas", lambda own, root: iter([quota]))
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", slurm)
    assert machine.available_cores() == cores
    assert machine.make_machine(device="cpu").jobs == cores
    assert machine.make_machine(device="cpu", jobs=7).jobs == 7
