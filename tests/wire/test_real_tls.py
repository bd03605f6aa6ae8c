"""A conversation on real sockets, under TLS from the start or from a command on."""

from __future__ import annotations

import datetime
import socket
import ssl

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from toy import Toy, ToyFactory, toy_factory
from twisted.internet import defer, endpoints, reactor, threads
from twisted.internet import ssl as twisted_ssl
from twisted.trial.unittest import TestCase


def self_signed() -> twisted_ssl.CertificateOptions:
    """A key and a certificate for `localhost`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return twisted_ssl.CertificateOptions(privateKey=key, certificate=certificate)


class RealTLSTests(TestCase):
    """The clock is the reactor, the sockets are real, the clients are blocking ones in a thread."""

    def setUp(self) -> None:
        self.creator = self_signed()

    async def listen(self, **more: object) -> tuple[ToyFactory, int]:
        factory = toy_factory(reactor, **more)  # type: ignore[arg-type]
        endpoint = endpoints.serverFromString(reactor, "tcp:0:interface=127.0.0.1")
        if more.get("implicit_tls"):
            endpoint = endpoints.wrapServerTLS(self.creator, endpoint)
        port = await endpoint.listen(factory)
        self.addCleanup(port.stopListening)
        return factory, port.getHost().port

    def connect(self, port: int, starttls: bool) -> bytes:
        """What the server says to ECHO and QUIT under TLS."""
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection: socket.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        if starttls:
            assert connection.recv(100) == b"hello\r\n"
            connection.sendall(b"TLS\r\n")
            assert connection.recv(100) == b"ready\r\n"
        with context.wrap_socket(connection) as protected:
            protected.sendall(b"ECHO under tls\r\nMANY 100\r\nQUIT\r\n")
            said = b""
            while octets := protected.recv(65536):
                said += octets
        return said

    async def check(self, starttls: bool) -> Toy:
        more = {"tls": self.creator} if starttls else {"implicit_tls": True}
        factory, port = await self.listen(**more)
        said = await threads.deferToThread(self.connect, port, starttls)
        greeting = b"" if starttls else b"hello\r\n"
        assert said == greeting + b"under tls\r\n" + b"x" * 1638400 + b".\r\nbye\r\n", said[:100]
        await factory.drain()
        return factory.sessions[0]

    def test_started_by_a_command(self) -> defer.Deferred[None]:
        """The session learns what protects it, and the connection closes in good order."""

        async def run() -> None:
            toy = await self.check(starttls=True)
            assert [what for what in toy.happened if what != "waits for room"] == [
                "tls started",
                "tls TLSv1.3",
                "ended closed",
            ]

        return defer.Deferred.fromCoroutine(run())

    def test_from_the_first_octet(self) -> defer.Deferred[None]:
        """The same under implicit TLS."""

        async def run() -> None:
            toy = await self.check(starttls=False)
            assert [what for what in toy.happened if what != "waits for room"] == ["tls TLSv1.3", "ended closed"]

        return defer.Deferred.fromCoroutine(run())
