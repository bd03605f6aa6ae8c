"""A maildrop as one session sees it: a snapshot, held exclusively."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

from zope.interface import implementer

from mailhost.envelope import Totals
from mailhost.interfaces import IContent, IMaildrop, Listing
from mailhost.refusal import MaildropLost, NoSuchMessage
from mailhost.spool.files import Files
from mailhost.spool.log.committer import Committer
from mailhost.spool.log.contents import Contents, SegmentGone
from mailhost.spool.log.entries import DeletionEntry
from mailhost.spool.log.index import Deletion, Snapshot
from mailhost.spool.log.indexer import Indexer
from mailhost.spool.log.listings import Listings, LogListing
from mailhost.spool.log.locks import Hold
from mailhost.spool.log.threads import Threads
from mailhost.spool.log.writer import refusal_of


class Parts:
    """What maildrops need of the spool."""

    def __init__(
        self,
        files: Files,
        threads: Threads,
        committer: Committer,
        indexer: Indexer,
        listings: Listings,
        contents: Contents,
    ) -> None:
        self.files = files
        self.threads = threads
        self.committer = committer
        self.indexer = indexer
        self.listings = listings
        self.contents = contents


@implementer(IMaildrop)
class LogMaildrop:
    """Open until `release`."""

    def __init__(self, parts: Parts, id: int, hold: Hold[Any] | None, totals: Totals, snapshot: Snapshot) -> None:
        """@param hold: None for one that is only read, beside its holder."""
        self._parts = parts
        self._id = id
        self._hold = hold
        self._snapshot = snapshot
        self._listing: LogListing | None = None
        self.totals = totals

    async def listing(self) -> Listing:
        return await self._read_listing()

    async def _read_listing(self) -> LogListing:
        if self._listing is None:
            self._listing = await self._parts.listings.read(self._id, self._snapshot, self.totals)
        return self._listing

    async def content(self, number: int) -> IContent:
        listing = await self._read_listing()
        index = _index(number, listing)
        places = await self._parts.listings.places(listing)
        unique_id, contents = listing.unique_ids[index], self._parts.contents
        try:
            return await contents.open(self._id, unique_id, places.at(index))
        except SegmentGone:
            place = (await self._parts.listings.places_again(listing)).at(index)
        try:
            return await contents.open(self._id, unique_id, place)
        except SegmentGone as error:
            raise contents.damaged(unique_id, place, "its segment is not there") from error

    async def times(self) -> Sequence[int]:
        """When each message was delivered, microseconds since 1970, in the listing's order."""
        return (await self._parts.listings.places(await self._read_listing())).times

    async def update(self, deleted: Collection[int]) -> None:
        if not deleted:
            return
        parts, hold = self._parts, self._hold
        listing = await self._read_listing()
        indexes = sorted({_index(number, listing) for number in deleted})
        places = await parts.listings.places(listing)
        if hold is None or await parts.threads.run(hold.is_lost):
            raise MaildropLost
        messages = [(places.times[index], listing.unique_ids[index]) for index in indexes]
        await parts.committer.commit(DeletionEntry(Deletion(self._id, time.time_ns() // 1000, messages)))
        parts.files.fault_point("quit.synced")

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
        indexer = self._parts.indexer
        if indexer.behind:
            # What was deleted must not be seen by the next holder, who may be another process and see the index only.
            indexer.caught_up().addBoth(lambda _: hold.release())
        else:
            hold.release()


def _index(number: int, listing: LogListing) -> int:
    if not 0 < number <= len(listing.unique_ids):
        raise NoSuchMessage
    return number - 1
