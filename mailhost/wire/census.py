"""Counts who is connected, in all and by host."""

from __future__ import annotations


class Census:
    """
    The open connections of one or more listeners.

    A host gives all its listeners one, since what a client must not use up is the host's, whichever ports it comes in by.
    """

    __slots__ = ("_per_host", "connections")

    def __init__(self) -> None:
        self.connections = 0
        self._per_host: dict[str, int] = {}

    def of(self, host: str) -> int:
        """@param host: an address; UNIX sockets have none and are not counted by host."""
        return self._per_host.get(host, 0)

    def enter(self, host: str) -> None:
        self.connections += 1
        if host:
            self._per_host[host] = self._per_host.get(host, 0) + 1

    def leave(self, host: str) -> None:
        """Once for each `enter`."""
        self.connections -= 1
        left = self._per_host.pop(host, 1) - 1
        if left:
            self._per_host[host] = left
