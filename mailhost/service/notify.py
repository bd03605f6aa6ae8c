"""
What a process tells systemd (sd_notify(3)): ready, reloading, stopping, and that it is alive.

Without NOTIFY_SOCKET in the environment nothing is sent, and nothing is lost.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from typing import Any

from twisted.internet.task import LoopingCall


class Notifier:
    """The service manager's ear."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """@param environment: `os.environ`, or what a test says."""
        name = environment.get("NOTIFY_SOCKET", "")
        # "@" stands for the NUL of Linux's abstract name space.
        self._address = "\0" + name[1:] if name.startswith("@") else name
        self._watchdog_seconds = _watchdog_seconds(environment)
        self._beat: LoopingCall | None = None

    def ready(self) -> None:
        self._send("READY=1")

    def reloading(self) -> None:
        """A `ready` must follow.  Type=notify-reload wants to know that this is no old message: hence the clock."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """One line that `systemctl status` shows."""
        self._send(f"STATUS={text}")

    def start_watchdog(self, reactor: Any) -> None:
        """Tell of life twice as often as is asked for; a reactor that hangs tells nothing."""
        if self._watchdog_seconds is not None and self._address:
            self._beat = LoopingCall(self._send, "WATCHDOG=1")
            self._beat.clock = reactor
            self._beat.start(self._watchdog_seconds / 2)

    def stop_watchdog(self) -> None:
        if self._beat is not None and self._beat.running:
            self._beat.stop()

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as door:
                door.sendto(message.encode(), self._address)
        except OSError:
            pass  # A service manager that is away is no reason to stop carrying mail.


def _watchdog_seconds(environment: Mapping[str, str]) -> float | None:
    """WATCHDOG_USEC, if it is meant for this process."""
    microseconds = environment.get("WATCHDOG_USEC", "")
    if not microseconds.isdigit() or environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(microseconds) / 1e6
