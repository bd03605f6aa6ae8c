"""Any visit at all, against a maildrop so simple that it must be right."""

from __future__ import annotations

from fakes_pop3 import Host
from hypothesis import given, settings
from hypothesis import strategies as st

CRLF = b"\r\n"

MESSAGES = [
    b"Subject: one\r\n\r\nfirst\r\n",
    b"Subject: two\r\n\r\n..\r\n..a\r\n\r\n..\r\n",
    b"\r\nno header\r\n",
    b"no: body\r\n",
]


class Model:
    """RFC 1939 5 to 7, one line at a time."""

    def __init__(self) -> None:
        self.plain = [[line[1:] if line[:1] == b"." else line for line in wire.split(CRLF)[:-1]] for wire in MESSAGES]
        self.octets = [sum(len(line) + 2 for line in lines) for lines in self.plain]
        self.marked: set[int] = set()

    def answer(self, command: bytes) -> bytes:
        keyword, *numbers = command.split()
        if numbers and not self.there(int(numbers[0])):
            return b"-ERR no such message\r\n"
        answer: bytes = getattr(self, keyword.decode().lower())(*map(int, numbers))
        return answer

    def there(self, number: int) -> bool:
        return 1 <= number <= len(MESSAGES) and number not in self.marked

    def left(self) -> list[int]:
        return [number for number in range(1, len(MESSAGES) + 1) if self.there(number)]

    def noop(self) -> bytes:
        return b"+OK done\r\n"

    def stat(self) -> bytes:
        left = self.left()
        return b"+OK %d %d\r\n" % (len(left), sum(self.octets[number - 1] for number in left))

    def list(self, number: int | None = None) -> bytes:
        if number is not None:
            return b"+OK %d %d\r\n" % (number, self.octets[number - 1])
        left = self.left()
        lines = [b"%d %d" % (number, self.octets[number - 1]) for number in left]
        return CRLF.join([b"+OK %d messages" % len(left), *lines, b".", b""])

    def uidl(self, number: int | None = None) -> bytes:
        if number is None:
            lines = [b"%d uid%d" % (number, number) for number in self.left()]
            return CRLF.join([b"+OK unique-ids follow", *lines, b".", b""])
        return b"+OK %d uid%d\r\n" % (number, number)

    def retr(self, number: int) -> bytes:
        return self.lines(b"+OK %d octets" % self.octets[number - 1], self.plain[number - 1])

    def top(self, number: int, count: int) -> bytes:
        lines = self.plain[number - 1]
        header = lines.index(b"") + 1 if b"" in lines else len(lines)
        return self.lines(b"+OK top of message follows", lines[: header + count])

    def lines(self, first: bytes, lines: list[bytes]) -> bytes:
        doubled = [b"." + line if line[:1] == b"." else line for line in lines]
        return CRLF.join([first, *doubled, b".", b""])

    def dele(self, number: int) -> bytes:
        self.marked.add(number)
        return b"+OK marked as deleted\r\n"

    def rset(self) -> bytes:
        self.marked.clear()
        return b"+OK no message is marked as deleted\r\n"


numbers = st.integers(0, len(MESSAGES) + 1).map(lambda number: b" %d" % number)
commands = st.one_of(
    st.sampled_from([b"NOOP", b"STAT", b"LIST", b"UIDL", b"RSET"]),
    st.tuples(st.sampled_from([b"LIST", b"UIDL", b"RETR", b"DELE"]), numbers).map(b"".join),
    st.tuples(st.just(b"TOP"), numbers, numbers).map(b"".join),
)


class TestAnyVisit:
    @settings(max_examples=150, deadline=None)
    @given(visit=st.lists(commands, max_size=30), block=st.integers(1, 200))
    def test_every_reply_is_right(self, visit: list[bytes], block: int) -> None:
        """Whatever is asked in whatever order, in blocks cut anywhere; and QUIT removes just what is marked."""
        host, model = Host(MESSAGES), Model()
        transport = host.logged_in()
        said = b"".join(command + CRLF for command in visit)
        for start in range(0, len(said), block):
            transport.receive(said[start : start + block])
        assert transport.take() == b"".join(model.answer(command) for command in visit)
        transport.receive(b"QUIT\r\n")
        update = [("update", tuple(sorted(model.marked))), "updated"] if model.marked else []
        assert host.maildrop.happened == [*update, "release", "log out"]


class TestAnyOctets:
    @settings(max_examples=150, deadline=None)
    @given(
        lines=st.lists(st.binary(max_size=40).filter(lambda line: b"\n" not in line), max_size=20), inside=st.booleans()
    )
    def test_every_line_has_one_answer_and_nothing_breaks(self, lines: list[bytes], inside: bool) -> None:
        """Octets that mean nothing are a mistake each, before and after the login; no bug, nothing marked."""
        host = Host(MESSAGES)
        transport = host.logged_in() if inside else host.connect()
        for line in lines:
            transport.receive(line + CRLF)
            said = transport.take()
            if said.endswith(b"-ERR too many errors\r\n"):
                assert transport.closing
                break
            assert said.startswith((b"+OK", b"-ERR ")), (line, said)
            assert said.endswith(CRLF)
        transport.lose()
        assert host.maildrop.happened == (["release", "log out"] if inside else [])
        assert len(host.events) == 1
