"""
Any message, written by SMTP and read by RETR and TOP, whatever the blocks: nothing is changed.

Both conversations are the real ones, over fake transports and a spool in memory.  What must come out is worked out the plain way,
line by line.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import implementer

from mailhost.delivery.address_book import AddressBook
from mailhost.delivery.avatar import SpoolDelivery
from mailhost.envelope import Client
from mailhost.interfaces import ILoggedIn, ILogin, IMaildrop
from mailhost.limits import Limits
from mailhost.pop3 import session
from mailhost.pop3.factory import POP3Factory
from mailhost.smtp.factory import SMTPFactory
from mailhost.spool.memory import MemorySpool
from mailhost.testing.transport import FakeTransport

ANN = "ann@example.test"
MESSAGES_PER_SESSION = 20
EXAMPLES = 200
CASES = 1_000_000

# Pieces of which anything can be made that a line scanner may trip over; SMTP takes no bare CR or LF.
PIECES = [
    b"\r\n", b"\r\n", b"\r\n.", b"\r\n..", b"\r\n\r\n", b".", b"..", b"a", b":", b" ", b"\0", b"\xff", b"\x85", b"x" * 70, b"A: b\r\n"
]  # fmt: skip


@implementer(ILoggedIn)
class LoggedIn:
    account = ANN.encode()

    def __init__(self, avatar: Any) -> None:
        self.avatar = avatar

    def log_out(self) -> None:
        pass


@implementer(ILogin)
class Login:
    """Everybody is ann."""

    def __init__(self, avatar: Callable[[], Any]) -> None:
        self._avatar = avatar

    def mechanisms(self, protected: bool) -> Sequence[bytes]:
        return (b"PLAIN",)

    async def log_in(self, credentials: Any, client: Client) -> ILoggedIn:
        avatar = self._avatar()
        return LoggedIn(await avatar if hasattr(avatar, "__await__") else avatar)


class Accounts:
    async def has_account(self, address: str) -> bool:
        return True


class Mail:
    """A host in memory: what is delivered to it can be fetched from it."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.spool = MemorySpool(reactor=self.clock)
        Deferred.fromCoroutine(self.spool.start())
        book = AddressBook(["example.test"], Accounts(), hostname="mx.example.test")
        delivery = SpoolDelivery(self.spool, book, hostname="mx.example.test", account=None, clock=self.clock)
        common: dict[str, Any] = {"hostname": "mx.example.test", "clock": self.clock, "limits": Limits(errors=10**9)}
        self._smtp = SMTPFactory(login=Login(lambda: delivery), **common)
        self._pop3 = POP3Factory(login=Login(self._maildrop), plaintext_login=True, **common)

    async def _maildrop(self) -> IMaildrop:
        return await self.spool.open_maildrop(ANN, 0)

    def sender(self) -> FakeTransport:
        transport = self._connect(self._smtp)
        say(transport, b"EHLO client.example\r\n")
        return transport

    def reader(self) -> FakeTransport:
        transport = self._connect(self._pop3)
        assert say(transport, b"USER ann\r\nPASS x\r\n").count(b"+OK") == 2
        return transport

    def _connect(self, factory: Any) -> FakeTransport:
        transport = FakeTransport(factory.buildProtocol(None))
        transport.take()
        return transport


def say(transport: FakeTransport, octets: bytes) -> bytes:
    transport.receive(octets)
    return transport.take()


def send(transport: FakeTransport, plain: bytes, block_octets: int) -> None:
    """As any client does: dots doubled, cut anywhere, the end of one block the beginning of another."""
    commands = b"MAIL FROM:<a@far.example>\r\nRCPT TO:<ann@example.test>\r\nDATA\r\n"
    assert b"354" in say(transport, commands)
    stream = stuffed(plain) + b".\r\n"
    for start in range(0, len(stream), block_octets):
        transport.receive(stream[start : start + block_octets])
    assert transport.take().startswith(b"250 ")


def stuffed(plain: bytes) -> bytes:
    return b"".join(b"." + line if line.startswith(b".") else line for line in lines_of(plain))


def lines_of(plain: bytes) -> list[bytes]:
    return [line + b"\r\n" for line in plain.split(b"\r\n")[:-1]]


def top_of(plain: bytes, count: int) -> bytes:
    lines = lines_of(plain)
    header = lines.index(b"\r\n") + 1 if b"\r\n" in lines else len(lines)
    return b"".join(lines[: header + count])


def check(transport: FakeTransport, number: int, sent: bytes, lines: int) -> None:
    first, _, rest = say(transport, b"RETR %d\r\n" % number).partition(b"\r\n")
    assert rest.endswith(b"\r\n.\r\n")
    wire = rest.removesuffix(b".\r\n")
    plain = b"".join(line[1:] if line.startswith(b".") else line for line in lines_of(wire))
    assert stuffed(plain) == wire
    assert plain.startswith(b"Return-Path: <a@far.example>\r\nDelivered-To: ")
    assert plain.endswith(sent)
    assert plain[: len(plain) - len(sent)].endswith(b" +0000\r\n"), (
        "nothing stands between the trace fields and what was sent"
    )
    assert first == b"+OK %d octets" % len(plain)
    assert say(transport, b"LIST %d\r\n" % number) == b"+OK %d %d\r\n" % (number, len(plain))
    top = say(transport, b"TOP %d %d\r\n" % (number, lines))
    assert top == b"+OK top of message follows\r\n" + stuffed(top_of(plain, lines)) + b".\r\n"


def round_trip(mail: Mail, contents: Sequence[bytes], write_octets: int, read_octets: int, lines: int) -> None:
    sender = mail.sender()
    for content in contents:
        send(sender, content, write_octets)
    say(sender, b"QUIT\r\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "BLOCK_OCTETS", read_octets)
        reader = mail.reader()
        for number, content in enumerate(contents, 1):
            check(reader, number, content, lines)
            assert say(reader, b"DELE %d\r\n" % number).startswith(b"+OK")
        assert say(reader, b"QUIT\r\n") == b"+OK goodbye\r\n"


def ended(pieces: Sequence[bytes]) -> bytes:
    """What clients do: a last line without an end gets one."""
    content = b"".join(pieces)
    return content if content.endswith(b"\r\n") or not content else content + b"\r\n"


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.lists(st.sampled_from(PIECES), max_size=40).map(ended),
    st.integers(1, 50),
    st.integers(1, 50),
    st.integers(0, 12),
)
def test_any_message(content: bytes, write_octets: int, read_octets: int, lines: int) -> None:
    """However it is cut on its way in and out."""
    round_trip(Mail(), [content], write_octets, read_octets, lines)


def many(cases: int, seed: int) -> None:
    chance = random.Random(seed)
    mail = Mail()
    for _ in range(0, cases, MESSAGES_PER_SESSION):
        contents = [
            ended(chance.choices(PIECES, k=chance.choice((0, 1, 2, 3, 5, 8, 13, 30))))
            for _ in range(MESSAGES_PER_SESSION)
        ]
        round_trip(mail, contents, *(chance.choice((1, 2, 3, 5, 7, 64, 4096)) for _ in range(2)), chance.randrange(9))


def test_many_messages_in_one_maildrop() -> None:
    """The same with many at a time."""
    many(200, seed=1)


@pytest.mark.long
def test_a_million_messages() -> None:
    """The same, a million times."""
    many(CASES, seed=2)
