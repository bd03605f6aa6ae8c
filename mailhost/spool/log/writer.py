"""
Appends groups of records to this process's segment, and knows what to do when the disk fails.

A group is one write and one sync.  When either fails nothing of the group is ever synced again, since a second sync may say that
octets are safe which the system has thrown away.  The segment is cut back to where the last good sync left it and given up, and a new
one begins with a fence, a record that states that end.  Until such a fence is durable nothing is written.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from time import perf_counter

from mailhost.events import Notice, Observer, Trouble
from mailhost.refusal import Refusal, SpoolFull, SpoolUnavailable
from mailhost.spool.files import Files
from mailhost.spool.log import records
from mailhost.spool.log.entries import Entry, replayed
from mailhost.spool.log.index import Change, Position
from mailhost.spool.log.layout import Layout
from mailhost.spool.log.segments import Fence, Segment

# Buffers up to this many octets are joined: copying them costs less than one more entry of an iovec.
_JOINED = 16 * 1024


class Writer:
    """
    One group at a time, in whatever thread.

    States: no segment yet; appending; owing fences (the segments of failed groups are held until a new one has stated their ends).
    """

    def __init__(self, files: Files, layout: Layout, segment_octets: int, tell: Observer) -> None:
        """@param tell: takes events in any thread."""
        self._files = files
        self._layout = layout
        self._segment_octets = segment_octets
        self._tell = tell
        self._segment: Segment | None = None
        self._given_up: list[Segment] = []
        self._positions: list[Position] = []  # for the next change: what became of earlier segments
        self.sync_seconds = 0.0
        """How long the last sync took."""

    @property
    def is_ready(self) -> bool:
        """Whether the next group needs no new segment."""
        return self._segment is not None and self._segment.end < self._segment_octets

    @property
    def owes_fences(self) -> bool:
        return bool(self._given_up)

    def write(self, entries: Sequence[Entry]) -> Change:
        """
        Make records durable.

        @return: what they mean for the index.
        @raise OSError: they are not durable, and the segment is given up; `recover` before anything else.
        """
        if not self.is_ready:
            self.begin_segment()
        segment = self._segment
        assert segment is not None
        change = Change()
        buffers, end = _group(entries, segment, change)
        try:
            segment.write(buffers)
            self._files.fault_point("group.written")
            before = perf_counter()
            segment.sync(end)
            self.sync_seconds = perf_counter() - before
        except OSError:
            self._give_up(segment)
            raise
        self._files.fault_point("group.synced")
        change.positions.append(Position(segment.id, segment.end))
        return self.with_news(change)

    def with_news(self, change: Change) -> Change:
        """Add what became of earlier segments.  Whoever calls this commits the change."""
        change.positions += self._positions
        self._positions = []
        return change

    def begin_segment(self) -> None:
        """
        Seal the current segment, begin another, and state in it where those that were given up end.

        @raise OSError: the spool takes nothing until this succeeds.
        """
        self._seal()
        fences = [Fence(segment.id, segment.end) for segment in self._given_up]
        segment = Segment.create(self._files, self._layout, fences)
        self._positions.append(Position(segment.id, segment.end))
        for given_up in self._given_up:
            self._positions.append(Position(given_up.id, given_up.end, sealed=True))
            given_up.close()
            self._tell(Notice(f"segment {given_up.id:016x} is fenced at {given_up.end}; the spool takes mail again"))
        self._given_up = []
        self._segment = segment

    def _give_up(self, segment: Segment) -> None:
        """Its lock is kept until it is fenced, so that nobody takes it over meanwhile and believes what stands behind the end."""
        segment.cut()
        self._given_up.append(segment)
        self._segment = None

    def _seal(self) -> None:
        segment, self._segment = self._segment, None
        if segment is None:
            return
        try:
            segment.seal()
        except OSError as error:
            self._tell(Trouble(f"segment {segment.id:016x} could not be sealed; all that is in it is safe", error))
        self._positions.append(Position(segment.id, segment.end, sealed=True))
        segment.close()

    def let_go_if_gone(self) -> None:
        """Give the segment up if somebody has removed its file, and begin another with the next group."""
        segment = self._segment
        if segment is None or segment.is_in_place:
            return
        self._segment = None
        segment.close()
        what = f"segment {segment.id:016x} was removed while it was being written: the mail in it is lost; was the spool deleted?"
        self._tell(Trouble(what))

    def own(self) -> Change:
        """All that is in the segments held here, for an index that knows nothing of them."""
        change = Change(again=True)
        self._positions = []  # of segments that are let go of: whoever takes them over says where they end
        for segment in [self._segment, *self._given_up]:
            if segment is not None:
                end = segment.end
                for record, metadata in segment.scan(end):
                    replayed(change, segment.id, record, metadata)
                change.positions.append(Position(segment.id, end, whole=True))
        return change

    def close(self) -> Change:
        """@return: what is left to be told to the index."""
        self._seal()
        for segment in self._given_up:
            segment.close()
        self._given_up = []
        return self.with_news(Change())


def _group(entries: Sequence[Entry], segment: Segment, change: Change) -> tuple[list[bytes], int]:
    """@return: the octets of a group, and the offset behind it."""
    buffers: list[bytes] = []
    pending: list[bytes] = []
    secret, synced, offset, id = segment.secret, segment.synced, segment.end, segment.id
    for entry in entries:
        metadata, octets = entry.metadata, entry.content_octets
        pending.append(
            records.pack_record_header(secret, entry.kind, metadata, octets, entry.content_checksum, offset, synced)
        )
        pending.append(metadata)
        if octets <= _JOINED:
            pending += entry.content
        else:
            buffers.append(b"".join(pending))
            buffers += entry.content
            pending = []
        entry.index(change, id, offset)
        offset += records.HEADER_OCTETS + len(metadata) + octets
    buffers.append(b"".join(pending))
    return buffers, offset


def refusal_of(error: OSError) -> Refusal:
    """What a failed write or sync means for those who waited."""
    if is_full(error):
        return SpoolFull(cause=error)
    return SpoolUnavailable(cause=error)


def is_full(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
