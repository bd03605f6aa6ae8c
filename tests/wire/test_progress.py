"""A slow client is not a dead one."""

from __future__ import annotations

import socket
import time

import pytest
from toy import converse
from twisted.internet.task import Clock

from mailhost.limits import Limits
from mailhost.wire import conversation
from mailhost.wire.progress import unacknowledged


def fill(connection: socket.socket) -> None:
    """Send until the system takes nothing more."""
    while True:
        try:
            connection.send(bytes(65536))
        except BlockingIOError:
            return


class TestUnacknowledged:
    def test_what_the_client_has_not_read_is_counted(self) -> None:
        """On a real socket, and it goes down as the client reads."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            client = socket.create_connection(listening.getsockname())
            server, _ = listening.accept()
        with client, server:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            server.setblocking(False)
            fill(server)
            held = unacknowledged(server)
            assert held > 0
            until = time.monotonic() + 10
            while unacknowledged(server) == held and time.monotonic() < until:
                client.recv(65536)
            assert unacknowledged(server) < held

    def test_what_the_transport_keeps_is_counted(self) -> None:
        """Twisted's buffers stand before the system's."""
        left, right = socket.socketpair()

        class Keeping:
            dataBuffer = b"12345"
            offset = 2
            _tempDataLen = 10

            def fileno(self) -> int:
                return left.fileno()

        with left, right:
            assert unacknowledged(Keeping()) == 13

    def test_nothing_is_said_of_what_has_no_socket(self) -> None:
        """A fake transport, or one that is closed."""
        assert unacknowledged(object()) == 0
        closed = socket.socket()
        closed.close()
        assert unacknowledged(closed) == 0


class TestPatience:
    def test_a_slow_close_is_let_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As long as the client takes something between two looks; not longer."""
        clock, held = Clock(), [100, 90, 80, 70, 70, 70]
        monkeypatch.setattr(conversation, "unacknowledged", lambda transport: held.pop(0))
        transport, _, _ = converse(clock, Limits(close_seconds=10))
        transport.receive(b"QUIT\r\n")
        for _ in range(3):
            clock.advance(10)
            assert not transport.aborted
        clock.advance(10)
        assert transport.aborted

    def test_a_slow_reader_is_let_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its time begins anew with whatever it takes."""
        clock, held = Clock(), [1000]
        monkeypatch.setattr(conversation, "unacknowledged", lambda transport: held[0])
        transport, _, _ = converse(clock, Limits(write_seconds=60))
        transport.slow_above = 10
        transport.receive(b"ECHO something long enough\r\n")
        for _ in range(60):
            clock.advance(10)
            held[0] -= 1
        assert not transport.aborted
        for _ in range(9):
            clock.advance(10)
        assert transport.aborted
