"""The installed program, as an operator runs it: in child processes."""

from __future__ import annotations

import os
import poplib
import re
import select
import signal
import smtplib
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PROGRAM = str(Path(sysconfig.get_path("scripts")) / "mailhost")
TWISTD = str(Path(sysconfig.get_path("scripts")) / "twistd")


class Finished:
    """What a command said and how it ended."""

    def __init__(self, process: subprocess.CompletedProcess[str]) -> None:
        self.status = process.returncode
        self.out = process.stdout
        self.err = process.stderr


class Running:
    """A host in the foreground.  Its ports are the system's choice; its log says which."""

    def __init__(self, command: list[str], cwd: Path, environment: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
        )
        assert self.process.stdout is not None
        self._descriptor = self.process.stdout.fileno()
        self.log = ""

    def wait_for(self, pattern: str, *, seconds: float = 20) -> re.Match[str]:
        """The first match in the log that nobody waited for yet."""
        end = time.monotonic() + seconds
        while (match := re.search(pattern, self.log)) is None:
            left = end - time.monotonic()
            assert left > 0, f"no {pattern!r} in:\n{self.log}"
            if select.select([self._descriptor], [], [], left)[0]:
                octets = os.read(self._descriptor, 65536)
                assert octets, f"ended without {pattern!r}:\n{self.log}"
                self.log += octets.decode()
        self.log = self.log[match.end() :]
        return match

    def port(self, name: str) -> int:
        """Of a listener, from the line that says the host is ready."""
        if not hasattr(self, "ready"):
            self.ready = self.wait_for(r"ready: .*")[0]
        match = re.search(rf"{re.escape(name)} at [^ ]*:(\d+)", self.ready)
        assert match, self.ready
        return int(match[1])

    def hang_up(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    def end(self, signal_number: int = signal.SIGTERM) -> int:
        """@return: the exit status, negative for a signal."""
        self.process.send_signal(signal_number)
        return self.finish()

    def finish(self, *, seconds: float = 20) -> int:
        """Wait for an end that comes by itself; the rest of the log is in `log`."""
        rest, _ = self.process.communicate(timeout=seconds)
        self.log += rest.decode()
        return self.process.returncode


@pytest.fixture
def mailhost(tmp_path: Path) -> Callable[..., Finished]:
    """Runs `mailhost` with arguments to its end."""

    def run(*arguments: str, stdin: str = "") -> Finished:
        return Finished(
            subprocess.run(
                [PROGRAM, *arguments],
                cwd=tmp_path,
                input=stdin,
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
        )

    return run


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Starts programs that go on; whatever still runs at the end is killed."""
    running: list[Running] = []

    def start(*command: str, **environment: str) -> Running:
        running.append(Running(list(command), tmp_path, environment))
        return running[-1]

    yield start
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()
        assert one.process.stdout is not None
        one.process.stdout.close()


def deliver(host: Running) -> None:
    """A message for ann."""
    with smtplib.SMTP("127.0.0.1", host.port("in"), timeout=10) as client:
        client.sendmail("bob@far.example", ["ann@example.test"], b"Subject: x\r\n\r\nhello\r\n")


def messages(host: Running) -> int:
    """How many ann has."""
    client = poplib.POP3("127.0.0.1", host.port("out"), timeout=10)
    client.user("ann@example.test")
    client.pass_("secret")
    count: int = client.stat()[0]
    client.quit()
    return count


CONFIGURATION = """
hostname = "mx.example.test"
domains = ["example.test"]
[[listen]]
protocol = "smtp"
endpoint = "tcp:0:interface=127.0.0.1"
name = "in"
[[listen]]
protocol = "pop3"
endpoint = "tcp:0:interface=127.0.0.1"
name = "out"
plaintext_login = true
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration that listens on ports of the system's choice, with ann, whose password is secret."""
    path = tmp_path / "mailhost.toml"
    path.write_text(CONFIGURATION)
    (tmp_path / "passwd").write_text("ann@example.test:{PLAIN}secret\n")
    (tmp_path / "passwd").chmod(0o600)
    return path
