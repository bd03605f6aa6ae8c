"""Ports: taken before anybody is served, given up, taken again, and handed from one factory to the next."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from mailhost.service.listen import CannotListen, Door, Listener, with_backlog

reactor: Any = installed


class Says(ServerFactory):
    """Each connection hears one word."""

    noisy = False
    connections = 0

    def __init__(self, word: bytes) -> None:
        self.word = word
        self.started = 0

    def buildProtocol(self, addr: object) -> Protocol:
        protocol = Protocol()
        protocol.connectionMade = lambda: protocol.transport.write(self.word)  # type: ignore[method-assign,union-attr]
        return protocol

    def startFactory(self) -> None:
        self.started += 1

    def stopFactory(self) -> None:
        self.started -= 1

    async def drain(self) -> None:
        pass


def door(word: bytes, endpoint: str = "tcp:0:interface=127.0.0.1") -> Door:
    return Door("test", endpoint, Says(word))


def heard(port: int) -> bytes:
    """What a client hears within a tenth of a second, in a blocking call: run it in a thread."""
    with socket.create_connection(("127.0.0.1", port), timeout=0.3) as client:
        try:
            return client.recv(100)
        except TimeoutError:
            return b"nothing"


async def listen_to(port: int) -> bytes:
    from twisted.internet.threads import deferToThread

    answer: bytes = await deferToThread(heard, port)
    return answer


class ListenerTests(TestCase):
    def test_connections_wait_until_they_are_accepted(self) -> Deferred[None]:
        """A port is bound before the spool is open; who connects then is greeted when it is, not turned away."""

        async def scenario() -> None:
            listener = Listener(reactor, door(b"hello"))
            listener.bind()
            await listener.bound()
            port = listener.address.port  # type: ignore[attr-defined]
            assert await listen_to(port) == b"nothing"
            waiting = listen_to(port)
            later = Deferred.fromCoroutine(waiting)
            await deferLater(reactor, 0.05)
            listener.accept()
            assert await later == b"hello"
            await listener.close()

        return Deferred.fromCoroutine(scenario())

    def test_a_closed_port_can_be_taken_again(self) -> Deferred[None]:
        """Stop and start: what Twisted's own service cannot."""

        async def scenario() -> None:
            listener = Listener(reactor, door(b"hello"))
            for _ in range(2):
                listener.bind()
                listener.accept()
                port = listener.address.port  # type: ignore[attr-defined]
                assert await listen_to(port) == b"hello"
                await listener.close()
                with pytest.raises(ConnectionRefusedError):
                    await listen_to(port)

        return Deferred.fromCoroutine(scenario())

    def test_another_factory_takes_over_the_port(self) -> Deferred[None]:
        """A reload changes what new connections get, while the port never closes."""

        async def scenario() -> None:
            first, second = door(b"first"), door(b"second")
            listener = Listener(reactor, first)
            listener.bind()
            listener.accept()
            port = listener.address.port  # type: ignore[attr-defined]
            assert await listen_to(port) == b"first"
            listener.turn(second)
            assert await listen_to(port) == b"second"
            assert (first.factory.started, second.factory.started) == (0, 1)  # type: ignore[attr-defined]
            await listener.close()
            assert second.factory.started == 0  # type: ignore[attr-defined]

        return Deferred.fromCoroutine(scenario())

    def test_a_port_in_use(self) -> Deferred[None]:
        """The error names endpoint, listener and reason, at once."""

        async def scenario() -> None:
            with socket.socket() as taken:
                taken.bind(("127.0.0.1", 0))
                taken.listen()
                endpoint = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
                listener = Listener(reactor, door(b"", endpoint))
                with pytest.raises(CannotListen) as caught:
                    listener.bind()
                assert str(caught.value) == f"cannot listen on {endpoint} (test): Address already in use"
                await listener.bound()
                await listener.close()

        return Deferred.fromCoroutine(scenario())

    def test_an_endpoint_that_fails_late(self) -> Deferred[None]:
        """What is not known at once is raised by `bound`."""

        async def scenario() -> None:
            late: Deferred[Any] = Deferred()
            listener = Listener(reactor, door(b""))
            listener._listen = lambda: late  # type: ignore[method-assign]
            listener.bind()
            late.errback(OSError(13, "Permission denied"))
            with pytest.raises(CannotListen, match=r"\(test\): Permission denied"):
                await listener.bound()

        return Deferred.fromCoroutine(scenario())

    def test_a_port_that_comes_too_late(self) -> Deferred[None]:
        """One that is bound after we have given up is closed, not left open for ever."""

        async def scenario() -> None:
            late: Deferred[Any] = Deferred()
            listener = Listener(reactor, door(b"hello"))
            listener._listen = lambda: late  # type: ignore[method-assign]
            listener.bind()
            await listener.close()
            port = reactor.listenTCP(0, Says(b"hello"), interface="127.0.0.1")
            number = port.getHost().port
            late.callback(port)
            await listener.bound()
            with pytest.raises(ConnectionRefusedError):
                await listen_to(number)

        return Deferred.fromCoroutine(scenario())

    def test_a_socket_that_systemd_did_not_pass(self) -> None:
        """A bare IndexError would tell nobody that FileDescriptorName= is missing."""
        listener = Listener(reactor, door(b"", "systemd:domain=INET6:name=smtp"))
        with pytest.raises(CannotListen, match="FileDescriptorName="):
            listener.bind()


@pytest.mark.parametrize(
    ("endpoint", "with_ours"),
    [
        ("tcp:25", "tcp:25:backlog=1024"),
        ("unix:/run/smtp:mode=660", "unix:/run/smtp:mode=660:backlog=1024"),
        ("haproxy:tcp:25", "haproxy:tcp:25:backlog=1024"),
        ("tcp:25:backlog=7", "tcp:25:backlog=7"),
        ("systemd:domain=INET:name=smtp", "systemd:domain=INET:name=smtp"),
    ],
)
def test_backlog(endpoint: str, with_ours: str) -> None:
    """Two hundred senders at once do not fit into Twisted's fifty."""
    assert with_backlog(endpoint) == with_ours
