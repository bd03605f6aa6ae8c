"""What has arrived at a test's host, and who waits for more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from mailhost.testing.messages import is_for


class Arrival(NamedTuple):
    """One message for one forward-path."""

    octets: bytes
    """Plain form."""
    reverse_path: str
    forward_path: str


class Arrivals:
    """All of them, in their order; a POP3 client that deletes mail deletes nothing here."""

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._all: list[Arrival] = []
        self._waiting: set[Deferred[None]] = set()

    def add(self, arrivals: Sequence[Arrival]) -> None:
        self._all += arrivals
        waiting, self._waiting = self._waiting, set()
        for one in waiting:
            one.callback(None)

    def clear(self) -> None:
        self._all.clear()

    def at(self, address: str) -> list[Arrival]:
        return [arrival for arrival in self._all if is_for(arrival.forward_path, address)]

    async def wait(self, address: str, count: int, seconds: float) -> list[Arrival]:
        """What is there once there are so many, or when the time is up."""
        end = self._reactor.seconds() + seconds
        while len(self.at(address)) < count and self._reactor.seconds() < end:
            await self._next(end - self._reactor.seconds())
        return self.at(address)

    async def _next(self, seconds: float) -> None:
        """Until something arrives, or for so long."""
        arrival: Deferred[None] = Deferred()
        self._waiting.add(arrival)
        timer = self._reactor.callLater(seconds, arrival.callback, None)
        try:
            await arrival
        finally:
            self._waiting.discard(arrival)
            if timer.active():
                timer.cancel()
