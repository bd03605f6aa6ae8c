"""A maildrop as one session sees it: a snapshot of a Maildir, held exclusively among all who honour `mailhost.lock`."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from zope.interface import implementer

from mailhost.events import Observer, Trouble
from mailhost.interfaces import IContent, IMaildrop, Listing
from mailhost.refusal import ContentDamaged, MaildropLost, NoSuchMessage
from mailhost.spool.files import Files
from mailhost.spool.log.locks import Hold
from mailhost.spool.log.threads import Threads, shielded
from mailhost.spool.log.writer import refusal_of
from mailhost.spool.maildir import deletions, names
from mailhost.spool.maildir.contents import read_content
from mailhost.spool.maildir.listings import MaildirListing

T = TypeVar("T")


class Parts:
    """What maildrops need of the spool."""

    def __init__(self, files: Files, threads: Threads, observer: Observer, tell: Observer) -> None:
        """@param tell: the observer, for any thread."""
        self.files = files
        self.threads = threads
        self.observer = observer
        self.tell = tell


@implementer(IMaildrop)
class MaildirMaildrop:
    """Open until `release`."""

    def __init__(self, parts: Parts, path: str, hold: Hold[Any], listing: MaildirListing) -> None:
        self._parts = parts
        self._path = path
        self._hold: Hold[Any] | None = hold
        self._listing = listing
        self._names = [message.name for message in self._listing.messages]
        self._removing: Deferred[None] | None = None
        self.totals = self._listing.totals

    async def listing(self) -> Listing:
        return self._listing

    async def content(self, number: int) -> IContent:
        index = self._index(number)
        try:
            return await self._parts.threads.run(self._read, index)
        except ContentDamaged as error:
            self._tell_damaged(number, error.cause)
            raise
        except FileNotFoundError as error:
            raise NoSuchMessage(cause=error) from error
        except OSError as error:
            self._tell_damaged(number, error)
            raise ContentDamaged(cause=error) from error

    def _tell_damaged(self, number: int, cause: object) -> None:
        unique_id = self._listing.unique_ids[number - 1]
        self._parts.observer(Trouble(f"message {unique_id} in {self._path} cannot be read as it was stored", cause))

    def _read(self, index: int) -> IContent:
        """In a thread.  Other programs may have moved the message, once or more."""
        for _ in range(2):
            try:
                return self._read_now(index)
            except FileNotFoundError:
                self._find_again()
        return self._read_now(index)

    def _read_now(self, index: int) -> IContent:
        base = self._listing.messages[index].base
        path = os.path.join(self._path, self._names[index])
        return read_content(self._parts.files, self._parts.threads, path, names.our_octets(base))

    def _find_again(self) -> None:
        found = {names.base_of(name[4:]): name for name in deletions.present(self._parts.files, self._path)}
        for index, message in enumerate(self._listing.messages):
            self._names[index] = found.get(message.base, message.name)

    async def update(self, deleted: Collection[int]) -> None:
        if not deleted:
            return
        indexes = sorted({self._index(number) for number in deleted})
        if self._hold is None:
            raise MaildropLost
        self._removing = removing = self._parts.threads.run(self._remove, self._hold, indexes)
        removing.addBoth(self._removed)
        try:
            await shielded(removing)
        except OSError as error:
            raise refusal_of(error) from error

    def _remove(self, hold: Hold[Any], indexes: Collection[int]) -> None:
        """In a thread."""
        if hold.is_lost():
            raise MaildropLost
        deletions.remove(self._parts.files, self._path, [self._names[index] for index in indexes], self._parts.tell)

    def _removed(self, result: T) -> T:
        self._removing = None
        return result

    async def times(self) -> Sequence[int]:
        return [message.time for message in self._listing.messages]

    async def notes(self) -> bytes:
        if self._hold is None:
            raise MaildropLost
        try:
            return await self._parts.threads.run(self._hold.notes)
        except OSError as error:
            raise refusal_of(error) from error

    async def keep_notes(self, notes: bytes) -> None:
        if self._hold is None:
            raise MaildropLost
        try:
            await self._parts.threads.run(self._hold.keep_notes, notes)
        except OSError as error:
            raise refusal_of(error) from error

    def when_wanted(self, ask: Callable[[], None]) -> None:
        if self._hold is not None:
            self._hold.when_wanted = ask

    def release(self) -> None:
        hold, self._hold = self._hold, None
        if hold is None:
            return
        if self._removing is None:
            hold.release()
        else:  # nobody else may see it half done, whether anybody still waits for the answer or not
            self._removing.addBoth(lambda _: hold.release())

    def _index(self, number: int) -> int:
        if not 0 < number <= len(self._names):
            raise NoSuchMessage
        return number - 1
