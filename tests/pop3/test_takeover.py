"""A session that is silent gives its maildrop up to another one that waits for it; any other keeps it."""

from __future__ import annotations

import pytest
from fakes_pop3 import Host, ask, waits

from mailhost.events import SessionEnded
from mailhost.limits import Limits
from mailhost.pop3 import replies

MESSAGE = b"Subject: one\r\n\r\nbody\r\n"


def let_pass(host: Host, seconds: float) -> None:
    """As a reactor would: one second after another."""
    for _ in range(int(seconds)):
        host.clock.advance(1)


class TestTakeover:
    def test_after_a_minute_of_silence(self) -> None:
        """The maildrop is let go at once, the client is told, nothing is removed, and what the client says then is not done."""
        host = Host([MESSAGE])
        transport = host.logged_in()
        ask(transport, b"DELE 1\r\n")
        let_pass(host, 60)
        host.maildrop.ask()
        assert host.maildrop.happened == ["release", "log out"]
        assert transport.take() == replies.TAKEN_OVER.octets
        assert transport.closing
        assert ask(transport, b"QUIT\r\n") == b""
        transport.lose()
        assert [event.why for event in host.happened(SessionEnded)] == ["taken over"]
        assert host.maildrop.happened == ["release", "log out"]

    @pytest.mark.parametrize("seconds", [0, 1, 59])
    def test_not_before(self, seconds: int) -> None:
        """A session that has said something within the minute is not disturbed."""
        host = Host([MESSAGE])
        transport = host.logged_in()
        let_pass(host, 100)
        ask(transport, b"NOOP\r\n")
        let_pass(host, seconds)
        host.maildrop.ask()
        assert transport.take() == b""
        assert ask(transport, b"STAT\r\n") == b"+OK 1 22\r\n"

    def test_as_configured(self) -> None:
        """`takeover_seconds` says how long."""
        host = Host([MESSAGE], limits=Limits(takeover_seconds=10))
        transport = host.logged_in()
        let_pass(host, 10)
        host.maildrop.ask()
        assert transport.closing

    def test_not_while_a_command_is_in_hand(self) -> None:
        """Whoever waits for us is not silent, however long it takes."""
        host = Host([MESSAGE], limits=Limits(takeover_seconds=10))
        transport = host.logged_in()
        late, host.maildrop.on_content = waits()
        ask(transport, b"RETR 1\r\n")
        let_pass(host, 30)
        host.maildrop.ask()
        assert not transport.closing
        late.callback(None)
        assert transport.take().endswith(b"\r\n.\r\n")

    def test_not_while_quit_removes(self) -> None:
        """A QUIT that removes is never let go of."""
        host = Host([MESSAGE], limits=Limits(takeover_seconds=10))
        transport = host.logged_in()
        late, host.maildrop.on_update = waits()
        ask(transport, b"DELE 1\r\nQUIT\r\n")
        let_pass(host, 30)
        host.maildrop.ask()
        assert host.maildrop.happened == [("update", (1,))]
        late.callback(None)
        assert host.maildrop.happened == [("update", (1,)), "updated", "release", "log out"]
        assert transport.take() == b"+OK goodbye\r\n"

    def test_a_reply_that_is_still_being_taken(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A client that takes octets, however slowly, is not silent; one that has stopped for a minute is."""
        on_the_way = 1_000_000
        monkeypatch.setattr("mailhost.wire.conversation.unacknowledged", lambda transport: on_the_way)
        host = Host([MESSAGE])
        transport = host.logged_in()
        ask(transport, b"RETR 1\r\n")
        for _ in range(200):
            host.clock.advance(1)
            on_the_way -= 100
        host.maildrop.ask()
        assert not transport.closing
        let_pass(host, 80)
        host.maildrop.ask()
        assert transport.closing

    def test_after_the_connection_was_lost(self) -> None:
        """A session that has ended lets go once."""
        host = Host([MESSAGE])
        transport = host.logged_in()
        let_pass(host, 100)
        transport.lose()
        host.maildrop.ask()
        assert host.maildrop.happened == ["release", "log out"]
