"""
An application's own objects as a maildrop: `Messages` says what there is, and lock, snapshot, DELE and TOP come with it.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import IO, Any

from twisted.internet.defer import Deferred, DeferredLock, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.mail.interfaces import IMailboxPOP3
from zope.interface import implementer

from mailhost.cred.realm import AvatarFactory
from mailhost.envelope import Client
from mailhost.events import Observer
from mailhost.foreign.maildrop import maildrop_from_twisted
from mailhost.interfaces import IMaildrop
from mailhost.limits import Limits
from mailhost.refusal import LoginForbidden, MaildropInUse
from mailhost.service.awaiting import called


class Messages:
    """
    One account's messages, for POP3.  Made at login, when `listing` is asked for once; that is the session's snapshot.

    One session of an account has them at a time, in this process; a second one waits a little, then hears `[IN-USE]`.
    """

    def __init__(self, account: bytes) -> None:
        """@param account: the avatar id."""
        self.account = account

    async def listing(self) -> Sequence[tuple[str, int | None]]:
        """
        What there is, in the order of message-numbers: unique-id, and octets with CRLF line ends.

        With None for the octets of any of them all are read at login, to count them.
        """
        raise NotImplementedError

    async def content(self, unique_id: str) -> bytes | IO[bytes]:
        """A message, whole; with LF or CRLF line ends."""
        raise NotImplementedError

    async def remove(self, unique_ids: Sequence[str]) -> None:
        """Once, at QUIT: all of them or, by raising, none.  The client has its +OK when this has returned."""
        raise NotImplementedError


def maildrops_of(
    make: Callable[[bytes], Messages], *, reactor: IReactorTime, limits: Limits, observer: Observer
) -> AvatarFactory:
    """@param make: from an account to its messages, such as a subclass of Messages."""
    locks = _Locks(reactor, limits.maildrop_wait_seconds)

    async def opened(account: bytes) -> IMaildrop:
        messages = make(account)
        listing = await called(messages.listing)
        exact = all(octets is not None for _unique_id, octets in listing)
        mailbox: Any = _Mailbox(messages, listing)
        return await maildrop_from_twisted(
            mailbox, reactor=reactor, limits=limits, observer=observer, sizes_are_exact=exact
        )

    async def avatar(account: bytes | None, client: Client) -> tuple[IMaildrop, Callable[[], None]]:
        if account is None:
            raise LoginForbidden("a maildrop needs an account")
        await locks.take(account)
        try:
            return await opened(account), lambda: locks.release(account)
        except BaseException:
            locks.release(account)
            raise

    return avatar


class _Locks:
    """One holder for each account."""

    def __init__(self, reactor: IReactorTime, seconds: float) -> None:
        self._reactor = reactor
        self._seconds = seconds
        self._locks: dict[bytes, DeferredLock] = {}

    async def take(self, account: bytes) -> None:
        """@raise MaildropInUse: somebody else still has it."""
        lock = self._locks.setdefault(account, DeferredLock())
        try:
            await lock.acquire().addTimeout(self._seconds, self._reactor)
        except TimeoutError:
            raise MaildropInUse() from None

    def release(self, account: bytes) -> None:
        lock = self._locks[account]
        lock.release()
        if not lock.locked:
            del self._locks[account]


@implementer(IMailboxPOP3)
class _Mailbox:
    """Messages by index, as Twisted's interface has them."""

    def __init__(self, messages: Messages, listing: Sequence[tuple[str, int | None]]) -> None:
        self._messages = messages
        self._listing = listing
        self._deleted: list[str] = []

    def listMessages(self, index: int | None = None) -> Any:
        # 0 would say deleted; where the octets are not known each message is counted.
        sizes = [octets if octets is not None else 1 for _unique_id, octets in self._listing]
        return sizes if index is None else sizes[index]

    def getMessage(self, index: int) -> Deferred[IO[bytes]]:
        return Deferred.fromCoroutine(self._file(self._listing[index][0]))

    async def _file(self, unique_id: str) -> IO[bytes]:
        content = await called(self._messages.content, unique_id)
        return io.BytesIO(content) if isinstance(content, bytes) else content

    def getUidl(self, index: int) -> bytes:
        return self._listing[index][0].encode()

    def deleteMessage(self, index: int) -> None:
        self._deleted.append(self._listing[index][0])

    def undeleteMessages(self) -> None:
        self._deleted.clear()

    def sync(self) -> Deferred[None] | None:
        return Deferred.fromCoroutine(self._remove()) if self._deleted else None

    async def _remove(self) -> None:
        await called(self._messages.remove, self._deleted)
