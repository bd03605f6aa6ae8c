"""What other people's test runs get of us."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

USES = """
import smtplib

def test_order_is_confirmed(mail_host):
    with smtplib.SMTP(*mail_host.smtp_address) as client:
        client.sendmail("shop@example.test", ["ann@example.test"], b"Subject: Your order\\r\\n\\r\\n")
    (message,) = mail_host.wait_for("ann@example.test", count=1, seconds=5)
    assert message["Subject"] == "Your order"

def test_the_next_one_sees_nothing_of_it(mail_host):
    assert mail_host.inbox("ann").messages == []
"""

USES_NOT = """
import sys

def test_nothing_of_it_is_loaded():
    assert not [name for name in sys.modules if name.split(".")[0] == "twisted"]
    assert "mailhost.testing.process" not in sys.modules
"""


def pytest_run(folder: Path, source: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_theirs.py").write_text(source)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # the plugin is named below, so that it need not be installed
    }
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "mailhost.testing.pytest_plugin"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(("source", "passed"), [(USES, 2), (USES_NOT, 1)])
def test_a_run(tmp_path: Path, source: str, passed: int) -> None:
    """The fixture works with nothing imported, each test begins with an empty host, and who does not use it pays nothing."""
    ran = pytest_run(tmp_path, source)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"{passed} passed" in ran.stdout


def test_it_is_an_entry_point() -> None:
    """Installing the package is all that a user does."""
    setup = (ROOT / "setup.cfg").read_text()
    assert "pytest11 =\n    mailhost = mailhost.testing.pytest_plugin\n" in setup
