"""
An IMaildrop made of somebody's IMailboxPOP3: mail out for applications that were written for twisted.mail.pop3.

What LIST says must be what is sent, and a mailbox of files says what its files have: with LF line ends that is less.  So each message
is read once when the maildrop is opened, and counted as it will be sent, unless the mailbox's author promises that its sizes are right.
It is read again when it is asked for, into memory or, above 1 MiB, a temporary file, since its size in wire form must be known
before its first octet; one that has changed in between is damaged.  Reading goes on in the reactor's thread, as twisted.mail.pop3 does
it, with a turn for others after each block: a file object made by somebody else need not stand being read in another thread.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from tempfile import SpooledTemporaryFile
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.mail.interfaces import IMailboxPOP3
from zope.interface import implementer

from mailhost.envelope import Totals
from mailhost.events import Observer, unobserved
from mailhost.foreign.calls import Calls
from mailhost.interfaces import IContent, IMaildrop, Listing
from mailhost.limits import Limits
from mailhost.octets import Doubler, LineEnds, Measure
from mailhost.refusal import ContentDamaged, MaildropLost, NoSuchMessage

_BLOCK = 64 * 1024
# What is held in memory of a message that is being sent.
_IN_MEMORY = 1024 * 1024
# Small ones, after which others get their turn.
_MESSAGES_PER_TURN = 20

_UNIQUE_ID = re.compile(rb"[\x21-\x7e]{1,70}")


async def maildrop_from_twisted(
    mailbox: IMailboxPOP3,
    *,
    reactor: IReactorTime,
    limits: Limits | None = None,
    observer: Observer = unobserved,
    sizes_are_exact: bool = False,
) -> IMaildrop:
    """
    Open a mailbox: what it has now is the snapshot.  Nothing can be promised that it does not: two sessions at once, or a crash in
    its `sync`, are its own affair.

    @param limits: `lookup_seconds` bounds each call, `commit_seconds` its `sync`.
    @param sizes_are_exact: `listMessages` counts CRLF line ends, and one at the end; then no message is read at opening.
    @raise TookTooLong: it does not answer.
    """
    maildrop = _Maildrop(mailbox, Calls(reactor, observer), reactor, limits or Limits())
    await maildrop.open(sizes_are_exact)
    return maildrop


class _Message(NamedTuple):
    position: int
    """The mailbox's number for it, 0-based; ours leave out those that it calls deleted."""
    octets: int


@implementer(IMaildrop)
class _Maildrop:
    totals = Totals(0, 0)

    def __init__(self, mailbox: Any, calls: Calls, reactor: IReactorTime, limits: Limits) -> None:
        self._mailbox = mailbox
        self._calls = calls
        self._reactor = reactor
        self._limits = limits
        self._messages: list[_Message] = []
        self._listing: Listing | None = None

    async def open(self, sizes_are_exact: bool) -> None:
        sizes = await self._calls.answer(self._limits.lookup_seconds, self._mailbox.listMessages)
        there = [_Message(index, size) for index, size in enumerate(sizes) if size]  # 0 is a deleted one
        self._messages = there if sizes_are_exact else await self._counted(there)
        self.totals = Totals(len(self._messages), sum(message.octets for message in self._messages))

    async def _counted(self, messages: Iterable[_Message]) -> list[_Message]:
        """The messages with the octets of their plain form, without those that have gone since the mailbox was listed."""
        counted = []
        async for message in self._in_turns(messages):
            measure = Measure()
            try:
                async for block in self._wire_form(message.position):
                    measure.feed(block)
            except NoSuchMessage:
                continue
            counted.append(message._replace(octets=measure.octets))
        return counted

    async def listing(self) -> Listing:
        if self._listing is None:
            unique_ids = [await self._unique_id(message.position) async for message in self._in_turns(self._messages)]
            self._listing = Listing([message.octets for message in self._messages], unique_ids)
        return self._listing

    async def _unique_id(self, index: int) -> str:
        answer = await self._ask(self._mailbox.getUidl, index)
        octets = answer if isinstance(answer, bytes) else str(answer).encode()
        if not _UNIQUE_ID.fullmatch(octets):
            # RFC 1939 7 allows 70 visible characters.  A hash of anything else is as unique and as lasting as that was.
            return hashlib.sha256(octets).hexdigest()
        return octets.decode("ascii")

    async def content(self, number: int) -> IContent:
        message = self._message(number)
        content = _Content()
        async for block in self._wire_form(message.position):
            content.add(block)
        if content.octets != message.octets:
            raise ContentDamaged(cause=f"{content.octets} octets where the mailbox had {message.octets}")
        return content

    async def _wire_form(self, index: int) -> AsyncIterator[bytes]:
        """A message in blocks of wire form.  @raise NoSuchMessage: the mailbox has it no more."""
        file = _opened(await self._ask(self._mailbox.getMessage, index))
        line_ends, doubler = LineEnds(), Doubler()
        since_turn = 0
        try:
            while block := file.read(_BLOCK):
                octets = block if isinstance(block, bytes) else block.encode("utf-8", "surrogateescape")
                yield doubler.feed(line_ends.feed(octets))
                # Short blocks are counted too: a file without an end must leave somebody the time to notice.
                since_turn += max(len(block), _BLOCK // 16)
                if since_turn >= _BLOCK:
                    since_turn = 0
                    await self._turn()
            yield doubler.feed(line_ends.end())
        finally:
            self._calls.safely("mailbox file", getattr(file, "close", _nothing))

    async def update(self, deleted: Collection[int]) -> None:
        messages = [self._message(number) for number in deleted]
        try:
            for message in messages:
                await self._ask(self._mailbox.deleteMessage, message.position)
        except BaseException as error:
            self._calls.safely("undeleteMessages", self._mailbox.undeleteMessages)
            if isinstance(error, NoSuchMessage):
                raise MaildropLost(cause=error) from error
            raise
        await self._calls.answer(self._limits.commit_seconds, self._mailbox.sync)

    async def times(self) -> Sequence[int]:
        """IMailboxPOP3 knows no times."""
        return [0] * len(self._messages)

    async def notes(self) -> bytes:
        return b""

    async def keep_notes(self, notes: bytes) -> None:
        """IMailboxPOP3 has no place for them."""

    def when_wanted(self, ask: Callable[[], None]) -> None:
        """IMailboxPOP3 knows nothing of others who wait."""

    def release(self) -> None:
        """IMailboxPOP3 has nothing to let go of."""

    def _message(self, number: int) -> _Message:
        if not 1 <= number <= len(self._messages):
            raise NoSuchMessage()
        return self._messages[number - 1]

    async def _ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """@raise NoSuchMessage: the mailbox has no such index."""
        try:
            return await self._calls.answer(self._limits.lookup_seconds, function, *arguments)
        except (ValueError, IndexError) as error:
            raise NoSuchMessage(cause=error) from error

    async def _in_turns(self, messages: Iterable[_Message]) -> AsyncIterator[_Message]:
        """A large mailbox does not keep everybody else waiting."""
        for count, message in enumerate(messages, 1):
            yield message
            if count % _MESSAGES_PER_TURN == 0:
                await self._turn()

    def _turn(self) -> Deferred[None]:
        """Fires in the reactor's next turn."""
        return deferLater(self._reactor, 0)


@implementer(IContent)
class _Content:
    """One message in wire form, held until nobody has this object any more."""

    def __init__(self) -> None:
        self._file = SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - closed in __del__
        self._measure = Measure()

    def add(self, block: bytes) -> None:
        self._file.write(block)
        self._measure.feed(block)

    @property
    def octets(self) -> int:
        return self._measure.octets

    @property
    def wire_octets(self) -> int:
        return self._measure.wire_octets

    @property
    def header_octets(self) -> int:
        return self._measure.header_octets

    async def read(self, offset: int, count: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(count)

    def __del__(self) -> None:
        self._file.close()


def _opened(answer: Any) -> Any:
    """What getMessage answered as a file of octets or text; some answer with the message itself."""
    if isinstance(answer, str):
        answer = answer.encode("utf-8", "surrogateescape")
    return io.BytesIO(answer) if isinstance(answer, bytes) else answer


def _nothing() -> None:
    pass
