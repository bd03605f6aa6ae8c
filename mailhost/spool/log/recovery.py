"""
Takes over what other processes left, and builds the index anew when it is gone.

Whoever starts holds `Layout.lock_start`, so that one process at a time does this.  Only a segment whose lock can be had is touched: it
is read on from the position that the index has reached, its torn tail is cut off and kept in quarantine, it is sealed, and nobody ever
appends to it again.  Fences are read first, from the beginnings of all segments, also of those that others hold.
"""

from __future__ import annotations

import os
import sqlite3

from mailhost.events import Notice, Observer, Trouble
from mailhost.refusal import SpoolUnavailable
from mailhost.spool.files import Files
from mailhost.spool.log import index as indexes
from mailhost.spool.log import records
from mailhost.spool.log.counts import Counts
from mailhost.spool.log.entries import replayed
from mailhost.spool.log.fences import fences, replaced_by
from mailhost.spool.log.holdings import Holdings
from mailhost.spool.log.index import Change, Index, Position
from mailhost.spool.log.layout import Layout
from mailhost.spool.log.records import HEADER_OCTETS, SINGLE
from mailhost.spool.log.scan import Scan
from mailhost.spool.log.segments import NoSecret, Segment, find_secret

# Messages in one transaction: few enough that other processes do not wait for long.
_ROWS_AT_ONCE = 2000
# Records are found wherever they stand, so what cannot be read at all is the torn first group of a small segment, or a damaged large
# message, whose only record header was at its start.
_TORN_OCTETS = 256 * 1024
_DAMAGED = "the index cannot be read and is built anew from the segments"
_COPIED_OCTETS = 1024 * 1024


class Recovery:
    """Runs in a thread, while nobody else may start."""

    def __init__(self, files: Files, layout: Layout, counts: Counts, index: Index, tell: Observer) -> None:
        """@param tell: takes events in any thread."""
        self._files = files
        self._layout = layout
        self._counts = counts
        self._index = index
        self._holdings = Holdings(index)
        self._tell = tell

    def run(self) -> None:
        """
        Open the index and bring it up to all that is durable and nobody's.

        @raise SpoolUnavailable: the spool cannot be used; its cause is for the operator.
        """
        self._clean_staging()
        try:
            self.open_index()
            all_read = self.take_over()
            is_right = not self._misses_segments()
        except (sqlite3.Error, SpoolUnavailable) as error:
            if not indexes.is_damaged(error):
                raise
            self._tell(Trouble(_DAMAGED, error))
            is_right = False
        if not is_right:
            self._index.close()
            self.build_index()
            self._index.open()
            all_read = self.take_over()
        if all_read:
            self._holdings.forget_unheld()
        for path in self._layout.strangers():
            self._tell(Notice(f"{path} is nothing of the spool's, and is left alone"))

    def take_over(self) -> bool:
        """Index what nobody holds, as far as it is not indexed.  @return: whether all segments are in the index now."""
        known = self._index.segments()
        ids = self._layout.segment_ids()
        unread = [position for id in ids if not (position := known.get(id, Position(id, 0))).sealed]
        if unread:  # their makers may have ended before their names were durable
            self._files.sync_directory(self._layout.segments)
        ends = fences(self._files, self._layout, ids) if unread else {}
        # What replaces other segments comes behind them: where it says a message is counts.
        unread.sort(key=lambda position: bool(replaced_by(self._files, self._layout, position.segment)))
        read = [self._take_over(position, ends.get(position.segment)) for position in unread]
        for maildrop in self._index.removed_with_messages():
            while self._index.forget_some(maildrop):
                pass
        self._forget_gone()
        return all(read)

    def _misses_segments(self) -> bool:
        """Whether the index sends readers to segments that are not there: it is an old one, or they were lost."""
        listed = self._holdings.all()
        there = set(
            self._layout.segment_ids()
        )  # only now: a segment that others make has its name before it is in the index
        missing = [holding.segment for holding in listed if holding.live and holding.segment not in there]
        missing = [
            id for id in missing if self._holdings.live(id)
        ]  # a compaction in another process has moved the others
        replaced = {id for segment in there for id in replaced_by(self._files, self._layout, segment)}
        for id in missing:
            what = f"segment {id:016x} is in the index and not in {self._layout.segments}; the index is built anew"
            self._tell(Notice(what) if id in replaced else Trouble(what))
        return bool(missing)

    def _forget_gone(self) -> None:
        """Segments that an index awaits, and that somebody has taken away: for nothing was in them that is not elsewhere."""
        if awaited := self._index.awaited():
            there = set(self._layout.segment_ids())
            self._index.forget_awaited([id for id in awaited if id not in there])

    # -- the index

    def open_index(self, own: Change | None = None) -> None:
        """
        The newest; built, where there is none that can be read.

        @param own: what is in the segments held here, from their beginnings.
        """
        try:
            self._index.open(own)
            self._index.segments()
        except (sqlite3.Error, SpoolUnavailable) as error:
            if self._files.exists(self._layout.index):
                if not indexes.is_damaged(error):  # somebody is busy with it, or we may not open it
                    raise
                self._tell(Trouble(_DAMAGED, error))
            self.build_index()
            self._index.open(own)

    def build_index(self) -> None:
        """
        A new, empty one in its place; every segment is read from its beginning then.

        First everybody is told that the old one is old.  Whoever has made a name looks whether that is so before he is done with it:
        either the segment with the name is among those that are awaited, or he sees to it that the new index has it.

        The old one's log must be gone before the new one gets the name, or SQLite would play it into the wrong database.
        """
        self._counts.index_built()
        path, new = self._layout.index, self._layout.index + ".new"
        for old in (new, new + "-journal", path, path + "-wal", path + "-shm"):
            if self._files.exists(old):
                self._files.unlink(old)
        indexes.build(new, self._layout.segment_ids())
        os.chmod(new, 0o660)
        self._files.rename(new, path)
        self._files.fault_point("index.rebuilt")

    # -- what nobody holds any more

    def _clean_staging(self) -> None:
        for name in self._files.names(self._layout.staging):
            path = os.path.join(self._layout.staging, name)
            try:
                fd = self._files.open(path, writable=True)
            except (FileNotFoundError, IsADirectoryError):
                continue
            try:
                if self._files.lock(fd):
                    self._files.unlink(path)
            finally:
                self._files.close(fd)

    def _take_over(self, position: Position, fence: int | None) -> bool:
        """@return: false for one that another process holds."""
        path = self._layout.segment(position.segment)
        try:
            fd = self._files.open(path, writable=True)
        except FileNotFoundError:  # given up, or replaced, meanwhile
            return True
        try:
            if not self._files.lock(fd):
                return False
            if self._files.is_at(fd, path):
                self._replay(fd, position, fence)
            return True
        except records.Foreign as error:
            raise SpoolUnavailable(cause=f"{path}: {error}") from error
        finally:
            self._files.close(fd)

    def _replay(self, fd: int, position: Position, fence: int | None) -> None:
        id, files = position.segment, self._files
        try:
            secret = find_secret(files, fd)
        except NoSecret:
            self._put_away(fd, id, was_used=position.position > 0)
            return
        size = files.size(fd)
        end = size if fence is None else min(size, fence)
        synced = size if self._is_single(fd) else position.position
        scan = Scan(files, fd, secret, max(position.position, HEADER_OCTETS), end, synced)
        found = self._rows_of(id, scan)
        for start, stop in scan.damaged:
            self._keep(fd, id, start, min(stop, size), "damaged")
            self._tell(Trouble(f"segment {id:016x} is damaged from {start} to {stop}; records behind it are kept"))
        if size > scan.tail:
            self._cut(fd, id, scan.tail, size)
        files.sync(fd)  # what was read may be in memory only, and is going to be shown to people
        end = self._seal(fd, id, secret, scan)
        for change in found[:-1]:
            self._index.commit([change])
        found[-1].positions.append(Position(id, end, sealed=True, whole=True))
        self._index.commit(found[-1:])
        if found[0].messages or found[0].deletions:
            self._tell(Notice(f"segment {id:016x} was taken over from {position.position} to {scan.tail}"))

    def _rows_of(self, id: int, scan: Scan) -> list[Change]:
        changes = [Change(again=True)]
        for record, metadata in scan:
            replayed(changes[-1], id, record, metadata)
            if len(changes[-1].messages) >= _ROWS_AT_ONCE:
                changes.append(Change(again=True))
        return changes

    def _seal(self, fd: int, id: int, secret: bytes, scan: Scan) -> int:
        """@return: the segment's end."""
        if scan.is_sealed or self._is_single(fd):
            return scan.tail
        segment = Segment(self._files, self._layout, id, secret, fd)
        segment.end = segment.synced = scan.tail
        try:
            segment.seal()
        except OSError as error:
            self._tell(Trouble(f"segment {id:016x} could not be sealed; all that is in it is safe", error))
        return segment.end

    def _is_single(self, fd: int) -> bool:
        """Whether it is one large message, which was synced whole before it became a segment."""
        header = records.read_segment_header(self._files.read(fd, HEADER_OCTETS, 0))
        return header is not None and header.shape == SINGLE

    # -- quarantine

    def _put_away(self, fd: int, id: int, *, was_used: bool) -> None:
        """A segment of which nothing can be read."""
        octets = self._files.size(fd)
        if octets == 0:
            self._files.unlink(self._layout.segment(id))
            return
        path = self._layout.quarantined(id, 0, "headless")
        self._files.rename(self._layout.segment(id), path)
        what = f"nothing can be read of segment {id:016x}, which had {octets} octets; it is now {path}"
        # A crash in the making of a segment leaves a file of this kind, since header and first group share one sync; but not one so large.
        torn = not was_used and octets <= _TORN_OCTETS
        self._tell(Notice(what) if torn else Trouble(what))

    def _cut(self, fd: int, id: int, tail: int, size: int) -> None:
        self._keep(fd, id, tail, size, "torn")
        self._files.truncate(fd, tail)
        self._files.fault_point("tail.cut")
        self._tell(Notice(f"segment {id:016x}: {size - tail} octets were cut off that no client was told yes for"))

    def _keep(self, fd: int, id: int, start: int, stop: int, why: str) -> None:
        """Copy a stretch to quarantine; one that cannot be read or written is left out."""
        path = self._layout.quarantined(id, start, why)
        try:
            if self._files.exists(path):
                self._files.unlink(path)
            copy = self._files.create(path)
        except OSError:
            return
        try:
            for at in range(start, stop, _COPIED_OCTETS):
                octets = self._files.read(fd, min(_COPIED_OCTETS, stop - at), at)
                self._files.write(copy, [octets], at - start)
            self._files.sync(copy)
        except OSError as error:
            self._tell(Trouble(f"not all of {path} could be written", error))
        finally:
            self._files.close(copy)
