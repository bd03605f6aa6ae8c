"""
Reads a segment's records one after the other, and tells a torn tail from damage.

Every record says how far its segment was synced before it was written.  Below the highest such point (or a position that the index
has reached) a bad record is **damage**: something that was safe is so no longer, and the records behind it are still good.  Above it a
bad record is a **torn tail**: a group that a crash cut short, for which nobody was told yes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple
from zlib import crc32

from mailhost.spool.files import Files
from mailhost.spool.log import records
from mailhost.spool.log.records import HEADER_OCTETS, Record

_BLOCK_OCTETS = 1024 * 1024


class Found(NamedTuple):
    record: Record
    metadata: dict[str, Any]


class Scan:
    """
    One pass over a segment.  Iterate it; then `damaged` and `tail` are right.
    """

    def __init__(self, files: Files, fd: int, secret: bytes, start: int, end: int, synced: int = 0) -> None:
        """
        @param start: where the first record stands.
        @param end: where reading stops: the end of the file, or a fence.
        @param synced: what is known to have been synced, beside what the records themselves say.
        """
        self._files = files
        self._fd = fd
        self._secret = secret
        self._start = start
        self._end = end
        self._synced = synced
        self._block = b""
        self._block_offset = 0
        self.damaged: list[tuple[int, int]] = []
        """Stretches that cannot be read, from and to."""
        self.tail = start
        """Where what is right ends: behind it there is nothing, or a torn tail."""
        self.is_sealed = False

    def __iter__(self) -> Iterator[Found]:
        at = self._start
        looked_ahead = False
        while at < max(self._end, self._synced):
            found = self._read_record(at)
            if found is not None:
                at = found.record.end
                self.is_sealed = found.record.kind == records.SEAL
                yield found
                continue
            if not looked_ahead:
                self._look_ahead(at)
                looked_ahead = True
            if at >= self._synced:
                break
            after = min(self._next_record(at), self._synced)
            self.damaged.append((at, after))
            at = after
        self.tail = min(at, self._end)

    def _look_ahead(self, at: int) -> None:
        """Learn from the headers behind a bad record how far the segment was synced."""
        for record in self._headers(at + 1):
            self._synced = max(self._synced, record.group_offset)

    def _next_record(self, at: int) -> int:
        """@return: where the next whole record stands, or the end."""
        for record in self._headers(at + 1):
            if self._read_record(record.offset) is not None:
                return record.offset
        return max(self._end, self._synced)

    def _headers(self, at: int) -> Iterator[Record]:
        """What looks like the header of a record of this segment, from an offset on."""
        mark = records.mark_of(self._secret)
        while at < self._end:
            block = self._files.read(self._fd, min(_BLOCK_OCTETS, self._end - at), at)
            place = block.find(mark)
            while place >= 0:
                header = self._read(at + place, HEADER_OCTETS)
                record = records.read_record_header(header, self._secret, at + place)
                if record is not None:
                    yield record
                place = block.find(mark, place + 1)
            if at + len(block) >= self._end or not block:
                return
            at += len(block) - len(mark) + 1

    def _read_record(self, at: int) -> Found | None:
        """The record that stands here, if all of it is right."""
        record = records.read_record_header(self._read(at, HEADER_OCTETS), self._secret, at)
        if record is None or record.end > self._end:
            return None
        metadata = self._read(at + HEADER_OCTETS, record.metadata_octets)
        if crc32(metadata) != record.metadata_checksum or not self._is_content_right(record):
            return None
        return Found(record, records.read_metadata(metadata))

    def _is_content_right(self, record: Record) -> bool:
        checksum, at, end = 0, record.content_offset, record.end
        while at < end:
            octets = self._read(at, min(_BLOCK_OCTETS, end - at))
            if not octets:
                return False
            checksum = crc32(octets, checksum)
            at += len(octets)
        return checksum == record.content_checksum

    def _read(self, offset: int, count: int) -> bytes:
        """Through one block that is kept, since records are small and stand close."""
        start = offset - self._block_offset
        if start < 0 or start + count > len(self._block):
            self._block = self._files.read(self._fd, max(count, _BLOCK_OCTETS), offset)
            self._block_offset, start = offset, 0
        return self._block[start : start + count]
