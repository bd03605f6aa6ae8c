"""
The log spool: messages in append-only segments, one sync for all that wait, an index that can be lost.

This module puts the parts together and starts and stops them; `docs/durability.md` says what they promise.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Sequence
from typing import Any

from zope.interface import implementer

from mailhost.envelope import Copy, Envelope, Totals
from mailhost.events import Event, Observer, unobserved
from mailhost.interfaces import IMaildrop, ISpool, IStagedMessage
from mailhost.refusal import NoSuchMaildrop, SpoolUnavailable
from mailhost.spool.files import Files
from mailhost.spool.log.catalogue import Catalogue
from mailhost.spool.log.committer import Committer
from mailhost.spool.log.compaction import Compaction, Gain
from mailhost.spool.log.compactor import Compactor
from mailhost.spool.log.contents import Contents
from mailhost.spool.log.counts import Counts
from mailhost.spool.log.entries import Entry
from mailhost.spool.log.index import Index, is_busy
from mailhost.spool.log.indexer import Indexer
from mailhost.spool.log.large import LargeFile
from mailhost.spool.log.layout import Layout
from mailhost.spool.log.listings import Listings
from mailhost.spool.log.locks import Locks
from mailhost.spool.log.maildrop import LogMaildrop, Parts
from mailhost.spool.log.pace import Pace
from mailhost.spool.log.recovery import Recovery
from mailhost.spool.log.requests import Requests
from mailhost.spool.log.retention import Retention, read_clocks
from mailhost.spool.log.room import Room
from mailhost.spool.log.segments import Readers
from mailhost.spool.log.staging import Drop, StagedMessage, Staging
from mailhost.spool.log.threads import Threads
from mailhost.spool.log.undelete import Deleted, Undelete
from mailhost.spool.log.unique_ids import UniqueIds
from mailhost.spool.log.watch import Watch
from mailhost.spool.log.writer import Writer

# A sync that takes longer keeps those who deliver waiting, and compaction stands back.
_SLOW_SYNC_SECONDS = 0.02


@implementer(ISpool)
class LogSpool:
    """Not started; started; stopped, and then it can be started again."""

    def __init__(
        self,
        directory: str,
        *,
        reactor: Any,
        observer: Observer = unobserved,
        segment_octets: int = 64 * 1024 * 1024,
        large_octets: int = 1024 * 1024,
        compact_octets_per_second: int = 8 * 1024 * 1024,
        keep_deleted_seconds: float = 0,
        floor_octets: int = 64 * 1024 * 1024,
        reserve_octets: int = 0,
        files: Files | None = None,
    ) -> None:
        """
        @param directory: made if it is not there; its parent must be.
        @param reactor: one with threads and time.
        @param segment_octets: a segment that has grown so far is sealed, and another one begun.
        @param large_octets: a message that grows beyond this gets a file of its own.
        @param compact_octets_per_second: how fast segments are read to get back the space of what was deleted; 0 for no bound.
        @param keep_deleted_seconds: for so long deleted mail can be had again; its space comes back later.
        @param floor_octets: with less than this free on the disk no mail is taken.  The default leaves room for what one segment's
            compaction writes and for the index's own log.
        @param reserve_octets: held in a file, for deletions, index and compaction on a disk that others have filled; 0 for none.
        """
        self._reactor = reactor
        self._observer = observer
        self._files = files = files or Files()
        self._layout = layout = Layout(files, directory)
        self._counts = counts = Counts(files, layout)
        self._index = index = Index(layout.index, counts)
        self._threads = threads = Threads(reactor)
        self._large_threads = Threads(reactor)
        self._readers = Readers(files, layout)
        self._room = Room(reactor, files, layout, threads, observer, floor_octets, reserve_octets)
        self._unique_ids = UniqueIds()
        self._recovery = Recovery(files, layout, counts, index, self._tell)
        self._indexer = Indexer(reactor, files, index, threads, observer, self._change_over)
        self._writer = Writer(files, layout, segment_octets, self._tell)
        self._pace = Pace(reactor.seconds)
        self._committer = Committer(reactor, self._writer, self._indexer, self._pace, observer, self._make_room)
        self._watch = Watch(
            reactor, files, layout, index, threads, self._writer, self._committer, self._recovery, observer
        )
        self._catalogue = Catalogue(files, layout, counts, index, threads, self._committer, self._indexer)
        self._staging = Staging(files, self._catalogue, self._committer, self._room, large_octets, self._begin_large)
        self._requests = Requests(files, layout.requests)
        self._locks = Locks(reactor, files, layout, threads, self._requests)
        self._listings = Listings(index, threads)
        contents = Contents(files, threads, self._readers, observer)
        self._parts = Parts(files, threads, self._committer, self._indexer, self._listings, contents)
        self._undelete = Undelete(index, threads, contents, self.stage)
        self._retention = Retention(files, layout, keep_deleted_seconds, self._tell)
        compaction = Compaction(files, layout, index, segment_octets, self._tell, self._readers.let_go)
        self._compactor = Compactor(
            reactor, compaction, observer, compact_octets_per_second, self._before_compaction, self._is_disk_slow
        )
        self._room.when_short = self._compactor.hurry
        self._running = False

    def _tell(self, event: Event) -> None:
        """From any thread."""
        self._reactor.callFromThread(self._observer, event)

    def _begin_large(self, width: int) -> LargeFile:
        return LargeFile(self._files, self._layout, self._large_threads, self._indexer, width)

    def _before_compaction(self) -> int:
        """@return: what was deleted later is held back."""
        self._readers.let_go_of_gone()
        return self._retention.since(read_clocks())

    def _make_room(self) -> bool:
        """In the committer's thread."""
        return self._room.release()

    def _is_disk_slow(self) -> bool:
        return self._writer.sync_seconds > _SLOW_SYNC_SECONDS

    # -- life

    async def start(self) -> None:
        self._threads.start()
        self._large_threads.start()
        try:
            await self._threads.run(self._open)
        except BaseException as error:
            self._let_go()
            if isinstance(error, OSError | sqlite3.Error):
                raise SpoolUnavailable(cause=f"{self._layout.root}: {_in_words(error)}") from error
            raise
        self._committer.start()
        self._compactor.start()
        self._room.start()
        self._watch.start()
        self._running = True

    def _open(self) -> None:
        starting = self._layout.lock_start()
        try:
            self._layout.prepare()
            self._room.open()
            self._counts.open()
            self._requests.open()
            self._recovery.run()
        finally:
            self._files.close(starting)

    async def _change_over(self) -> None:
        await self._watch.change_over()

    async def stop(self) -> None:
        if not self._running:
            return
        self._running = False
        self._room.stop()
        await self._compactor.stop()
        await self._watch.stop()
        await self._committer.stop()
        await self._indexer.stop()
        self._locks.stop()
        self._let_go()

    def _let_go(self) -> None:
        self._threads.stop()
        self._large_threads.stop()
        self._listings.clear()
        self._readers.close()
        self._catalogue.close()
        self._index.close()
        self._counts.close()
        self._requests.close()

    def _check_running(self) -> None:
        if not self._running:
            raise SpoolUnavailable(cause="the spool is not running")
        self._indexer.check()

    # -- mail in

    async def stage(
        self,
        envelope: Envelope,
        copies: Sequence[Copy],
        *,
        unique_id: str | None = None,
        time: int | None = None,
        flags: str = "",
    ) -> IStagedMessage:
        """
        As ISpool says.  A message that comes from another mail system brings along what it had there.

        @param unique_id: one that these maildrops have never had, see `had`.
        @param time: when it was delivered, microseconds since 1970: its place in the listing.
        @param flags: letters as in a Maildir's names.
        """
        self._check_running()
        self._room.count(0)
        refusal = self._committer.refusal or self._room.refusal
        if refusal is not None:
            raise refusal
        drops: dict[int, Drop] = {}
        for name, fields in copies:
            maildrop = self._catalogue.known(name)
            if maildrop is None:
                maildrop = await self._catalogue.find_or_make(name)
            drops.setdefault(maildrop, Drop(maildrop, name, fields))
        next_time, next_id = self._unique_ids.next()
        time = next_time if time is None else time
        return StagedMessage(self._staging, time, unique_id or next_id, envelope, list(drops.values()), flags)

    async def had(self, name: str, unique_ids: Sequence[str]) -> set[str]:
        """Which of these a maildrop has, or has had and somebody deleted them, as far back as deletions are remembered."""
        self._check_running()
        if self._indexer.behind:
            await self._indexer.caught_up()
        maildrop = await self._catalogue.find(name)
        return set() if maildrop is None else await self._threads.run(self._index.had, maildrop, unique_ids)

    async def compact(self) -> Gain:
        """
        Give back now what space of deleted messages can be had.

        @raise OSError: or sqlite3.Error; what was not done is tried again in the background.
        """
        self._check_running()
        return await self._compactor.run()

    async def deleted(self, name: str) -> list[Deleted]:
        """What was deleted from a maildrop and can still be had, in the order of its deletion.  @raise NoSuchMaildrop: there is none."""
        maildrop = await self._named(name)
        if self._indexer.behind:
            await self._indexer.caught_up()
        return await self._undelete.deleted(maildrop)

    async def undelete(self, name: str, unique_ids: Sequence[str]) -> list[str]:
        """
        Deliver deleted messages again, each as a new one; durable on return.

        @return: their new unique ids, in the same order.
        @raise NoSuchMessage: one was not deleted, or is not there any more; those before it have been delivered.
        """
        maildrop = await self._named(name)
        if self._indexer.behind:
            await self._indexer.caught_up()
        return [await self._undelete.undelete(maildrop, name, unique_id) for unique_id in unique_ids]

    async def restate(self, entries: Sequence[Entry]) -> None:
        """Append records of what the index knows already, durably: their first ones were damaged."""
        self._check_running()
        for entry in entries:
            await self._committer.commit(entry)

    # -- mail out

    async def open_maildrop(self, name: str, wait_seconds: float) -> IMaildrop:
        self._check_running()
        maildrop = self._catalogue.known(name)
        if maildrop is None:
            maildrop = await self._catalogue.find_or_make(name)
        if self._indexer.behind:
            await self._indexer.caught_up()
        hold = await self._locks.hold(maildrop, wait_seconds, self._index.totals)
        try:
            totals, snapshot = hold.found
            while self._indexer.behind:
                await self._indexer.caught_up()
                totals, snapshot = await self._threads.run(self._index.totals, maildrop)
        except BaseException:
            hold.release()
            raise
        return LogMaildrop(self._parts, maildrop, hold, totals, snapshot)

    async def snapshot(self, name: str) -> LogMaildrop:
        """
        A maildrop to be read only, beside whoever holds it.

        Of what its holder deletes meanwhile, what is still to be read may be gone: `content` raises ContentDamaged then.

        @raise NoSuchMaildrop: there is none.
        """
        maildrop = await self._named(name)
        if self._indexer.behind:
            await self._indexer.caught_up()
        totals, snapshot = await self._threads.run(self._index.totals, maildrop)
        return LogMaildrop(self._parts, maildrop, None, totals, snapshot)

    # -- maildrops

    async def create(self, name: str) -> None:
        self._check_running()
        await self._catalogue.find_or_make(name)

    async def exists(self, name: str) -> bool:
        self._check_running()
        return await self._catalogue.find(name) is not None

    async def totals(self, name: str) -> Totals:
        self._check_running()
        try:
            maildrop = await self._catalogue.find(name)
            if maildrop is None:
                return Totals(0, 0)
            # While deliveries write these counts in the turn, reading them there is no worse; a thread costs ten times as much.
            now = self._index.totals_now(maildrop) if self._pace.in_turn else None
            if now is not None:
                return now
            totals, _ = await self._threads.run(self._index.totals, maildrop, so_far=True)
        except sqlite3.Error as error:
            raise SpoolUnavailable(cause=error) from error
        return totals

    async def rename(self, old: str, new: str) -> None:
        maildrop = await self._named(old)
        hold = await self._locks.hold(maildrop, 0, _nothing)
        try:
            await self._catalogue.rename(maildrop, new)
        finally:
            hold.release()

    async def remove(self, name: str) -> None:
        maildrop = await self._named(name)
        hold = await self._locks.hold(maildrop, 0, _nothing)
        try:
            await self._catalogue.remove(maildrop)
            while await self._threads.run(self._index.forget_some, maildrop):
                pass
        finally:
            hold.release()

    async def _named(self, name: str) -> int:
        self._check_running()
        maildrop = await self._catalogue.find(name)
        if maildrop is None:
            raise NoSuchMaildrop
        return maildrop

    def maildrops(self) -> AsyncIterator[str]:
        self._check_running()
        return self._catalogue.names()


def _in_words(error: OSError | sqlite3.Error) -> str:
    if isinstance(error, OSError):
        return f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror)
    return f"the index: {error}" + ("; another program holds it" if is_busy(error) else "")


def _nothing(maildrop: int) -> None:
    """Locking is all."""
