"""What tests of the passwd checker share: threads and time that do as they are told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred, execute


class Threads:
    """Runs what is given to it at once, or, while held, when told to; and counts."""

    def __init__(self) -> None:
        self.held = False
        self.calls: list[str] = []
        self._waiting: list[tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]] = []

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        self.calls.append(function.__name__)
        if not self.held:
            return execute(function, *arguments)
        result: Deferred[Any] = Deferred()
        self._waiting.append((result, function, arguments))
        return result

    def run(self) -> None:
        """Let run what waits now."""
        waiting, self._waiting = self._waiting, []
        for result, function, arguments in waiting:
            execute(function, *arguments).chainDeferred(result)


@pytest.fixture
def threads() -> Threads:
    return Threads()


@pytest.fixture
def long_after(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were just written look ten seconds old."""
    import time

    now = time.time_ns
    monkeypatch.setattr("time.time_ns", lambda: now() + 10_000_000_000)
