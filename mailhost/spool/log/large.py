"""
A message too large to be held in memory: streamed to a file of its own, which becomes a segment by one rename.

The file is written under `staging/` with room left for its headers, by a few threads beside the committer's, a bounded piece at a time.
Its metadata is known at the end only, so it has a fixed width, padded with spaces.  One sync covers content and headers: the file is
nothing to anybody before the rename, and after the rename it is whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from mailhost.refusal import SpoolUnavailable
from mailhost.spool.files import Files
from mailhost.spool.log import records
from mailhost.spool.log.entries import MessageEntry
from mailhost.spool.log.index import Change, Position
from mailhost.spool.log.indexer import Indexer
from mailhost.spool.log.layout import Layout
from mailhost.spool.log.records import HEADER_OCTETS, SINGLE
from mailhost.spool.log.segments import new_header, new_id
from mailhost.spool.log.threads import Threads, shielded
from mailhost.spool.log.writer import refusal_of

# What may wait in memory for the disk before the sender has to pause; half of it lets the sender go on.
_WAITING_OCTETS = 1024 * 1024


class LargeFile:
    """Lives in the reactor's thread, but for the methods that say so; one of those runs at a time."""

    def __init__(self, files: Files, layout: Layout, threads: Threads, indexer: Indexer, width: int) -> None:
        """@param width: octets of metadata to leave room for."""
        self._files = files
        self._layout = layout
        self._threads = threads
        self._indexer = indexer
        self._width = width
        self._header = new_header(new_id(), SINGLE)
        self._path = layout.staged(self._header.id)
        self._fd = -1
        self._end = 2 * HEADER_OCTETS + width
        self._waiting: list[bytes] = []
        self._octets = 0  # that wait or are being written
        self._room: Deferred[None] | None = None
        self._working: Deferred[None] | None = None
        self._failed: BaseException | None = None

    def write(self, octets: bytes) -> Deferred[None] | None:
        if self._failed is not None:
            return None
        self._waiting.append(octets)
        self._octets += len(octets)
        if self._working is None:
            self._write_on()
        if self._octets <= _WAITING_OCTETS:
            return None
        if self._room is None:
            self._room = Deferred()
        return self._room

    def _write_on(self) -> None:
        blocks, self._waiting = self._waiting, []
        octets = sum(map(len, blocks))
        self._working = self._threads.run(self._write_in_thread, blocks, octets)
        self._working.addCallbacks(self._written, self._not_written, callbackArgs=(octets,))

    def _write_in_thread(self, blocks: list[bytes], octets: int) -> None:
        if self._fd < 0:
            self._create()
        self._files.write(self._fd, blocks, self._end)
        self._end += octets

    def _create(self) -> None:
        self._fd = self._files.create(self._path)
        # Whoever starts removes staged files that nobody holds: one that was removed before we could lock it is no good.
        if not (self._files.lock(self._fd) and self._files.is_at(self._fd, self._path)):
            raise SpoolUnavailable(cause="a staged file was cleaned up under our hands")

    def _written(self, _: None, octets: int) -> None:
        self._working = None
        self._octets -= octets
        if self._waiting:
            self._write_on()
        if self._octets <= _WAITING_OCTETS // 2:
            self._go_on()

    def _not_written(self, failure: Any) -> None:
        self._working = None
        self._failed = failure.value
        self._waiting = []
        self._octets = 0
        self._go_on()

    def _go_on(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.called:
            room.callback(None)

    # -- the end

    def finish(self, entry: Callable[[int], MessageEntry]) -> Deferred[None]:
        """
        Make it a segment.

        @param entry: the record, given the width of its metadata.
        @return: cancelling it undoes nothing.
        """
        return shielded(Deferred.fromCoroutine(self._finish(entry)))

    async def _finish(self, make_entry: Callable[[int], MessageEntry]) -> None:
        await self._all_written()
        try:
            if self._failed is not None:
                raise self._failed
            change = await self._threads.run(self._finish_in_thread, make_entry(self._width))
        except Exception as error:
            # Before anybody is told no: it may have come as far as its name, and must not come back.
            await self._abort()
            if isinstance(error, OSError):
                raise refusal_of(error) from error
            raise
        if change is None:
            self._indexer.indexed_in_thread()
        else:
            self._indexer.index_later(change)

    async def _all_written(self) -> None:
        while self._working is not None:
            ended: Deferred[None] = Deferred()
            self._working.addCallback(ended.callback)
            await ended

    def _finish_in_thread(self, entry: MessageEntry) -> Change | None:
        """@return: what is still to be indexed."""
        files, header = self._files, self._header
        octets = header.pack() + self._record_header(entry) + entry.metadata
        files.write(self._fd, [octets], 0)
        files.sync(self._fd)
        files.fault_point("large.synced")
        files.rename(self._path, self._layout.segment(header.id))
        self._path = self._layout.segment(header.id)
        files.fault_point("large.renamed")
        files.sync_directory(self._layout.segments)
        files.fault_point("segment.entered")
        change = Change()
        entry.index(change, header.id, HEADER_OCTETS)
        change.positions.append(Position(header.id, self._end, sealed=True, whole=True))
        indexed = self._indexer.index_in_thread(change)
        self._close()
        return None if indexed else change

    def _record_header(self, entry: MessageEntry) -> bytes:
        return records.pack_record_header(
            self._header.secret,
            entry.kind,
            entry.metadata,
            entry.content_octets,
            entry.content_checksum,
            HEADER_OCTETS,
            0,
        )

    def abort(self) -> None:
        """Remove it, when what is under way has ended."""
        Deferred.fromCoroutine(self._abort())

    async def _abort(self) -> None:
        self._failed = self._failed or SpoolUnavailable(cause="aborted")
        self._waiting = []
        await self._all_written()
        try:
            await self._threads.run(self._remove)
        except SpoolUnavailable:  # the spool has stopped
            self._remove()

    def _remove(self) -> None:
        if self._fd < 0:
            return
        try:
            self._files.unlink(self._path)
            self._files.sync_directory(self._layout.segments)  # it may have come that far
        except OSError:
            pass
        self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        self._files.close(fd)
