"""What made the numbers: versions, commit, hardware, command and time."""

from __future__ import annotations

import datetime
import os
import platform
import re
import shlex
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any


def describe_environment(device: str, threads: int) -> dict[str, Any]:
    """Return what made the numbers: time, command, versions, commit and hardware.

    device: as torch writes it, with the card's number where it has one; its kind is recorded, and the card's name.
    """
    import torch  # here, so that what only reads records does not wait for it

    kind = device.partition(":")[0]
    card = {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(), "driver": _driver()}
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": shortened(shlex.join([_program(), *sys.argv[1:]])),
        "resx": version("resx"),
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": kind,
        "hardware": _hardware(device),
        "threads": threads,
        **(card if kind == "cuda" else {}),
    }


def _program() -> str:
    """Return the name of what was started; `python -m resx` is resx."""
    path = Path(sys.argv[0])
    return path.parent.name if path.name == "__main__.py" else path.name


def shortened(text: str) -> str:
    """Return a recorded text without this machine's folders: paths relative to the current one, or their last part."""
    here = os.path.join(os.getcwd(), "")
    return re.sub(r"(?<![^\s='\",:])(?:/|~)(?:[^\s/'\",]+/)+", "…/", text.replace(here, ""))


@cache
def _commit() -> str | None:
    """Return the commit of resx's own checkout, with + where files differ from it; None outside a checkout.

    Installed in a virtual environment, resx may lie inside another project's repository.
    """
    root = Path(__file__).resolve().parents[2]
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8")).get("project")
    except (OSError, ValueError):
        return None
    if not (root / ".git").exists() or not isinstance(project, dict) or project.get("name") != "resx":
        return None
    settings = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
            env={**settings, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _driver() -> str | None:
    """Return the version of NVIDIA's driver, or None where it cannot be read."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text(errors="replace")
    except OSError:
        return None
    match = re.search(r"Module.*?\s(\d+\.[\d.]+)", text)
    return match.group(1) if match else None


@cache
def _hardware(device: str) -> str:
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    match = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text(errors="replace")) if cpuinfo.exists() else None
    name = match.group(1) if match else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"
