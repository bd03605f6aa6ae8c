"""
Sends octets straight to the socket when nothing waits before them.

Twisted's own `write` keeps what it is given for the reactor's next turn: the socket is added to epoll, reported writable, written
and taken out again, for each reply.  Nearly always the system would have taken the octets at once; then all of that is saved, and the
client has its reply a turn earlier.

This uses two attributes of Twisted's TCP transport that are not part of its interface.  Without them, under TLS and on any other
transport nothing is sent here and everything goes through `write`: the module can be left out without any other change.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.tcp import Server

# What one call of `writeSomeData` takes at most.
_LIMIT = Server.SEND_LIMIT


def send_at_once(transport: Any, octets: bytes) -> bytes:
    """
    @return: what has still to be given to `transport.write`.

    A connection that turns out to be lost is left for `write`, which tells its protocol in the usual way, a turn later.
    """
    if not isinstance(transport, Server) or transport.TLS or _something_waits(transport):
        return octets
    sent = _sent(transport.writeSomeData(octets))
    if sent == len(octets):
        return b""
    while sent % _LIMIT == 0 and 0 < sent < len(octets):
        more = _sent(transport.writeSomeData(memoryview(octets)[sent:]))  # type: ignore[arg-type]  # it makes one itself
        if not more:
            break
        sent += more
    return octets[sent:]


def _something_waits(transport: Any) -> bool:
    """Whether `write` was called before and not all of that has left; or the connection is ending."""
    return bool(
        not transport.connected
        or transport.disconnecting
        or getattr(transport, "_tempDataBuffer", True)
        or transport.dataBuffer
    )


def _sent(result: object) -> int:
    """What of it was taken; none of it when the connection is lost."""
    return result if isinstance(result, int) else 0
