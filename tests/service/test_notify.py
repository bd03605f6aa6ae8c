"""What systemd is told, heard on a socket like its own."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from mailhost.service.notify import Notifier
from mailhost.service.signals import Hangup


@pytest.fixture
def ear(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setblocking(False)
        yield listening


def test_ready_reloading_stopping(ear: socket.socket) -> None:
    """The words of sd_notify(3), a reload with the moment it began."""
    notifier = Notifier({"NOTIFY_SOCKET": ear.getsockname()})
    before = time.monotonic_ns() // 1000
    notifier.ready()
    notifier.reloading()
    notifier.stopping()
    assert ear.recv(100) == b"READY=1"
    reloading, _, moment = ear.recv(100).decode().partition("\n")
    assert reloading == "RELOADING=1"
    assert before <= int(moment.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
    assert ear.recv(100) == b"STOPPING=1"


def test_an_abstract_socket() -> None:
    """`@` in the environment is the NUL of Linux's abstract names."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0mailhost-test-{os.getpid()}")
        Notifier({"NOTIFY_SOCKET": f"@mailhost-test-{os.getpid()}"}).ready()
        assert listening.recv(100) == b"READY=1"


def test_the_watchdog_hears_twice_as_often_as_it_asks(ear: socket.socket) -> None:
    """Until it is stopped."""
    clock = Clock()
    notifier = Notifier({"NOTIFY_SOCKET": ear.getsockname(), "WATCHDOG_USEC": "10000000"})
    notifier.start_watchdog(clock)
    clock.pump([2.5] * 4)
    heard = 0
    while True:
        try:
            assert ear.recv(100) == b"WATCHDOG=1"
            heard += 1
        except BlockingIOError:
            break
    assert heard == 3
    notifier.stop_watchdog()
    assert not clock.getDelayedCalls()


def test_another_processs_watchdog_is_not_ours(ear: socket.socket) -> None:
    """WATCHDOG_PID says whom it is meant for."""
    clock = Clock()
    environment = {"NOTIFY_SOCKET": ear.getsockname(), "WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "1"}
    Notifier(environment).start_watchdog(clock)
    assert not clock.getDelayedCalls()


def test_without_a_service_manager() -> None:
    """Nothing is sent and nothing fails; nor does it when the manager is gone."""
    Notifier({}).ready()
    Notifier({"NOTIFY_SOCKET": "/nowhere/notify"}).ready()


def test_hangup_calls_in_the_reactors_thread() -> None:
    """And leaves the signal as it was found."""
    called: list[str] = []

    class Reactor:
        def callFromThread(self, function: Any) -> None:
            called.append("from thread")
            function()

    before = signal.getsignal(signal.SIGHUP)
    hangup = Hangup(Reactor(), lambda: called.append("reload"))
    hangup.install()
    os.kill(os.getpid(), signal.SIGHUP)
    assert called == ["from thread", "reload"]
    hangup.remove()
    assert signal.getsignal(signal.SIGHUP) == before
