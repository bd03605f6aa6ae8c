"""
Gives back the space of deleted messages.

A sealed segment in which nothing is wanted any more is unlinked.  Of those that are mostly dead, and of many small ones, what is still
wanted is copied to a new segment, which states that it replaces them.  The order of steps is what makes each of them safe to die in:

    the new segment is written, synced, read back; then it gets its name under `segments/`, and that is synced
    the index is told where everything is now, and synced
    the old segments are unlinked, and that is synced
    the index forgets them, and what was deleted in them

Whatever was cut short is taken up where the new segment's own statement says it was.  Replay in any order comes to the same: a known
message only changes its place, and a deletion stays known as long as any segment holds what it deleted.

One process of a spool compacts at a time.  Others may have a segment open while it goes: they read on from the file without a name,
and whoever cannot open it any more asks the index again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from mailhost.events import Observer, Trouble
from mailhost.spool.files import Files
from mailhost.spool.log import records
from mailhost.spool.log.entries import replayed
from mailhost.spool.log.fences import fences, replaced_by
from mailhost.spool.log.holdings import Holding, Holdings
from mailhost.spool.log.index import Change, Index, Outdated, Position
from mailhost.spool.log.layout import Layout
from mailhost.spool.log.records import (
    CATALOGUE,
    DELETION,
    FENCE,
    HEADER_OCTETS,
    MESSAGE,
    REPLACES,
    SEAL,
    SINGLE,
    Record,
)
from mailhost.spool.log.scan import Scan
from mailhost.spool.log.segments import find_secret
from mailhost.spool.log.successor import Successor

# A segment is worth copying when less than half of it is wanted: each octet copied gives back one at least.
_WORTH = 2
# So many segments that are under an eighth of the usual size become one.
_SMALL = 8
_VICTIMS_AT_ONCE = 16
_STEP_OCTETS = 256 * 1024
_ROWS_AT_ONCE = 200


class Gain(NamedTuple):
    """What a compaction has brought."""

    segments: int
    """That are gone."""
    octets: int
    """That are free again."""


class _Damaged(Exception):
    """A segment in which not everything can be read is left for `verify` and `repair`."""

    def __init__(self, segment: int) -> None:
        super().__init__(f"segment {segment:016x} is damaged and is not compacted")
        self.segment = segment


class Compaction:
    """
    Runs in threads, one step at a time.

    A run is an iterator of the octets that each step has read and written, so that whoever drives it decides about the pace; closing
    it early leaves a spool that is right.
    """

    def __init__(
        self,
        files: Files,
        layout: Layout,
        index: Index,
        segment_octets: int,
        tell: Observer,
        let_go: Callable[[int], None],
    ) -> None:
        """
        @param tell: takes events in any thread.
        @param let_go: called with a segment that is gone, to close it where it is open; in any thread.
        """
        self._files = files
        self._layout = layout
        self._index = index
        self._holdings = Holdings(index)
        self._segment_octets = segment_octets
        self._tell = tell
        self._let_go = let_go
        self._spared: set[int] = set()  # damaged ones, and what is mixed up with them
        self._finished: set[int] = set()  # of which nothing is left that they replace
        self._single: dict[int, bool] = {}
        self._segments = self._octets = 0
        self._built = -1

    def run(self, since: int) -> Iterator[int]:
        """
        One pass over all segments; nothing is done while another process is at it.

        @param since: what was deleted later is held back; microseconds since 1970.
        @raise OSError: or sqlite3.Error; what was not done is for another pass.
        """
        fd = self._files.open_lock(self._layout.compaction_lock)
        try:
            if self._files.lock(fd) and not self._index.awaited():
                self._built = self._index.built
                yield from self._finish_what_was_left()
                for victims in self._choose(since):
                    yield from self._replace(victims, since)
        finally:
            self._files.close(fd)

    def gain(self) -> Gain:
        """Since it was asked last."""
        gain = Gain(self._segments, self._octets)
        self._segments = self._octets = 0
        return gain

    # -- which

    def _choose(self, since: int) -> Iterator[list[Holding]]:
        """Groups of segments, those that are all dead first."""
        holdings = [holding for holding in self._holdings.sealed(since) if holding.segment not in self._spared]
        worth = [holding for holding in holdings if holding.wanted * _WORTH < holding.octets]
        small = [holding for holding in holdings if self._is_small(holding)]
        if len(small) >= _SMALL:
            worth += [holding for holding in small if holding not in worth]
        worth.sort(key=lambda holding: holding.wanted / holding.octets)
        group: list[Holding] = []
        for holding in worth:
            wanted = sum(other.wanted for other in group) + holding.wanted
            if group and (wanted > self._segment_octets or len(group) == _VICTIMS_AT_ONCE):
                yield group
                group = []
            group.append(holding)
        if group:
            yield group

    def _is_small(self, holding: Holding) -> bool:
        return holding.octets * _SMALL < self._segment_octets and not self._is_single(holding.segment)

    # -- copying

    def _replace(self, victims: Sequence[Holding], since: int) -> Iterator[int]:
        victims = [victim for victim in victims if self._may_go(victim)]
        ids = [victim.segment for victim in victims]
        ends = fences(self._files, self._layout, ids)
        standing = {id: end for id, end in ends.items() if id not in ids and self._is_there(id)}
        successor = Successor(self._files, self._layout, standing, ids)
        try:
            for victim in victims:
                yield from self._copy(victim, successor, since)
            if self._index.built != self._built:  # what was asked of a new index may not have been in it yet
                raise Outdated("the index was built anew meanwhile")
            if successor.is_begun:
                yield from successor.finish()
        except _Damaged as damaged:
            self._spared.add(damaged.segment)
            self._tell(Trouble(str(damaged)))
            return
        finally:
            successor.discard()
        if successor.is_begun:
            yield from self._finish(successor.id)
        else:
            yield from self._unlink(ids)

    def _may_go(self, victim: Holding) -> bool:
        """A large message's own segment goes when it is dead, and is never copied."""
        if not self._is_there(victim.segment):
            return False
        return not victim.wanted or not self._is_single(victim.segment)

    def _is_there(self, id: int) -> bool:
        return self._files.exists(self._layout.segment(id))

    def _is_single(self, id: int) -> bool:
        if id not in self._single:
            try:
                fd = self._files.open(self._layout.segment(id))
            except FileNotFoundError:
                return False
            try:
                header = records.read_segment_header(self._files.read(fd, HEADER_OCTETS, 0))
            finally:
                self._files.close(fd)
            self._single[id] = header is not None and header.shape == SINGLE
        return self._single[id]

    def _copy(self, victim: Holding, successor: Successor, since: int) -> Iterator[int]:
        """@raise _Damaged: not all of it can be read, so that it cannot be told what it holds."""
        id = victim.segment
        if not victim.wanted and self._is_single(id):
            return
        before = 0
        for record, metadata, content in self._read(victim):
            kept = self._wanted(id, record, metadata, since)
            if kept is not None:
                successor.add(record.kind, records.pack_metadata(kept), content())
            if record.end - before >= _STEP_OCTETS:
                yield record.end - before
                before = record.end
        yield victim.octets - before

    def _read(self, victim: Holding) -> Iterator[tuple[Record, dict[str, Any], Callable[[], bytes]]]:
        """@return: of each record what it is and says, and a way to read its content."""
        fd = self._files.open(self._layout.segment(victim.segment))

        def content() -> bytes:
            return self._files.read(fd, record.content_octets, record.content_offset)

        try:
            scan = Scan(self._files, fd, find_secret(self._files, fd), HEADER_OCTETS, victim.octets, victim.octets)
            for record, metadata in scan:
                yield record, metadata, content
        except OSError as error:
            raise _Damaged(victim.segment) from error
        finally:
            self._files.close(fd)
        if scan.damaged or scan.tail != victim.octets:
            raise _Damaged(victim.segment)

    def _wanted(self, segment: int, record: Record, metadata: dict[str, Any], since: int) -> dict[str, Any] | None:
        """@return: the metadata of its copy, or None when there is to be none."""
        if record.kind == MESSAGE:
            drops = self._holdings.wanted_drops(segment, record.offset, metadata, since)
            return {**metadata, "drops": {drop: metadata["drops"][drop] for drop in drops}} if drops else None
        if record.kind == DELETION:
            messages = [(time, unique_id) for time, unique_id in metadata["messages"]]
            messages = self._holdings.wanted_deletions(int(metadata["maildrop"], 16), messages)
            return {**metadata, "messages": messages} if messages else None
        if record.kind == CATALOGUE:
            is_latest = self._holdings.is_latest_name(int(metadata["maildrop"], 16), metadata["time"])
            return metadata if is_latest else None
        return None if record.kind in (SEAL, FENCE, REPLACES) else metadata

    # -- from the new segment on

    def _finish_what_was_left(self) -> Iterator[int]:
        """Of compactions that were cut short, in whatever process."""
        known = self._holdings.sealed(0)
        there = set(self._layout.segment_ids())
        self._finished &= there
        self._single = {id: single for id, single in self._single.items() if id in there}
        for id in there - self._finished:
            yield from self._finish(id)
            self._finished.add(id)
        for holding in known:
            if holding.segment not in there and not holding.live:
                yield from self._forget([holding.segment])

    def _finish(self, id: int) -> Iterator[int]:
        """Take away what this segment replaces, if it replaces any that are still there."""
        replaced = [other for other in replaced_by(self._files, self._layout, id) if self._is_there(other)]
        if replaced:
            yield from self._index_all(id)
            yield from self._unlink(replaced)
            if self._spared.intersection(replaced):
                self._spared.add(id)

    def _index_all(self, id: int) -> Iterator[int]:
        """Tell the index where the messages of a segment are, by small transactions; the rest of it is known from elsewhere."""
        fd = self._files.open(self._layout.segment(id))
        try:
            size = self._files.size(fd)
            scan = Scan(self._files, fd, find_secret(self._files, fd), HEADER_OCTETS, size, size)
            change, before, others = Change(again=True), 0, 0
            for record, metadata in scan:
                if record.kind != MESSAGE:
                    others += record.length
                    continue
                replayed(change, id, record, metadata)
                if len(change.messages) >= _ROWS_AT_ONCE:
                    change.positions.append(Position(id, record.end))
                    self._index.commit([change])
                    yield record.end - before
                    change, before = Change(again=True), record.end
        finally:
            self._files.close(fd)
        change.positions.append(Position(id, scan.tail, sealed=True))
        self._index.commit([change])
        self._holdings.keep(id, others)
        self._files.fault_point("compact.indexed")

    def _unlink(self, ids: Iterable[int]) -> Iterator[int]:
        gone = []
        for id in ids:
            if live := self._holdings.live(id):
                self._spared.add(id)
                self._tell(Trouble(f"segment {id:016x} is not unlinked: {live} octets in it are in use"))
                continue
            self._take_away(id)
            gone.append(id)
            yield 0
        if gone:
            self._files.sync_directory(self._layout.segments)
            self._files.fault_point("segment.gone")
            yield from self._forget(gone)

    def _take_away(self, id: int) -> None:
        path = self._layout.segment(id)
        try:
            fd = self._files.open(path)
            octets = self._files.size(fd)
            self._files.close(fd)
            self._files.unlink(path)
        except FileNotFoundError:
            return
        self._files.fault_point("segment.unlinked")
        self._let_go(id)
        self._segments += 1
        self._octets += octets

    def _forget(self, ids: Iterable[int]) -> Iterator[int]:
        for id in ids:
            while self._holdings.forget_some(id):
                yield 0
        self._files.fault_point("segment.forgotten")
