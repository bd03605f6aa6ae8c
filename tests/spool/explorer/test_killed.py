"""A spool whose process is killed under load, at random instants and at fault points, has kept every promise each time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def killed(pytestconfig: pytest.Config, directory: Path, kind: str, rounds: int, seed: int) -> tuple[int, str]:
    """@return: the status of the process that kills, and what it has said."""
    command = [sys.executable, "-m", "tests.spool.explorer.killing", kind, str(directory), str(rounds), str(seed)]
    done = subprocess.run(command, cwd=pytestconfig.rootpath, capture_output=True, text=True, timeout=1800)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("rounds", [12, pytest.param(300, marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", ["log", "log-in-turn", "maildir"])
def test_killed_under_load(pytestconfig: pytest.Config, tmp_path: Path, kind: str, rounds: int) -> None:
    """Whatever a process had said is so, when the next one looks, whenever it was killed."""
    status, said = killed(pytestconfig, tmp_path / "spool", kind, rounds, seed=rounds)
    assert status == 0, said
    looked, acknowledged = map(int, said.split())
    assert looked > rounds // 2
    assert acknowledged > rounds


def test_a_spool_that_keeps_nothing(pytestconfig: pytest.Config, tmp_path: Path) -> None:
    """One that loses what it acknowledged is found out."""
    status, said = killed(pytestconfig, tmp_path / "spool", "memory", 12, seed=1)
    assert status == 1
    assert "was acknowledged" in said or "no maildrop has the name" in said
