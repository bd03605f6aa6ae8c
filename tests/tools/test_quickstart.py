"""The README's first command: from nothing to mail sent and fetched by the commands it prints."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tools.conftest import PROGRAM, Finished, Running

PORTS = ("2525", "2587", "2465", "2110", "2995")


@pytest.fixture
def directory(tmp_path: Path, mailhost: Callable[..., Finished]) -> Path:
    """What quickstart would make, on ports that nobody else on the machine has."""
    made = tmp_path / "mailhost-quickstart"
    mailhost("init", str(made), "--domain", "example.test")
    text = (made / "mailhost.toml").read_text()
    with_free = []
    for port in PORTS:
        one = socket.create_server(("127.0.0.1", 0))
        text = text.replace(f"tcp:{port}:", f"tcp:{one.getsockname()[1]}:")
        with_free.append(one)
    for one in with_free:
        one.close()
    (made / "mailhost.toml").write_text(text)
    return made


def test_what_it_prints_works(tmp_path: Path, directory: Path, start: Callable[..., Running]) -> None:
    """Twice: the second time the account is there, and its password is not shown again."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    host = start(PROGRAM, "quickstart")
    password = host.wait_for(r"account    ann@example.test\npassword   (\S+)\n")[1]
    commands = re.findall(r"  (printf.*\n.*|curl .*)\n", host.wait_for(r"(?s)Send a message.*?Ctrl-C")[0])
    host.wait_for("notice what=.ready")
    assert len(commands) == 3
    heard = [
        subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=20, check=True).stdout
        for command in commands
    ]
    assert heard[0] == ""
    assert all("Subject: Hello" in one and one.rstrip().endswith("It works.") for one in heard[1:])
    host.end()
    assert password not in host.log
    again = start(PROGRAM, "quickstart")
    again.wait_for("password   as it was shown the first time")
    again.wait_for("notice what=.ready")


def test_it_makes_what_is_not_there(tmp_path: Path, start: Callable[..., Running]) -> None:
    """In the named directory, whether or not its ports are free just now."""
    start(PROGRAM, "quickstart", "here").wait_for("account    ann@example.test")
    assert {path.name for path in (tmp_path / "here").iterdir()} >= {"mailhost.toml", "passwd", "spool", "tls"}


def test_a_port_in_use(directory: Path, mailhost: Callable[..., Finished]) -> None:
    """Exit status 1 and one line on standard error."""
    match = re.search(r"tcp:(\d+):", (directory / "mailhost.toml").read_text())
    assert match
    with socket.create_server(("127.0.0.1", int(match[1]))):
        ended = mailhost("quickstart", str(directory))
    assert ended.status == 1
    assert re.fullmatch(r"mailhost: cannot listen on .*: Address already in use\n", ended.err)
