"""SIGHUP, which Twisted leaves to its default: to end the process."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any


class Hangup:
    """While it is installed, SIGHUP calls a function in the reactor's thread."""

    def __init__(self, reactor: Any, called: Callable[[], object]) -> None:
        self._reactor = reactor
        self._called = called
        self._former: Any = signal.SIG_DFL

    def install(self) -> None:
        # Python runs this between two instructions of whatever runs; callFromThread is what may be called there.
        self._former = signal.signal(signal.SIGHUP, lambda *_: self._reactor.callFromThread(self._called))

    def remove(self) -> None:
        signal.signal(signal.SIGHUP, self._former)
