"""Replies that leave at once, and those that must wait their turn."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from toy import ToyFactory, toy_factory
from twisted.internet import defer, endpoints, reactor, threads
from twisted.trial.unittest import TestCase

from mailhost.testing.transport import FakeTransport
from mailhost.wire import at_once, conversation
from mailhost.wire.at_once import send_at_once


class AtOnceTests(TestCase):
    """On real sockets."""

    async def listen(self) -> tuple[ToyFactory, int]:
        factory = toy_factory(reactor)  # type: ignore[arg-type]
        port = await endpoints.serverFromString(reactor, "tcp:0:interface=127.0.0.1").listen(factory)
        self.addCleanup(port.stopListening)
        return factory, port.getHost().port

    def said(self, port: int, octets: bytes, slowly: bool = False) -> bytes:
        """All that the server says to this."""
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            if slowly:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            connection.sendall(octets)
            heard = []
            while block := connection.recv(16384 if slowly else 65536):
                heard.append(block)
            return b"".join(heard)

    async def check(self, slowly: bool) -> ToyFactory:
        factory, port = await self.listen()
        # More than the system's buffers hold, where the client is to be waited for.
        count = 2000 if slowly else 300
        text = b"ECHO a\r\nMANY %d\r\nECHO b\r\nMANY 1\r\nQUIT\r\n" % count
        heard = await threads.deferToThread(self.said, port, text, slowly)
        many = b"x" * 16384
        assert heard == b"hello\r\na\r\n" + many * count + b".\r\nb\r\n" + many + b".\r\nbye\r\n"
        await factory.drain()
        return factory

    def test_all_arrives_in_order(self) -> defer.Deferred[None]:
        """Small replies and megabytes, to a client that reads fast."""

        async def run() -> None:
            await self.check(slowly=False)

        return defer.Deferred.fromCoroutine(run())

    def test_a_slow_client_gets_the_same(self) -> defer.Deferred[None]:
        """What does not fit waits, and the step waits with it."""

        async def run() -> None:
            factory = await self.check(slowly=True)
            assert "waits for room" in factory.sessions[0].happened

        return defer.Deferred.fromCoroutine(run())

    def test_without_it_nothing_changes(self) -> defer.Deferred[None]:
        """The module can be left out."""
        self.patch(conversation, "send_at_once", lambda transport, octets: octets)

        async def run() -> None:
            await self.check(slowly=False)

        return defer.Deferred.fromCoroutine(run())

    def test_nothing_is_written_behind_its_back(self) -> defer.Deferred[None]:
        """The reactor's own writing never runs for replies that the system takes."""
        written: list[int] = []
        write = at_once.Server.write
        self.patch(at_once.Server, "write", lambda transport, octets: (written.append(1), write(transport, octets)))

        async def run() -> None:
            factory, port = await self.listen()
            await threads.deferToThread(self.said, port, b"ECHO a\r\nQUIT\r\n")
            await factory.drain()
            assert written == []

        return defer.Deferred.fromCoroutine(run())


class Waiting(at_once.Server):
    """A transport in a state of our choice, that counts what it is asked to send."""

    def __init__(self, **state: Any) -> None:
        self.connected = True
        self.disconnecting = False
        self.dataBuffer = b""
        self._tempDataBuffer = []
        self.sent: list[bytes] = []
        self.__dict__.update(state)

    def __del__(self) -> None:
        pass

    def writeSomeData(self, data: Any) -> Any:
        self.sent.append(bytes(data))
        return self.takes.pop(0)

    takes: list[Any]


class TestStates:
    @pytest.mark.parametrize(
        "state",
        [
            {"connected": False},
            {"disconnecting": True},
            {"dataBuffer": b"x"},
            {"_tempDataBuffer": [b"x"]},
            {"TLS": True},
        ],
    )
    def test_nothing_overtakes_what_waits(self, state: dict[str, Any]) -> None:
        """Under TLS, while closing, or behind octets that were not sent yet."""
        transport = Waiting(**state)
        assert send_at_once(transport, b"reply") == b"reply"
        assert transport.sent == []

    def test_what_was_not_taken_is_left(self) -> None:
        """A full socket takes a part, or nothing."""
        assert send_at_once(Waiting(takes=[3]), b"reply") == b"ly"
        assert send_at_once(Waiting(takes=[0]), b"reply") == b"reply"

    def test_a_lost_connection_is_left_to_write(self) -> None:
        """An error instead of a number."""
        assert send_at_once(Waiting(takes=[OSError()]), b"reply") == b"reply"

    def test_much_is_sent_in_several_calls(self) -> None:
        """As long as each takes all it may."""
        octets = bytes(300_000)
        transport = Waiting(takes=[131072, 131072, 37856])
        assert send_at_once(transport, octets) == b""
        transport = Waiting(takes=[131072, 0])
        assert len(send_at_once(transport, octets)) == 300_000 - 131072
        assert len(transport.sent) == 2

    def test_other_transports_are_left_alone(self) -> None:
        """A fake one, for a start."""
        transport = FakeTransport(toy_factory(reactor).buildProtocol(None))  # type: ignore[arg-type]
        assert send_at_once(transport, b"x") == b"x"
        transport.lose()
