"""What a submitted message lacks is put in front of it, and nothing else about it is touched."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailhost.delivery.avatar import SpoolDelivery
from mailhost.delivery.submission import CompletedMessage
from mailhost.envelope import NO_PARAMETERS, Client, Outcome, Path
from mailhost.interfaces import IAddressBook, IStagedMessage, LocalMaildrop
from mailhost.refusal import MessageTooLarge
from mailhost.spool.memory import MemorySpool

DATE = b"Date: Sat, 21 Nov 2026 23:00:00 +0000\r\n"
MESSAGE_ID = b"Message-ID: <id1@mx.example.test>\r\n"


@implementer(IStagedMessage)
class Staged:
    """Keeps what is written; asks for a pause when it was told to."""

    def __init__(self, unique_id: str = "id1") -> None:
        self.unique_id = unique_id
        self.content = b""
        self.ends: list[str] = []
        self.room: Deferred[None] | None = None

    def write(self, octets: bytes) -> Deferred[None] | None:
        assert not self.ends, "written after its end"
        self.content += octets
        return self.room

    async def commit(self) -> Outcome:
        self.ends.append("commit")
        return Outcome(self.unique_id)

    def abort(self) -> None:
        self.ends.append("abort")


def completed(staged: Staged, header_octets: int = 1000) -> CompletedMessage:
    return CompletedMessage(
        staged, date="Sat, 21 Nov 2026 23:00:00 +0000", hostname="mx.example.test", header_octets=header_octets
    )


def sent(*blocks: bytes, header_octets: int = 1000) -> bytes:
    """What reaches the spool of a message in these blocks."""
    staged = Staged()
    message = completed(staged, header_octets)
    for block in blocks:
        assert message.write(block) is None
    drive(message.commit())
    assert staged.ends == ["commit"]
    return staged.content


def drive(coroutine):
    """Run a coroutine that must not wait."""
    with pytest.raises(StopIteration) as done:
        coroutine.send(None)
    return done.value.value


LACKING = [
    (b"Subject: x\r\n\r\nbody\r\n", DATE + MESSAGE_ID),
    (b"Date: then\r\nMessage-ID: <a@b>\r\n\r\nbody\r\n", b""),
    (b"DATE:then\r\nmessage-id :\r\n <a@b>\r\n\r\n", b""),
    (b"Subject: x\r\nDate: then\r\n\r\nMessage-ID: in the body\r\n", MESSAGE_ID),
    (b"Message-Id: <a@b>\r\n\r\nDate: in the body\r\n", DATE),
    (b"X-Date: x\r\nResent-Date: x\r\nSubject: Date: x\r\n date: folded\r\n\r\n", DATE + MESSAGE_ID),
    # No empty line: all is header section.
    (b"Subject: x\r\nDate: then\r\n", MESSAGE_ID),
    # No header section, as a shell's `echo` makes it.
    (b"", DATE + MESSAGE_ID),
    (b"\r\nDate: in the body\r\n", DATE + MESSAGE_ID),
    (b"hello\r\nDate: in the body\r\n\r\n", DATE + MESSAGE_ID),
    (b"Subject: x\r\nno field\r\nMessage-ID: behind it\r\n\r\n", DATE + MESSAGE_ID),
    (b"..\r\n", DATE + MESSAGE_ID),
]


@pytest.mark.parametrize(("octets", "fields"), LACKING)
def test_every_split(octets: bytes, fields: bytes) -> None:
    """Fields in any case and form are seen, where they count as fields; the rest comes behind, octet for octet."""
    assert sent(octets) == fields + octets
    for cut in range(len(octets) + 1):
        assert sent(octets[:cut], octets[cut:]) == fields + octets
    assert sent(*(bytes([octet]) for octet in octets)) == fields + octets


WORDS = st.sampled_from([b"\r\n", b"Date:", b"date :", b"Message-ID:", b" ", b"X", b"-", b":", b"\xfc", b"."])


@settings(max_examples=200, deadline=None)
@given(st.lists(WORDS, max_size=30).map(b"".join), st.integers(1, 9))
def test_as_by_the_book(octets: bytes, size: int) -> None:
    """The same as reading line by line up to the first that is no field and continues none."""
    octets += b"\r\n"
    names = set()
    for line in octets.split(b"\r\n"):
        if line[:1] in (b" ", b"\t"):
            continue
        name, colon, _ = line.partition(b":")
        if not colon or not re.fullmatch(rb"[!-9;-~]+[ \t]*", name):
            break
        names.add(name.strip().lower())
    fields = (b"" if b"date" in names else DATE) + (b"" if b"message-id" in names else MESSAGE_ID)
    assert sent(*(octets[start : start + size] for start in range(0, len(octets), size))) == fields + octets


def test_body_goes_straight_through() -> None:
    """Once the header section is over nothing is held."""
    staged = Staged()
    message = completed(staged)
    message.write(b"Subject: x\r\n\r")
    assert staged.content == b""
    message.write(b"\nbody")
    assert staged.content.endswith(b"\r\n\r\nbody")
    staged.room = Deferred()
    assert message.write(b"more") is staged.room


def test_waits_for_room() -> None:
    """What the header section's own write asks for is handed on, also when it is the commit that writes it."""
    staged = Staged()
    staged.room = Deferred()
    assert completed(staged).write(b"\r\n") is staged.room
    staged = Staged()
    staged.room = Deferred()
    message = completed(staged)
    assert message.write(b"Subject: x\r\n") is None
    committed = Deferred.fromCoroutine(message.commit())
    assert not committed.called
    staged.room.callback(None)
    assert committed.called
    assert staged.ends == ["commit"]


def test_section_without_end() -> None:
    """It is refused, no more of it is held than the limit and one block, and what was staged is let go of once."""
    staged = Staged()
    message = completed(staged, header_octets=1000)
    for _ in range(100):
        assert message.write(b"X: y\r\n" * 20) is None
        assert len(message._held) <= 1000 + 120
    message.write(b"\r\nbody\r\n")
    assert not message._held
    with pytest.raises(MessageTooLarge, match="1000"):
        message.commit().send(None)
    assert staged.ends == ["abort"]
    assert staged.content == b""


def test_section_as_long_as_it_may_be() -> None:
    """The limit itself is fine, and a body is no part of the section."""
    section = b"Date: x\r\nMessage-ID: y\r\n\r\n"
    assert sent(section, b"x" * 5000, header_octets=len(section)) == section + b"x" * 5000


def test_abort() -> None:
    """Nothing of what was held goes anywhere."""
    staged = Staged()
    message = completed(staged)
    message.write(b"Subject: x\r\n")
    message.abort()
    assert (staged.content, staged.ends) == (b"", ["abort"])


def test_any_unique_id() -> None:
    """Some spools' unique-ids hold what a Message-ID cannot."""
    staged = Staged("17.M5,S=2:a>@b")
    verifyObject(IStagedMessage, completed(staged))
    completed(staged).write(b"\r\n")
    assert b"Message-ID: <17-M5-S=2-a--b@mx.example.test>\r\n" in staged.content


@implementer(IAddressBook)
class Everybody:
    async def resolve(self, forward_path):
        return [LocalMaildrop("bob@example.test")]

    def maildrop_of(self, account):
        raise NotImplementedError

    async def may_send_as(self, account, reverse_path):
        return True


@pytest.mark.parametrize(("protocol", "fields"), [("submission", 1), ("smtp", 0), ("lmtp", 0)])
def test_on_submission_listeners_only(protocol: str, fields: int) -> None:
    """Elsewhere a message is taken as it is; the fields follow our own Received and carry the message's id."""
    spool, clock = MemorySpool(), Clock()
    drive(spool.start())
    client = Client("s1", "192.0.2.7", 4711, "in", protocol, helo="c", extended=True, account=b"ann@example.test")
    delivery = SpoolDelivery(spool, Everybody(), hostname="mx.example.test", account=b"ann@example.test", clock=clock)
    transaction = drive(delivery.transaction(client, Path("ann", "example.test"), NO_PARAMETERS))
    drive(transaction.recipient(Path("bob", "example.test"), NO_PARAMETERS))
    staged = drive(transaction.content())
    staged.write(b"Subject: x\r\n\r\nbody\r\n")
    outcome = drive(staged.commit())
    content = drive(drive(spool.open_maildrop("bob@example.test", 0)).content(1))
    message = drive(content.read(0, content.wire_octets))
    own = re.search(rb"\r\nDate: [^\r]+1970[^\r]+\r\nMessage-ID: <(.+)@mx.example.test>\r\nSubject: x\r\n", message)
    assert message.count(b"Date: ") == message.count(b"Message-ID: ") == fields == (own is not None)
    assert own is None or own[1].decode() == outcome.unique_id
    assert message.endswith(b"Subject: x\r\n\r\nbody\r\n")
