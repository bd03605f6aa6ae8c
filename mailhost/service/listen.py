"""
One listening port: bound before there is anything to serve, accepting once there is, its factory replaceable.

Twisted's StreamServerEndpointService logs a port that cannot be bound and goes on, and once stopped cannot listen again; this raises, and
can.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, NamedTuple, Protocol

from twisted.internet import endpoints
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    ILoggingContext,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
)
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from mailhost.wire.census import Census

# Twisted's own default of 50 loses connections when two hundred senders come at once.
BACKLOG = 1024
_WITH_BACKLOG = ("tcp:", "tcp6:", "unix:", "haproxy:tcp:", "haproxy:tcp6:", "haproxy:unix:")


class CannotListen(Exception):
    """A port that cannot be bound; one line that names the endpoint and the reason."""


class SessionFactory(Protocol):
    """What `smtp.factory` and `pop3.factory` give."""

    census: Census

    @property
    def connections(self) -> int: ...

    def buildProtocol(self, address: Any) -> Any: ...

    def doStart(self) -> None: ...

    def doStop(self) -> None: ...

    def drain(self) -> Awaitable[object]:
        """End every session at a command boundary, and abort those that take too long."""


class Door(NamedTuple):
    """What one listener is to be: where, for whom."""

    name: str
    endpoint: str
    factory: SessionFactory
    implicit_tls: IOpenSSLServerConnectionCreator | None = None


@implementer(IProtocolFactory, ILoggingContext)
class Switch:
    """The factory of a port: new connections go to the factory of the day, old ones stay with theirs."""

    noisy = False

    def __init__(self, door: Door) -> None:
        self._name = door.name
        self._factory = _outermost(door)

    def logPrefix(self) -> str:
        """What Twisted's own log lines call the port's user."""
        return self._name

    def buildProtocol(self, addr: Any) -> Any:
        return self._factory.buildProtocol(addr)

    def doStart(self) -> None:
        self._factory.doStart()

    def doStop(self) -> None:
        self._factory.doStop()

    def turn(self, door: Door) -> None:
        """From now on, this one."""
        self._name = door.name
        former, self._factory = self._factory, _outermost(door)
        self._factory.doStart()
        former.doStop()


def _outermost(door: Door) -> Any:
    if door.implicit_tls is None:
        return door.factory
    wrapped: Any = door.factory
    factory = TLSMemoryBIOFactory(door.implicit_tls, False, wrapped)
    factory.noisy = False
    return factory


class Listener:
    """A door's port."""

    def __init__(self, reactor: Any, door: Door) -> None:
        self._reactor = reactor
        self.door = door
        self._switch: Switch | None = None
        self._port: IListeningPort | None = None
        self._binding: Deferred[None] | None = None
        self._wanted = False
        self._accepting = False

    @property
    def address(self) -> IAddress:
        """Where it listens, the port number known; once it is bound."""
        assert self._port is not None, "not bound"
        address: IAddress = self._port.getHost()
        return address

    def __str__(self) -> str:
        if self._port is None:
            return self.door.name
        address: Any = self.address
        if not hasattr(address, "port"):  # a UNIX socket
            return self.door.name
        host = f"[{address.host}]" if ":" in address.host else address.host
        return f"{self.door.name} at {host}:{address.port}"

    def bind(self) -> None:
        """
        Take the port; connections queue in the kernel until `accept`.

        @raise CannotListen: it is known at once that this fails.  What is known later `bound` raises.
        """
        self._wanted = True
        self._switch = Switch(self.door)
        failures: list[Failure] = []
        self._binding = maybeDeferred(self._listen).addCallback(self._took)
        self._binding.addErrback(failures.append)
        if failures:
            self._binding = None
            raise self._worded(failures[0])
        self._binding.addCallback(lambda _: self._late(failures))

    async def bound(self) -> None:
        """Until it is known whether the port is ours.  @raise CannotListen: it is not."""
        binding, self._binding = self._binding, None
        if binding is not None:
            await binding

    def accept(self) -> None:
        """From now on connections are answered, those that wait first."""
        self._accepting = True
        if self._port is not None and hasattr(self._port, "startReading"):
            self._port.startReading()

    def turn(self, door: Door) -> None:
        """New connections are this door's; the port stays."""
        assert self._switch is not None, "not bound"
        self._switch.turn(door)
        self.door = door

    async def close(self) -> None:
        """Take no more connections.  `bind` may follow."""
        self._wanted = self._accepting = False
        port, self._port = self._port, None
        if port is not None:
            await maybeDeferred(port.stopListening)

    def _listen(self) -> Any:
        return endpoints.serverFromString(self._reactor, with_backlog(self.door.endpoint)).listen(self._switch)

    def _took(self, port: IListeningPort) -> Any:
        if not self._wanted:
            return port.stopListening()  # it came after all, but too late
        self._port = port
        if not self._accepting and hasattr(port, "stopReading"):
            port.stopReading()
        return None

    def _late(self, failures: list[Failure]) -> None:
        if failures:
            raise self._worded(failures[0])

    def _worded(self, failure: Failure) -> CannotListen:
        error = failure.value
        if self.door.endpoint.startswith("systemd:") and isinstance(error, (IndexError, KeyError)):
            reason: object = "systemd passed no such socket; its .socket unit must name it by FileDescriptorName="
        elif isinstance(error, CannotListenError):
            reason = getattr(error.socketError, "strerror", None) or error.socketError
        else:
            reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        return CannotListen(f"cannot listen on {self.door.endpoint} ({self.door.name}): {reason}")


def with_backlog(endpoint: str) -> str:
    """The endpoint, with our backlog where it names none."""
    if endpoint.startswith(_WITH_BACKLOG) and ":backlog=" not in endpoint:
        return f"{endpoint}:backlog={BACKLOG}"
    return endpoint
