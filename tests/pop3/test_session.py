"""The conversation: states, marks, the end, and everything that can come late, never or wrong."""

from __future__ import annotations

from fakes_pop3 import Host, ask

ONE = b"Subject: one\r\n\r\nfirst\r\n"
TWO = b"Subject: two\r\n\r\n..dot\r\nlast\r\n"


class TestTransaction:
    def test_a_whole_visit(self) -> None:
        """Look, fetch, mark, leave: what is fetched is what is stored, to the octet."""
        host = Host([ONE, TWO])
        transport = host.logged_in()
        assert ask(transport, b"STAT\r\n") == b"+OK 2 %d\r\n" % (len(ONE) + len(TWO) - 1)
        assert ask(transport, b"RETR 2\r\n") == b"+OK %d octets\r\n%s.\r\n" % (len(TWO) - 1, TWO)
        assert ask(transport, b"DELE 1\r\n").startswith(b"+OK")
        assert ask(transport, b"QUIT\r\n").startswith(b"+OK")
        assert transport.closing
        assert host.maildrop.happened == [("update", (1,)), "updated", "release", "log out"]
