"""The commands that set everything up, where programs only say how they are called."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SAYS = '#!/bin/sh\necho "$(basename "$0") $*" >> "$CALLS"\n'


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A clone whose environment is there, without anything installed in it."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    (tmp_path / "pyproject.toml").write_text("")
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "activate").write_text(f'PATH="{programs}:$PATH"\n')
    for name in ("python", "winnow", "ruff", "mypy", "pytest"):
        (programs / name).write_text(SAYS)
        (programs / name).chmod(0o755)
    return tmp_path


def calls(checkout: Path, *command: str) -> list[str]:
    """What was called, in order, a line each."""
    log = checkout / "calls"
    log.write_text("")
    env = os.environ | {"CALLS": str(log)}
    subprocess.run([checkout / "scripts" / command[0], *command[1:]], env=env, check=True)
    return log.read_text().splitlines()


def test_serve_installs_and_hands_its_options_on(checkout: Path) -> None:
    first = calls(checkout, "serve", "--model", "small.en", "--port", "8001")
    assert [line.split()[-1] for line in first[:2]] == ["torch==2.13.0", "."]
    assert first[2].endswith("-r scripts/models.txt")
    assert first[3:] == ["winnow serve --model small.en --port 8001"]
    assert calls(checkout, "serve") == ["winnow serve"]


def test_test_installs_its_extra_and_runs_all_checks(checkout: Path) -> None:
    first = calls(checkout, "test", "-k", "nothing")
    assert first[1].endswith("-e .[test]")
    checks = [line.split()[0] for line in first if not line.startswith("python")]
    assert checks == ["ruff", "ruff", "mypy", "pytest"]
    assert first[-1].endswith("-k nothing")


def test_peers_installs_what_is_pinned_into_a_folder_of_its_own(checkout: Path) -> None:
    shutil.copytree(checkout / ".venv", checkout / "others")
    first = calls(checkout, "peers", str(checkout / "others"))
    assert [line.split()[-1] for line in first] == [
        "torch==2.13.0",
        str(checkout / "scripts" / "peers.txt"),
        "check",
    ]
    wanted = (checkout / "scripts" / "peers.txt").read_text().splitlines()
    assert all("==" in line for line in wanted if not line.startswith("#"))
