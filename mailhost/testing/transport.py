"""A transport for tests: keeps what is written, and takes part in TLS, back-pressure and closing as Twisted's own do."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IAddress, IOpenSSLServerConnectionCreator, ITransport
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(ITransport)
class FakeTransport:
    """
    A TCP connection from 192.0.2.7 that no socket is behind.

    Deliver octets with `receive`, look at `written`, let the client stop and go on reading with `client_slow` and `client_reads`.
    """

    def __init__(self, protocol: Protocol, peer: IAddress | None = None) -> None:
        self.protocol = protocol
        self.peer = peer or IPv4Address("TCP", "192.0.2.7", 40007)
        self.written = b""
        self.writes = 0
        self.producer: Any = None
        self.tls: IOpenSSLServerConnectionCreator | None = None
        self.reading = True
        self.closing = False
        self.aborted = False
        self.connected = True
        self.slow_above: int | None = None
        """Pause the producer as soon as so many octets were written since the client last read."""
        self._since_read = 0
        protocol.makeConnection(self)

    # -- what the test does

    def receive(self, octets: bytes) -> None:
        """Octets from the client, if anybody still listens."""
        if self.connected and not self.closing:
            self.protocol.dataReceived(octets)

    def take(self) -> bytes:
        """What was written since the last call."""
        octets, self.written = self.written, b""
        return octets

    def client_reads(self) -> None:
        """The client takes all that was written; a paused producer goes on."""
        self._since_read = 0
        if self.producer is not None:
            self.producer.resumeProducing()

    def lose(self, clean: bool = True) -> None:
        """The connection is gone."""
        if self.connected:
            self.connected = False
            self.protocol.connectionLost(Failure(ConnectionDone() if clean else ConnectionLost()))

    def finish_handshake(self) -> None:
        """The client has answered; TLS is up."""
        self.protocol.handshakeCompleted()  # type: ignore[attr-defined]  # IHandshakeListener

    # -- what the protocol calls

    def write(self, data: bytes) -> None:
        if not isinstance(data, bytes):
            raise TypeError("octets, not text")
        if not self.connected or self.closing:
            return
        self.writes += 1
        self.written += data
        self._since_read += len(data)
        if self.slow_above is not None and self._since_read > self.slow_above and self.producer is not None:
            self.producer.pauseProducing()

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        self.closing = True

    def abortConnection(self) -> None:
        self.aborted = self.closing = True
        self.lose(clean=False)

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        self.reading = True

    def registerProducer(self, producer: object, streaming: bool) -> None:
        if self.producer is not None:
            raise RuntimeError("a producer is registered already")
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def startTLS(self, contextFactory: IOpenSSLServerConnectionCreator) -> None:
        self.tls = contextFactory

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    def setTcpKeepAlive(self, enabled: bool) -> None:
        pass

    def getPeer(self) -> IAddress:
        return self.peer

    def getHost(self) -> IAddress:
        return IPv4Address("TCP", "192.0.2.1", 25)

    def getHandle(self) -> _Handle:
        return _Handle()


class _Handle:
    """What a conversation asks a TLS connection."""

    def get_protocol_version_name(self) -> str:
        return "TLSv1.3"

    def get_cipher_name(self) -> str:
        return "TLS_AES_256_GCM_SHA384"

    def get_cipher_bits(self) -> int:
        return 256
