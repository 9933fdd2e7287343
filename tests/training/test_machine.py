"""What a machine takes by default: runs at a time, a device that can be used, and how torch computes on it."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest
import torch
from pretended_cuda import Machine as Cards

from resx.spec import SpecError
from resx.store import files
from resx.training import machine
from resx.training.machine import computing, default_device, make_machine, own_settings
from resx.training.resolve import resolve


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


# --- devices -------------------------------------------------------------------------------------------------------

NO_KERNEL = "CUDA error: no kernel image is available for execution on the device\nCUDA kernel errors might be …"


def test_a_card_that_works_is_the_default(cards: Cards) -> None:
    assert default_device() == "cuda"
    for device in ("cuda", "cuda:0", "cuda:1"):
        assert make_machine(device=device).device == device


def test_a_test_uses_the_cpu_unless_it_names_a_device(cards: Cards) -> None:
    assert make_machine().device == "cpu"


def test_a_card_that_is_not_there_is_a_line(cards: Cards) -> None:
    with pytest.raises(SpecError, match=r"--device cuda:7: there is no cuda:7: torch sees 2") as caught:
        make_machine(device="cuda:7")
    assert "\n" not in str(caught.value)


def test_a_card_that_torch_is_not_built_for(
    cards: Cards, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Such a card counts as a device, and its first operation fails."""
    cards.capability = (6, 1)
    cards.error = RuntimeError(NO_KERNEL)
    assert default_device() == default_device() == "cpu"
    assert caplog.text.count("the CPU is used") == 1, "it is said once"
    assert "compute capability 6.1" in caplog.text and "CUDA 12.6" in caplog.text
    with pytest.raises(SpecError, match=r"--device cuda: Pretended Card 0 \(compute capability 6.1\).*CUDA 12.6"):
        make_machine(device="cuda")


def test_a_card_that_fails_for_another_reason(cards: Cards) -> None:
    cards.error = RuntimeError("CUDA error: all devices are busy\nmore")
    with pytest.raises(SpecError, match=r"--device cuda:1: cuda:1 does not work \(CUDA error: all devices are busy\)"):
        make_machine(device="cuda:1")


def test_a_driver_that_is_too_old_is_said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """torch then sees no device, though there is a card; its own warning is several lines long."""

    def init() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040).\nPlease update it")

    files.say_once.cache_clear()
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    for name, stand_in in {"is_available": lambda: False, "device_count": lambda: 1, "init": init}.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    assert default_device() == "cpu"
    assert "the CPU is used: torch cannot use this machine's CUDA device (The NVIDIA driver" in caplog.text
    with pytest.raises(SpecError, match="too old"):
        make_machine(device="cuda")


@pytest.mark.parametrize(("visible", "is_said"), [("0", True), ("", False)])
def test_a_torch_without_cuda_on_a_machine_with_a_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, visible: str, is_said: bool
) -> None:
    files.say_once.cache_clear()
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(machine, "NVIDIA_CARD", tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert default_device() == "cpu"
    assert ("has no CUDA" in caplog.text) == is_said


def test_a_machine_without_a_card_says_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, stand_in in {"is_available": lambda: False, "device_count": lambda: 0}.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    assert default_device() == "cpu"
    assert caplog.text == ""
    with pytest.raises(SpecError, match="no CUDA device; or use --device cpu"):
        make_machine(device="cuda")


# --- how torch computes --------------------------------------------------------------------------------------------


Flags = tuple[bool, bool, bool, bool]


def flags() -> Flags:
    cudnn = torch.backends.cudnn
    return torch.backends.cuda.matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark


def set_flags(values: Flags) -> None:
    cudnn = torch.backends.cudnn
    torch.backends.cuda.matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark = values


@pytest.mark.parametrize("before", [(False, True, False, False), (True, True, False, True)])
def test_precision_is_what_is_asked_for_and_the_callers_afterwards(before: Flags) -> None:
    outside = flags()
    set_flags(before)
    try:
        for precision, tf32 in (("fp32", False), ("tf32", True), ("bf16", False)):
            with own_settings():  # what a measurement has
                assert flags() == (False, False, True, False)
                with computing(precision):
                    assert flags() == (tf32, tf32, True, False)
                assert flags() == (False, False, True, False), "what was trained before changes no measurement"
        assert flags() == before
    finally:
        set_flags(outside)


def of_parts() -> list[str | bool]:
    cudnn, onednn = torch.backends.cudnn, torch.backends.mkldnn
    parts = (torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn, onednn.matmul, onednn.conv)
    return [onednn.enabled, *(part.fp32_precision for part in parts)]


@pytest.mark.parametrize(
    "before",
    [
        "set_float32_matmul_precision('medium')",
        "backends.cuda.matmul.fp32_precision = 'tf32'",
        "backends.mkldnn.conv.fp32_precision = 'bf16'",
        "backends.fp32_precision = 'tf32'",
        "backends.mkldnn.enabled = False",
    ],
)
def test_a_callers_precision_by_whichever_name_changes_no_number(before: str) -> None:
    process = multiprocessing.get_context("fork").Process(target=_compute_after, args=(before,))
    process.start()
    process.join()
    assert process.exitcode == 0


def _compute_after(setting: str) -> None:
    exec(f"torch.{setting}")
    before = of_parts()
    with own_settings():
        assert of_parts() == [True, *["ieee"] * 5]
        with computing("tf32"):
            assert of_parts() == [True, *["tf32"] * 5]
        assert torch.get_float32_matmul_precision() == "highest" and not torch.backends.cudnn.allow_tf32
    assert of_parts() == before


@pytest.mark.parametrize("precision", ["bf16", "tf32"])
def test_a_precision_that_a_card_has_not_is_refused(cards: Cards, precision: str) -> None:
    fields = {"dataset": "digits", "depth": 8, "precision": precision}
    assert resolve([fields], make_machine(device="cuda:1"))[0].train.precision == precision
    cards.capability = (7, 5)
    with pytest.raises(
        SpecError, match=rf"precision: {precision} needs .* 8\.0 or later, and Pretended Card 1 has 7\.5"
    ):
        resolve([fields], make_machine(device="cuda:1"))


def test_tf32_needs_a_card() -> None:
    with pytest.raises(SpecError, match="tf32 needs a CUDA device"):
        resolve([{"dataset": "digits", "precision": "tf32"}], make_machine())


def test_networks_on_a_card_share_its_time(cards: Cards) -> None:
    places = [make_machine(device=device, jobs=6).places() for device in ("cpu", "cuda:1", "cuda")]
    assert [len(workers) for workers in places] == [6, 1, 2]
