"""Every file of docs/examples, run as its page says."""

from __future__ import annotations

import os
import poplib
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parent.parent.parent / "docs" / "examples"
MESSAGE = b"Subject: One <order>\r\n\r\n.\r\n"


def fetch(port: int, user: str, *, delete: bool = False) -> list[bytes]:
    client = poplib.POP3("127.0.0.1", port, timeout=10)
    client.user(user)
    client.pass_("secret")
    messages = []
    for number in range(1, client.stat()[0] + 1):
        messages.append(b"".join(line + b"\r\n" for line in client.retr(number)[1]))
        if delete:
            client.dele(number)
    client.quit()
    return messages


def page(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
        text: str = answer.read().decode()
    return text


Run, Send = Callable[..., Any], Callable[[int, str, bytes], None]


def test_archive(run: Run, send: Send) -> None:
    """DELE and QUIT are answered with +OK, and the message is there the next time, also after a restart."""
    example = run("archive.tac", "twistd", "-ny")
    send(example.ports[2525], "whoever@wherever.test", MESSAGE)
    for _ in range(2):
        (message,) = fetch(example.ports[2110], "keeper", delete=True)
        assert message.endswith(MESSAGE)
    assert example.stop() in (0, -signal.SIGTERM)  # twistd ends by the signal that ended it


def test_catch_all(run: Run, send: Send) -> None:
    """What was sent to anybody is on the page, its markup undone."""
    example = run("catch_all.tac", "twistd", "-ny")
    send(example.ports[2525], "whoever@wherever.test", MESSAGE)
    assert "One &lt;order&gt;: whoever@wherever.test" in page(example.ports[8080])


def test_checker(run: Run, send: Send) -> None:
    """A customer gets mail and fetches it; others neither."""
    example = run("checker.tac", "twistd", "-ny")
    send(example.ports[2525], "Ann@example.test", MESSAGE)
    assert fetch(example.ports[2110], "ann@example.test")[0].endswith(MESSAGE)
    with pytest.raises(poplib.error_proto):
        fetch(example.ports[2110], "bob@example.test")


def test_rows(run: Run) -> None:
    """Rows are messages; those that were deleted are marked in the database."""
    example = run("rows.tac", "twistd", "-ny")
    first = fetch(example.ports[2110], "ann", delete=True)
    assert first == [b"Subject: Paid\r\n\r\nThank you.\r\n", b"Subject: Sent\r\n\r\nSoon.\r\n"]
    assert fetch(example.ports[2110], "ann") == []


def test_beside(run: Run, send: Send) -> None:
    """The shop's page and both protocols are there, and all of it stops in order."""
    example = run("beside.tac", "twistd", "-ny")
    assert page(example.ports[8080]) == "The shop"
    send(example.ports[2525], "ann@example.test", MESSAGE)
    assert fetch(example.ports[2110], "ann@example.test")[0].endswith(MESSAGE)
    assert example.stop() in (0, -signal.SIGTERM)  # twistd ends by the signal that ended it
    assert "Traceback" not in example.output


def test_plugin(run: Run, send: Send, tmp_path: Path) -> None:
    """The same by its own name as a plugin of twistd."""
    example = run("shop_plugin.py", "plugin", "shop", "--mail", "memory:")
    assert page(example.ports[8080]) == "The shop"
    send(example.ports[2525], "ann@example.test", MESSAGE)
    assert fetch(example.ports[2110], "ann@example.test")[0].endswith(MESSAGE)


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("test_*.py")))
def test_tests(name: str, tmp_path: Path) -> None:
    """Tests with the fixture pass, or are skipped where what they test is not installed."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(EXAMPLES.parent.parent), *sys.path]),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    options = ["-q", "-p", "no:cacheprovider", "-p", "mailhost.testing.pytest_plugin", "--rootdir", str(tmp_path)]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-c", os.devnull, str(EXAMPLES / name)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    if ran.returncode == 5 or re.search(r"^\d+ skipped", ran.stdout, re.MULTILINE):
        pytest.skip("not installed")
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_file_has_a_page_and_a_test() -> None:
    """What a page names is there, and what is there has a page and is run by a test."""
    pages = "".join(page.read_text() for page in EXAMPLES.parent.rglob("*.md"))
    tests = "".join(path.read_text() for path in Path(__file__).parent.parent.rglob("test_*.py"))
    files = {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".tac")}
    assert [name for name in files if name not in pages] == []
    assert [name for name in files if name not in tests and not name.startswith("test_")] == []
    for one in EXAMPLES.glob("*.md"):
        assert set(re.findall(r"\]\(([\w.]+)\)", one.read_text())) <= files, one.name
