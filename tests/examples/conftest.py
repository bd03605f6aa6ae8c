"""Runs a file of docs/examples as its reader would: in a process of its own, from where it stands, but on free ports."""

from __future__ import annotations

import os
import re
import signal
import smtplib
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent.parent / "docs" / "examples"
TWISTD = "from twisted.scripts.twistd import run; run()"
# Where examples listen: 2525 by SMTP, 2110 by POP3, 8080 and 8081 by HTTP.
_PORT = re.compile(r"\b(2525|2110|808[01])\b")


class Example:
    """A program under way."""

    def __init__(self, path: Path, folder: Path, *command: str) -> None:
        """
        @param path: where a copy of the example of this name goes.
        @param folder: where it runs.
        """
        self.ports: dict[int, int] = {}
        source = _PORT.sub(self._free, (EXAMPLES / path.name).read_text())
        self.path = path
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(source)
        self._output = (folder / "output").open("w+")
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(EXAMPLES.parent.parent), *sys.path])},
        )
        for port in self.ports.values():
            self._wait_for(port)

    def _free(self, written: re.Match[str]) -> str:
        if int(written[1]) not in self.ports:
            with socket.socket() as one:
                one.bind(("127.0.0.1", 0))
                self.ports[int(written[1])] = one.getsockname()[1]
        return str(self.ports[int(written[1])])

    def _wait_for(self, port: int) -> None:
        for _ in range(300):
            if self.process.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise AssertionError(f"{self.path.name} does not listen:\n{self.output}")

    @property
    def output(self) -> str:
        """All that it has printed."""
        self._output.flush()
        return Path(self._output.name).read_text()

    def wait_for_output(self, text: str) -> None:
        for _ in range(200):
            if text in self.output:
                return
            time.sleep(0.05)
        raise AssertionError(f"{text!r} is not in:\n{self.output}")

    def stop(self, by: signal.Signals = signal.SIGTERM) -> int:
        """Its exit status after a signal."""
        self.process.send_signal(by)
        return self.process.wait(20)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._output.close()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Example]]:
    """
    Start an example: `run("program.py")`; `run("both.tac", "twistd", "-ny")`; `run("shop_plugin.py", "plugin", "shop")` with what
    follows twistd's own options.
    """
    started: list[Example] = []

    def start(name: str, how: str = "python", *arguments: str) -> Example:
        path = tmp_path / name
        if how == "twistd":
            command = [sys.executable, "-c", TWISTD, "--pidfile=", *arguments, str(path)]
        elif how == "plugin":
            path = tmp_path / "twisted" / "plugins" / name
            command = [sys.executable, "-c", TWISTD, "--pidfile=", "-n", *arguments]
        else:
            command = [sys.executable, str(path)]
        started.append(Example(path, tmp_path, *command))
        return started[-1]

    yield start
    for example in started:
        example.end()


@pytest.fixture
def send() -> Callable[[int, str, bytes], None]:
    """Hand one message in, as anybody: `send(port, forward_path, message)`."""

    def send_one(port: int, forward_path: str, message: bytes) -> None:
        with smtplib.SMTP("127.0.0.1", port, timeout=10) as client:
            client.sendmail("bob@far.example", [forward_path], message)

    return send_one
