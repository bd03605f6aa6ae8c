"""
An application's own functions as a delivery: who is taken at RCPT, and what is done with a message as it arrives.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from mailhost.cred.realm import AvatarFactory
from mailhost.envelope import Client, Envelope, Outcome, Parameters, Path
from mailhost.events import Observer, unobserved
from mailhost.foreign.calls import Calls
from mailhost.interfaces import IDelivery, IStagedMessage, ITransaction
from mailhost.limits import Limits
from mailhost.octets import Undoubler
from mailhost.service.awaiting import called, here

# A sender waits when so much has arrived that nobody has taken.
_HELD_OCTETS = 256 * 1024


class Content:
    """A message's content while it arrives; it can be gone through once."""

    def __init__(self) -> None:
        self._blocks: deque[bytes] = deque()
        self._held = 0
        self._ended = False
        self._forgotten = False
        self._arrival: Deferred[None] | None = None
        self._room: Deferred[None] | None = None

    async def wire(self) -> AsyncIterator[bytes]:
        """Blocks of wire form: CRLF line ends, dots doubled."""
        while True:
            while self._blocks:
                yield self._take()
            if self._ended:
                return
            self._arrival = Deferred()
            await here(self._arrival)

    async def plain(self) -> AsyncIterator[bytes]:
        """Blocks of plain form: CRLF line ends, dots as the author wrote them."""
        undoubler = Undoubler()
        async for block in self.wire():
            yield undoubler.feed(block)

    def _take(self) -> bytes:
        block = self._blocks.popleft()
        self._held -= len(block)
        if self._room is not None and self._held < _HELD_OCTETS:
            room, self._room = self._room, None
            room.callback(None)
        return block

    # -- what the session does

    def _put(self, octets: bytes) -> Deferred[None] | None:
        """As IStagedMessage.write."""
        if self._forgotten:
            return None
        self._blocks.append(octets)
        self._held += len(octets)
        self._wake()
        if self._held < _HELD_OCTETS or self._forgotten:
            return None
        self._room = Deferred()
        return self._room

    def _end(self) -> None:
        """There is no more."""
        self._ended = True
        self._wake()

    def _forget(self) -> None:
        """Nobody takes any more: whatever comes is dropped."""
        self._forgotten = True
        self._blocks.clear()
        room, self._room = self._room, None
        if room is not None:
            room.callback(None)

    def _wake(self) -> None:
        arrival, self._arrival = self._arrival, None
        if arrival is not None and not arrival.called:
            arrival.callback(None)


Receive = Callable[[Envelope, Content], Awaitable[Any]]
"""Called when content begins; the client has its 250 when it has returned.  A Refusal is a reply, anything else a 451."""

Recipient = Callable[[Path], Awaitable[Any]]
"""Called at RCPT: returns, or raises NoSuchMaildrop or another Refusal."""


def delivery_of(
    receive: Receive,
    recipient: Recipient | None = None,
    *,
    reactor: IReactorTime | None = None,
    limits: Limits | None = None,
    observer: Observer = unobserved,
) -> AvatarFactory:
    """
    @param recipient: without it every forward-path is taken.
    @param reactor: for `commit_seconds` of the limits, counted from the end of content: then `receive` is cancelled, and the client told
        to try again.  Without a reactor the session's own limit ends the connection instead.
    """
    limit = None if reactor is None else _Limit(Calls(reactor, observer), (limits or Limits()).commit_seconds)
    delivery = _Delivery(receive, recipient, limit)

    async def avatar(account: bytes | None, client: Client) -> tuple[IDelivery, Callable[[], None]]:
        return delivery, _nothing

    return avatar


class _Limit(NamedTuple):
    """How long a function may take once it has all of the content."""

    calls: Calls
    seconds: float


@implementer(IDelivery)
class _Delivery:
    def __init__(self, receive: Receive, recipient: Recipient | None, limit: _Limit | None) -> None:
        self.receive = receive
        self.recipient = recipient
        self.limit = limit

    async def transaction(self, client: Client, reverse_path: Path, parameters: Parameters) -> ITransaction:
        return _Transaction(self, Envelope(client, reverse_path, parameters, ()))


@implementer(ITransaction)
class _Transaction:
    def __init__(self, delivery: _Delivery, envelope: Envelope) -> None:
        self._delivery = delivery
        self._envelope = envelope

    async def recipient(self, forward_path: Path, parameters: Parameters) -> None:
        if self._delivery.recipient is not None:
            await called(self._delivery.recipient, forward_path)
        before = self._envelope
        self._envelope = before._replace(
            forward_paths=(*before.forward_paths, forward_path),
            forward_parameters=(*before.forward_parameters, parameters),
        )

    async def content(self) -> IStagedMessage:
        return _Incoming(self._envelope, self._delivery.receive, self._delivery.limit)

    def abort(self) -> None:
        """There is nothing to give up."""


@implementer(IStagedMessage)
class _Incoming:
    """A message that the application's function is taking.  Its coroutine runs from the first block to the commit."""

    def __init__(self, envelope: Envelope, receive: Receive, limit: _Limit | None) -> None:
        self._limit = limit
        self.unique_id = f"{time.time_ns() // 1000:014x}{secrets.token_hex(5)}"
        self._content = Content()
        self._received: Deferred[Any] = Deferred.fromCoroutine(_called(receive, envelope, self._content))
        self._received.addBoth(self._over)

    def write(self, octets: bytes) -> Deferred[None] | None:
        return self._content._put(octets)

    async def commit(self) -> Outcome:
        self._content._end()
        if self._limit is None:
            await self._received
        else:
            await self._limit.calls.answer(self._limit.seconds, lambda: self._received)
        return Outcome(self.unique_id)

    def abort(self) -> None:
        """The function sees CancelledError at whatever it waits for."""
        self._received.addErrback(_unless_cancelled)
        self._received.cancel()

    def _over(self, result: Any) -> Any:
        self._content._forget()
        return result


async def _called(receive: Receive, envelope: Envelope, content: Content) -> None:
    await called(receive, envelope, content)


def _unless_cancelled(failure: Failure) -> None:
    # What else it raises is nobody's reply any more; Twisted logs it.
    failure.trap(CancelledError)


def _nothing() -> None:
    pass
