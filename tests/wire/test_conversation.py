"""One session on one connection: order, waiting, slowness, time, loss."""

from __future__ import annotations

import pytest
from toy import converse, toy_factory
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from mailhost.events import ConnectionRefused
from mailhost.limits import Limits
from mailhost.testing.transport import FakeTransport

TLS_CREATOR = object()


@pytest.fixture
def clock() -> Clock:
    return Clock()


class TestOrder:
    @pytest.mark.parametrize("size", [1, 3, 1000])
    def test_replies_come_in_order(self, clock: Clock, size: int) -> None:
        """Whatever the blocks, each command has its reply, in order."""
        transport, _, _ = converse(clock)
        text = b"ECHO one\r\nECHO two\r\nCONTENT 5\r\nabcdeECHO three\r\nQUIT\r\n"
        for start in range(0, len(text), size):
            transport.receive(text[start : start + size])
        assert transport.take() == b"hello\r\none\r\ntwo\r\ngo on\r\ntaken\r\nthree\r\nbye\r\n"
        assert transport.closing

    def test_commands_wait_for_the_one_in_hand(self, clock: Clock) -> None:
        """What is pipelined behind a step that waits is answered after it."""
        transport, toy, _ = converse(clock)
        transport.receive(b"WAIT\r\nECHO two\r\n")
        assert transport.take() == b"hello\r\n"
        toy.waits[0].callback(b"one")
        assert transport.take() == b"one\r\ntwo\r\n"

    def test_an_error_that_is_waited_for_reaches_the_step(self, clock: Clock) -> None:
        """A failed Deferred is raised where it is awaited; unforeseen, it is a bug with a reply."""
        transport, toy, _ = converse(clock)
        transport.receive(b"WAIT\r\nECHO two\r\n")
        toy.waits[0].errback(ValueError("late"))
        assert transport.take() == b"hello\r\nsorry\r\ntwo\r\n"
        assert toy.happened == ["step ended", "bug ValueError"]

    def test_a_bug_is_answered_and_the_session_goes_on(self, clock: Clock) -> None:
        """An exception in a step that did not wait."""
        transport, _toy, _ = converse(clock)
        transport.receive(b"BUG\r\nECHO on\r\n")
        assert transport.take() == b"hello\r\nsorry\r\non\r\n"

    def test_nothing_is_answered_after_the_close(self, clock: Clock) -> None:
        """Commands behind QUIT are not run."""
        transport, _, _ = converse(clock)
        transport.receive(b"QUIT\r\nECHO no\r\n")
        assert transport.take() == b"hello\r\nbye\r\n"

    def test_many_commands_let_others_have_their_turn(self, clock: Clock) -> None:
        """A hundred at a time, then the reactor."""
        transport, _, _ = converse(clock)
        transport.receive(b"ECHO x\r\n" * 1000)
        assert transport.take().count(b"x\r\n") == 100
        for _ in range(9):
            clock.advance(0)
        assert transport.take().count(b"x\r\n") == 900

    def test_many_commands_are_not_many_writes(self, clock: Clock) -> None:
        """Replies gathered in one turn leave together."""
        transport, _, _ = converse(clock)
        transport.take()
        transport.writes = 0
        transport.receive(b"ECHO x\r\n" * 50)
        assert transport.writes == 1


class TestSlowClient:
    def test_a_step_waits_for_room(self, clock: Clock) -> None:
        """A client that does not read holds the step, not the memory."""
        transport, toy, _ = converse(clock)
        transport.slow_above = 100_000
        transport.receive(b"MANY 64\r\n")
        assert toy.happened == ["waits for room"]
        assert len(transport.written) < 200_000
        while "MANY" not in toy.happened and not transport.written.endswith(b".\r\n"):
            transport.client_reads()
        assert len(transport.written) == len(b"hello\r\n.\r\n") + 64 * 16384

    def test_reading_pauses_only_when_much_is_unread(self, clock: Clock) -> None:
        """Memory for a client that pipelines into a waiting step is bounded."""
        transport, toy, _ = converse(clock, Limits(unread_octets=1000))
        transport.receive(b"WAIT\r\n" + b"ECHO x\r\n" * 100)
        assert transport.reading
        transport.receive(b"ECHO x\r\n" * 100)
        assert not transport.reading
        toy.waits[0].callback(b"")
        for _ in range(5):
            clock.advance(0)
        assert transport.reading
        assert transport.take().count(b"x\r\n") == 200

    def test_a_client_that_takes_nothing_is_cut_off(self, clock: Clock) -> None:
        """So long without progress, and the connection goes."""
        transport, toy, _ = converse(clock, Limits(write_seconds=100))
        transport.slow_above = 10
        transport.receive(b"ECHO something long enough\r\n")
        for _ in range(20):
            clock.advance(10)
        assert transport.aborted
        assert toy.happened == ["ended timeout"]

    def test_the_connection_is_lost_while_a_step_waits_for_room(self, clock: Clock) -> None:
        """The step ends, and then the session."""
        transport, toy, _ = converse(clock)
        transport.slow_above = 100_000
        transport.receive(b"MANY 64\r\n")
        transport.lose()
        assert toy.happened == ["waits for room", "ended lost"]
        assert not clock.getDelayedCalls()


class TestTime:
    def test_a_silent_client_is_told_and_closed(self, clock: Clock) -> None:
        """After the phase's patience."""
        transport, _toy, _ = converse(clock)
        for _ in range(30):
            clock.advance(10)
        assert transport.take() == b"hello\r\ntoo slow\r\n"
        assert transport.closing

    def test_octets_of_a_line_do_not_buy_time(self, clock: Clock) -> None:
        """A line that never ends is no progress."""
        transport, _, _ = converse(clock)
        for _ in range(40):
            clock.advance(10)
            transport.receive(b"E")
        assert transport.closing

    def test_commands_buy_time(self, clock: Clock) -> None:
        """Each answered command begins the patience anew."""
        transport, _, _ = converse(clock)
        for _ in range(40):
            clock.advance(100)
            transport.receive(b"ECHO x\r\n")
        assert not transport.closing

    def test_the_clients_clock_stands_while_a_step_waits(self, clock: Clock) -> None:
        """Our own slowness is not the client's; after it the client has its whole patience."""
        transport, toy, _ = converse(clock)
        toy.step_seconds = 1000
        clock.advance(250)
        transport.receive(b"WAIT\r\n")
        for _ in range(20):
            clock.advance(20)
        toy.waits[0].callback(b"late")
        for _ in range(14):
            clock.advance(20)
        assert transport.take() == b"hello\r\nlate\r\n"
        assert not transport.closing

    def test_a_step_past_its_limit_sees_a_refusal(self, clock: Clock) -> None:
        """What it waits on is cancelled; it still answers, and the session goes on."""
        transport, _, _ = converse(clock)
        transport.receive(b"WAIT\r\nECHO on\r\n")
        for _ in range(8):
            clock.advance(10)
        assert transport.take() == b"hello\r\ntoo long\r\non\r\n"

    def test_a_step_that_must_not_be_cut_closes_without_a_reply(self, clock: Clock) -> None:
        """No reply on an unknown outcome; the step itself goes on to its end."""
        transport, toy, _ = converse(clock)
        transport.receive(b"SAFE\r\n")
        for _ in range(8):
            clock.advance(10)
        assert transport.aborted
        assert transport.take() == b"hello\r\n"
        assert toy.happened == []
        toy.waits[0].callback(b"done")
        assert toy.happened == ["step ended", "ended timeout"]

    def test_a_close_that_is_not_taken_becomes_an_abort(self, clock: Clock) -> None:
        """Ten seconds after QUIT."""
        transport, toy, _ = converse(clock)
        transport.receive(b"QUIT\r\n")
        clock.advance(11)
        assert transport.aborted
        assert toy.happened == ["ended closed"]
        assert not clock.getDelayedCalls()


class TestLoss:
    def test_a_step_that_may_be_cut_is_cancelled(self, clock: Clock) -> None:
        """Its coroutine is ended; then the session, once."""
        transport, toy, _ = converse(clock)
        transport.receive(b"WAIT\r\n")
        transport.lose()
        assert toy.happened == ["step ended", "ended lost"]

    def test_a_step_that_must_not_be_cut_goes_on(self, clock: Clock) -> None:
        """The session ends after it, and nothing is written to nobody."""
        transport, toy, _ = converse(clock)
        transport.receive(b"SAFE\r\nECHO no\r\n")
        transport.lose()
        assert toy.happened == []
        toy.waits[0].callback(b"done")
        assert toy.happened == ["step ended", "ended lost"]

    def test_a_half_closed_client_gets_its_replies(self, clock: Clock) -> None:
        """All that was sent before the end is answered, then the connection is closed."""
        transport, toy, _ = converse(clock)
        transport.receive(b"WAIT\r\nECHO two\r\n")
        transport.protocol.readConnectionLost()  # type: ignore[attr-defined]
        assert not transport.closing
        toy.waits[0].callback(b"one")
        assert transport.take() == b"hello\r\none\r\ntwo\r\n"
        assert transport.closing


class TestTLS:
    def test_tls_starts_behind_its_reply(self, clock: Clock) -> None:
        """The session forgets, the handshake begins, the conversation goes on under it."""
        transport, toy, _ = converse(clock, tls=TLS_CREATOR)
        transport.receive(b"TLS\r\n")
        assert transport.take() == b"hello\r\nready\r\n"
        assert transport.tls is TLS_CREATOR
        transport.finish_handshake()
        transport.receive(b"ECHO on\r\n")
        assert transport.take() == b"on\r\n"
        assert toy.happened == ["tls started", "tls TLSv1.3"]

    def test_octets_behind_the_command_are_not_taken_for_protected_ones(self, clock: Clock) -> None:
        """The client is told off and the connection closed."""
        transport, _toy, _ = converse(clock, tls=TLS_CREATOR)
        transport.receive(b"TLS\r\nECHO injected\r\n")
        assert transport.take() == b"hello\r\ninjected\r\n"
        assert transport.closing
        assert transport.tls is None

    def test_implicit_tls_greets_after_the_handshake(self, clock: Clock) -> None:
        """So that the session knows its TLS from the start."""
        transport, toy, _ = converse(clock, implicit_tls=True)
        assert transport.take() == b""
        transport.finish_handshake()
        assert transport.take() == b"hello\r\n"
        assert toy.happened == ["tls TLSv1.3"]

    def test_a_handshake_that_never_ends_is_cut(self, clock: Clock) -> None:
        """Nobody is waited for without a limit."""
        transport, _, _ = converse(clock, implicit_tls=True)
        for _ in range(40):
            clock.advance(10)
        assert transport.closing


class TestFactory:
    def test_one_too_many_is_turned_away(self, clock: Clock) -> None:
        """With a word, and an event for the operator."""
        events: list[object] = []
        transport, _, factory = converse(clock, Limits(connections_per_host=1), observer=events.append)
        second = factory.buildProtocol(IPv4Address("TCP", "192.0.2.7", 1))
        assert second is not None
        turned_away = FakeTransport(second)
        assert turned_away.take() == b"too many\r\n"
        assert turned_away.closing
        assert events == [ConnectionRefused("192.0.2.7", "toy", "too many connections from this host")]
        transport.lose()
        third = FakeTransport(factory.buildProtocol(IPv4Address("TCP", "192.0.2.7", 2)))  # type: ignore[arg-type]
        assert third.take() == b"hello\r\n"

    def test_listeners_can_count_together(self, clock: Clock) -> None:
        """What one listener took is no longer there for the other."""
        first, second = (toy_factory(clock, Limits(connections=1)) for _ in range(2))
        second.census = first.census
        transport = FakeTransport(first.buildProtocol(None))  # type: ignore[arg-type]
        turned_away = FakeTransport(second.buildProtocol(None))  # type: ignore[arg-type]
        assert turned_away.take() == b"too many\r\n"
        transport.lose()
        assert FakeTransport(second.buildProtocol(None)).take() == b"hello\r\n"  # type: ignore[arg-type]

    def test_one_too_many_under_tls_is_cut_at_once(self, clock: Clock) -> None:
        """A handshake that never comes must not hold a connection that nobody counts."""
        factory = toy_factory(clock, Limits(connections=0), implicit_tls=True)
        turned_away = FakeTransport(factory.buildProtocol(None))  # type: ignore[arg-type]
        assert turned_away.aborted

    def test_draining_ends_idle_sessions_at_once_and_others_at_their_boundary(self, clock: Clock) -> None:
        """Nothing half done, and the drain is over when the last one is gone."""
        factory = toy_factory(clock)
        idle, waiting, content = (FakeTransport(factory.buildProtocol(None)) for _ in range(3))  # type: ignore[arg-type]
        waiting.receive(b"WAIT\r\n")
        content.receive(b"CONTENT 4\r\nab")
        for transport in (idle, waiting, content):
            transport.take()
        over: list[object] = []
        Deferred.fromCoroutine(factory.drain()).addBoth(over.append)
        assert (idle.take(), waiting.take(), content.take()) == (b"going down\r\n", b"", b"")
        factory.sessions[1].waits[0].callback(b"done")
        assert waiting.take() == b"done\r\ngoing down\r\n"
        content.receive(b"cd")
        assert content.take() == b"taken\r\ngoing down\r\n"
        idle.lose()
        waiting.lose()
        assert not over
        content.lose()
        assert over == [None]
        assert not clock.getDelayedCalls()

    def test_draining_does_not_wait_for_ever(self, clock: Clock) -> None:
        """After the limit the rest are cut."""
        transport, toy, factory = converse(clock, Limits(drain_seconds=5))
        transport.receive(b"WAIT\r\n")
        over: list[object] = []
        Deferred.fromCoroutine(factory.drain()).addBoth(over.append)
        clock.advance(6)
        assert over == [None]
        assert toy.happened == ["step ended", "ended draining"]
