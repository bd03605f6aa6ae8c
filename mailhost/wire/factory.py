"""
What all factories of conversations do: count who is connected, turn away whoever is too many, and end all in good order.
"""

from __future__ import annotations

import itertools
import secrets
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IOpenSSLServerConnectionCreator, IReactorTime
from twisted.internet.protocol import Protocol, ServerFactory

from mailhost.envelope import Client
from mailhost.events import ConnectionRefused, Observer, unobserved
from mailhost.limits import Limits
from mailhost.wire.census import Census
from mailhost.wire.conversation import Conversation, Output, Session


class ConversationFactory(ServerFactory):
    """
    Makes the conversations of one listener.  A protocol's factory says what its sessions are.

    `endpoint.listen(factory)` is all that an application needs; `drain()` ends the conversations when it has stopped listening.
    """

    noisy = False

    def __init__(
        self,
        *,
        clock: IReactorTime,
        limits: Limits | None = None,
        observer: Observer = unobserved,
        listener: str = "",
        protocol: str,
        tls: IOpenSSLServerConnectionCreator | None = None,
        implicit_tls: bool = False,
    ) -> None:
        """
        @param clock: the reactor.
        @param listener: names this listener in the log.
        @param protocol: `smtp`, `submission`, `lmtp` or `pop3`.
        @param tls: for STARTTLS or STLS; None offers neither.
        @param implicit_tls: the endpoint speaks TLS from the first octet.
        """
        self.clock = clock
        self.limits = limits or Limits()
        self.observer = observer
        self.listener = listener
        self.protocol_name = protocol
        self.tls = tls
        self.implicit_tls = implicit_tls
        self.draining = False
        self._conversations: set[Conversation] = set()
        self.census = Census()
        """Who is connected; to be replaced by one for several listeners before anybody is."""
        self._drained: Deferred[None] | None = None
        # A session's name must not come again after a restart, or the log would mix two of them up.
        self._names = (f"{prefix}{number:x}" for prefix in [secrets.token_hex(4)] for number in itertools.count(1))

    # -- what a protocol's factory says

    def session(self, out: Output, client: Client) -> Session:
        """One session."""
        raise NotImplementedError

    def too_many(self) -> bytes:
        """What a client hears that is one too many; the connection is closed behind it."""
        raise NotImplementedError

    # -- what Twisted calls

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        host = _host(addr)
        why = self._turned_away(host)
        if why:
            self.observer(ConnectionRefused(host, self.listener, why))
            return _TurnedAway(b"" if self.implicit_tls else self.too_many())
        return Conversation(
            self._session_of,
            owner=self,
            clock=self.clock,
            limits=self.limits,
            tls=self.tls,
            implicit_tls=self.implicit_tls,
        )

    def _turned_away(self, host: str) -> str:
        if self.draining:
            return "draining"
        if self.census.connections >= self.limits.connections:
            return "too many connections"
        if self.census.of(host) >= self.limits.connections_per_host:
            return "too many connections from this host"
        return ""

    def _session_of(self, out: Output, peer: IAddress) -> Session:
        client = Client(next(self._names), _host(peer), getattr(peer, "port", 0), self.listener, self.protocol_name)
        return self.session(out, client)

    # -- what conversations call

    def opened(self, conversation: Conversation) -> None:
        self._conversations.add(conversation)
        self.census.enter(_host(conversation.transport.getPeer()))

    def closed(self, conversation: Conversation) -> None:
        self._conversations.discard(conversation)
        self.census.leave(_host(conversation.transport.getPeer()))
        if not self._conversations and self._drained is not None:
            drained, self._drained = self._drained, None
            drained.callback(None)

    # -- what a service calls

    @property
    def connections(self) -> int:
        return len(self._conversations)

    async def drain(self) -> None:
        """
        Take no new conversations and wait for the others to end, each at its next command boundary.

        After `limits.drain_seconds` the rest are cut; a commit under way is left to the spool, which knows how to end.
        """
        self.draining = True
        for conversation in list(self._conversations):
            conversation.drain()
        if not self._conversations:
            return
        self._drained = Deferred()
        cut = self.clock.callLater(self.limits.drain_seconds, self._cut_the_rest)
        await self._drained
        if cut.active():
            cut.cancel()

    def _cut_the_rest(self) -> None:
        for conversation in list(self._conversations):
            conversation.abort()

    def startFactory(self) -> None:
        self.draining = False


class _TurnedAway(Protocol):
    """Says why and closes, without a session."""

    def __init__(self, octets: bytes) -> None:
        """@param octets: what to say; nothing under implicit TLS, where it could only be said after a handshake to wait for."""
        self._octets = octets

    def connectionMade(self) -> None:
        transport = cast(Any, self.transport)
        if self._octets:
            transport.write(self._octets)
            transport.loseConnection()
        else:
            transport.abortConnection()


def _host(address: object) -> str:
    """An IP address as text, an IPv4 one in its own form even on an IPv6 socket; empty for what has none."""
    host = getattr(address, "host", "") or ""
    return host[7:] if host.startswith("::ffff:") and "." in host else host
