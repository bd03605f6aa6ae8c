"""
A spool that keeps its messages in memory: for tests, and for applications that want no files.

It keeps every promise of `ISpool` but durability: what it holds lives as long as the object, also across `stop` and `start`.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from mailhost.envelope import Copy, Envelope, Outcome, Totals
from mailhost.events import Notice, Observer, unobserved
from mailhost.interfaces import IContent, IMaildrop, ISpool, IStagedMessage, Listing
from mailhost.octets import Measure
from mailhost.refusal import MaildropInUse, MaildropLost, NoSuchMaildrop, NoSuchMessage, SpoolUnavailable

# The last part of a waiting, in which the holder is asked.
_ASKING_SECONDS = 2.0


@implementer(ISpool)
class MemorySpool:
    """See the module."""

    def __init__(self, *, reactor: IReactorTime | None = None, observer: Observer = unobserved) -> None:
        """
        @param reactor: for the waiting in `open_maildrop` only; without one it never waits.
        """
        self._reactor = reactor
        self._observer = observer
        self._drops: dict[str, _Drop] = {}
        self._next_unique_id = _unique_ids()
        # What was begun before a stop is refused after it, also when the spool runs again.
        self._running: object | None = None

    async def start(self) -> None:
        if self._running is None:
            self._running = object()

    async def stop(self) -> None:
        self._running = None
        for drop in self._drops.values():
            drop.close(SpoolUnavailable("stopping"))

    async def stage(self, envelope: Envelope, copies: Sequence[Copy]) -> IStagedMessage:
        self._check_running()
        fields: dict[str, bytes] = {}
        for copy in copies:
            fields.setdefault(copy.maildrop, copy.fields)
        places = [(self._drop(name), own) for name, own in fields.items()]
        running = self._running
        return _Staged(self._next_unique_id(), places, lambda: self._running is running)

    async def open_maildrop(self, name: str, wait_seconds: float) -> IMaildrop:
        self._check_running()
        drop = self._drop(name)
        if drop.holder is not None:
            await self._turn(drop, wait_seconds)
        drop.holder = maildrop = _Maildrop(drop)
        return maildrop

    async def create(self, name: str) -> None:
        self._check_running()
        self._drop(name)

    async def exists(self, name: str) -> bool:
        self._check_running()
        return name in self._drops

    async def totals(self, name: str) -> Totals:
        self._check_running()
        drop = self._drops.get(name)
        return Totals(len(drop.messages), drop.octets) if drop is not None else Totals(0, 0)

    async def rename(self, old: str, new: str) -> None:
        self._check_running()
        drop = self._drops.get(old)
        if drop is None:
            raise NoSuchMaildrop
        if drop.holder is not None or new in self._drops:
            raise MaildropInUse
        self._drops[new] = self._drops.pop(old)

    async def remove(self, name: str) -> None:
        self._check_running()
        drop = self._drops.pop(name, None)
        if drop is not None:
            drop.removed = True
            drop.close(MaildropLost("removed"))

    async def maildrops(self) -> AsyncIterator[str]:
        self._check_running()
        for name in list(self._drops):
            yield name

    def _check_running(self) -> None:
        if self._running is None:
            raise SpoolUnavailable("not started")

    def _drop(self, name: str) -> _Drop:
        drop = self._drops.get(name)
        if drop is None:
            drop = self._drops[name] = _Drop()
            self._observer(Notice(f"maildrop made: {name}"))
        return drop

    async def _turn(self, drop: _Drop, wait_seconds: float) -> None:
        """Wait until the holder has released `drop`; it is ours when this returns."""
        if self._reactor is None or wait_seconds <= 0:
            raise MaildropInUse
        turn: Deferred[None] = Deferred()
        drop.waiting.append(turn)
        asking = self._reactor.callLater(max(0, wait_seconds - _ASKING_SECONDS), drop.ask)
        timer = self._reactor.callLater(wait_seconds, turn.errback, MaildropInUse())
        try:
            await turn
        finally:
            # However the waiting ended: cancelled, closed, refused or granted.
            for call in (asking, timer):
                if call.active():
                    call.cancel()
            if turn in drop.waiting:
                drop.waiting.remove(turn)


def _unique_ids() -> Callable[[], str]:
    """Makes unique-ids that sort by their time, as the log's do: microseconds in 14 hexadecimal digits, then a random suffix."""
    suffix = secrets.token_hex(5)
    last = 0

    def next_unique_id() -> str:
        nonlocal last
        last = max(time.time_ns() // 1000, last + 1)
        return f"{last:014x}{suffix}"

    return next_unique_id


def _time_of(unique_id: str) -> int:
    return int(unique_id[:14], 16)


class _Message(NamedTuple):
    """One message as one maildrop sees it; `content` is shared by all of them."""

    unique_id: str
    fields: bytes
    content: bytes
    octets: int
    header_octets: int


class _Drop:
    """One maildrop, whatever its name is now."""

    def __init__(self) -> None:
        # Only ever appended to: a snapshot is this list and a length.  A deletion makes a new list.
        self.messages: list[_Message] = []
        self.octets = 0
        self.notes = b""
        self.removed = False
        self.holder: _Maildrop | object | None = None
        self.waiting: deque[Deferred[None]] = deque()

    def add(self, message: _Message) -> None:
        self.messages.append(message)
        self.octets += message.octets

    def delete(self, unique_ids: Collection[str]) -> None:
        self.messages = [message for message in self.messages if message.unique_id not in unique_ids]
        self.octets = sum(message.octets for message in self.messages)

    def release(self, holder: _Maildrop) -> None:
        """Hand over to the one that has waited longest; nothing if `holder` is not the holder any more."""
        if self.holder is not holder:
            return
        self.holder = None
        if self.waiting:
            # Taken here, not when the waiter runs: nobody may come between.
            self.holder = turn = self.waiting.popleft()
            turn.callback(None)

    def ask(self) -> None:
        """Somebody has waited nearly in vain."""
        if isinstance(self.holder, _Maildrop):
            self.holder.wanted()

    def close(self, refusal: Exception) -> None:
        """Nobody holds it any more, and whoever waits is refused."""
        self.holder = None
        while self.waiting:
            self.waiting.popleft().errback(refusal)


@implementer(IStagedMessage)
class _Staged:
    def __init__(
        self, unique_id: str, places: Iterable[tuple[_Drop, bytes]], still_running: Callable[[], bool]
    ) -> None:
        self.unique_id = unique_id
        self._places = places
        self._still_running = still_running
        self._blocks: list[bytes] = []
        self._measure = Measure()

    def write(self, octets: bytes) -> None:
        self._blocks.append(octets)
        self._measure.feed(octets)

    async def commit(self) -> Outcome:
        content = b"".join(self._blocks)
        self._blocks.clear()
        if not self._still_running():
            raise SpoolUnavailable("stopped")
        if any(drop.removed for drop, _ in self._places):
            raise SpoolUnavailable("a maildrop was removed meanwhile")
        for drop, fields in self._places:
            octets = len(fields) + self._measure.octets
            header_octets = len(fields) + self._measure.header_octets
            drop.add(_Message(self.unique_id, fields, content, octets, header_octets))
        return Outcome(self.unique_id)

    def abort(self) -> None:
        self._blocks.clear()


@implementer(IMaildrop)
class _Maildrop:
    def __init__(self, drop: _Drop) -> None:
        self._drop = drop
        self._messages = drop.messages
        self._listing: Listing | None = None
        self.totals = Totals(len(drop.messages), drop.octets)
        self.wanted: Callable[[], None] = lambda: None

    async def listing(self) -> Listing:
        if self._listing is None:
            messages = self._messages[: self.totals.messages]
            self._listing = Listing(
                [message.octets for message in messages],
                [message.unique_id for message in messages],
            )
        return self._listing

    async def content(self, number: int) -> IContent:
        return _Content(self._message(number))

    async def update(self, deleted: Collection[int]) -> None:
        unique_ids = {self._message(number).unique_id for number in deleted}
        if self._drop.holder is not self:
            raise MaildropLost
        if unique_ids:
            self._drop.delete(unique_ids)

    async def times(self) -> Sequence[int]:
        return [_time_of(message.unique_id) for message in self._messages[: self.totals.messages]]

    async def notes(self) -> bytes:
        return self._drop.notes

    async def keep_notes(self, notes: bytes) -> None:
        if self._drop.holder is not self:
            raise MaildropLost
        self._drop.notes = notes

    def when_wanted(self, ask: Callable[[], None]) -> None:
        self.wanted = ask

    def release(self) -> None:
        self._drop.release(self)

    def _message(self, number: int) -> _Message:
        if not 1 <= number <= self.totals.messages:
            raise NoSuchMessage
        return self._messages[number - 1]


@implementer(IContent)
class _Content:
    def __init__(self, message: _Message) -> None:
        self._fields = message.fields
        self._content = message.content
        self.octets = message.octets
        self.wire_octets = len(message.fields) + len(message.content)
        self.header_octets = message.header_octets

    async def read(self, offset: int, count: int) -> bytes:
        own = len(self._fields)
        end = offset + count
        return self._fields[offset:end] + self._content[max(0, offset - own) : max(0, end - own)]
