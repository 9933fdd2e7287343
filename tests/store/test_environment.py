"""What is recorded of the surroundings: resx's own commit and no other project's; no name of the user is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from resx.store import environment

OWN = '[project]\nname = "resx"\n'
ANOTHERS = '[project]\nname = "theirs"\n[[tool.x]]\nname = "resx"\n'


def repository(folder: Path, project: str) -> str:
    """Make a repository with one commit; return the commit's name as it is recorded."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(project)
    who = ["-c", "user.name=x", "-c", "user.email=x@x"]
    for words in (["init", "-q"], ["add", "pyproject.toml"], [*who, "commit", "-q", "-m", project]):
        subprocess.run(["git", "-C", str(folder), *words], check=True)
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout[:12]


@pytest.fixture
def commit_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., str | None]]:
    """Return what is recorded where resx lies in a folder, with variables of git's that name another repository."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)

    def recorded(folder: Path, variables: bool = False) -> str | None:
        if variables:
            repository(tmp_path / "named", ANOTHERS)
            monkeypatch.setenv("GIT_DIR", str(tmp_path / "named" / ".git"))
            monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path / "named"))
            monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "named" / ".git" / "index"))
        monkeypatch.setattr(environment, "__file__", str(folder / "resx" / "store" / "environment.py"))
        environment._commit.cache_clear()
        return environment._commit()

    yield recorded
    environment._commit.cache_clear()


@pytest.mark.parametrize("variables", [False, True])
def test_the_commit_is_that_of_the_own_checkout(
    commit_in: Callable[..., str | None], tmp_path: Path, variables: bool
) -> None:
    own = repository(tmp_path / "resx", OWN)
    assert commit_in(tmp_path / "resx", variables) == own
    (tmp_path / "resx" / "pyproject.toml").write_text(OWN + "# changed\n")
    environment._commit.cache_clear()
    assert environment._commit() == f"{own}+"


@pytest.mark.parametrize("variables", [False, True])
@pytest.mark.parametrize("place", [".", "venv/lib/python3.11/site-packages", "vendored/resx"])
def test_the_commit_of_a_repository_around_it_is_not_recorded(
    commit_in: Callable[..., str | None], tmp_path: Path, place: str, variables: bool
) -> None:
    repository(tmp_path / "theirs", ANOTHERS)
    (tmp_path / "theirs" / place).mkdir(parents=True, exist_ok=True)
    if place == "vendored/resx":
        (tmp_path / "theirs" / place / "pyproject.toml").write_text(OWN)
    assert commit_in(tmp_path / "theirs" / place, variables) is None


def test_a_user_without_a_name_and_a_home_can_train(tmp_path: Path) -> None:
    """As in many a container; torch asks for both."""
    code = "import pwd, sys\ndef nobody(*given):\n    raise KeyError('uid not found')\npwd.getpwuid = nobody\n"
    code += "from resx.__main__ import main\nmain()"
    words = ["train", "--preset", "digits", "--depth", "8", "--width", "4", "--steps", "2", "-q", "--jobs", "1"]
    named = ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME")
    variables = {name: value for name, value in os.environ.items() if name not in named}
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("results/runs/*/result.json"))
