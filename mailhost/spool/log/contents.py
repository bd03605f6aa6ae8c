"""
Messages read back from their segments, and checked on the way.

What is in the page cache is read in the reactor's turn, by a call that never waits for the disk; the rest goes through a thread.
"""

from __future__ import annotations

import errno
from typing import Any
from zlib import crc32

from zope.interface import implementer

from mailhost.events import Observer, Trouble
from mailhost.interfaces import IContent
from mailhost.refusal import ContentDamaged, Refusal, SpoolUnavailable
from mailhost.spool.files import Files
from mailhost.spool.log import records
from mailhost.spool.log.entries import octets_of_fields
from mailhost.spool.log.index import Place
from mailhost.spool.log.records import HEADER_OCTETS, Record
from mailhost.spool.log.segments import OpenSegment, Readers
from mailhost.spool.log.threads import Threads

# A record up to this length is read at once, and checked whole before its first octet is given out.
_WHOLE_OCTETS = 256 * 1024


class SegmentGone(Exception):
    """It was replaced by another; the index knows where the message is now."""


class Contents:
    """Lives in the reactor's thread."""

    def __init__(self, files: Files, threads: Threads, readers: Readers, observer: Observer) -> None:
        self._files = files
        self._threads = threads
        self._readers = readers
        self._observer = observer

    async def open(self, maildrop: int, unique_id: str, place: Place) -> IContent:
        """
        @raise SegmentGone: the index has to be asked again.
        @raise ContentDamaged: what is there is not this message.
        """
        try:
            segment = self._readers.at_once(place.segment)
            if segment is None:
                segment = await self._threads.run(self._readers.open, place.segment)
            octets = await self.read(segment, place.offset, min(place.length, _WHOLE_OCTETS))
        except FileNotFoundError as error:
            raise SegmentGone from error
        except OSError as error:
            raise self.unreadable(unique_id, place, error) from error
        record = records.read_record_header(octets, segment.secret, place.offset)
        if record is None or record.length != place.length or record.kind != records.MESSAGE:
            raise self.damaged(unique_id, place, "no such record there")
        if record.content_offset - place.offset > len(octets):
            try:
                octets = await self.read(segment, place.offset, record.content_offset - place.offset)
            except OSError as error:
                raise self.unreadable(unique_id, place, error) from error
        return self._content(maildrop, unique_id, place, segment, record, octets)

    def _content(
        self, maildrop: int, unique_id: str, place: Place, segment: OpenSegment, record: Record, octets: bytes
    ) -> IContent:
        start = HEADER_OCTETS + record.metadata_octets
        raw = octets[HEADER_OCTETS:start]
        if crc32(raw) != record.metadata_checksum:
            raise self.damaged(unique_id, place, "metadata checksum")
        metadata = records.read_metadata(raw)
        fields = metadata["drops"].get(records.id_text(maildrop))
        if metadata["unique_id"] != unique_id or fields is None:
            raise self.damaged(unique_id, place, "another message is there")
        fields = records.fields_octets(fields)
        if len(octets) - start < record.content_octets:
            return StreamedContent(self, segment, place, record, metadata, fields, octets[start:])
        content = memoryview(octets)[start:]
        if crc32(content) != record.content_checksum:
            raise self.damaged(unique_id, place, "content checksum")
        return WholeContent(fields, content, metadata)

    async def read(self, segment: OpenSegment, offset: int, count: int) -> bytes:
        """Exactly so many octets.  @raise OSError: also when the file ends before."""
        octets = self._files.read_at_once(segment.fd, count, offset)
        if len(octets) < count:
            octets = await self._threads.run(self._files.read, segment.fd, count, offset)
        if len(octets) < count:
            raise OSError("segment ends too early")
        return octets

    def unreadable(self, unique_id: str, place: Place, error: OSError) -> Refusal:
        """A segment that is gone or too short is damage; anything else may be right again tomorrow.  @return: to be raised."""
        if error.errno in (None, errno.ENOENT):
            return self.damaged(unique_id, place, error)
        return SpoolUnavailable(cause=error)

    def damaged(self, unique_id: str, place: Place, cause: object) -> ContentDamaged:
        """Tell the operator.  @return: to be raised."""
        where = f"message {unique_id} in segment {place.segment:016x} at {place.offset}"
        self._observer(Trouble(f"{where} cannot be read back as it was stored", cause))
        return ContentDamaged(cause=cause)


@implementer(IContent)
class WholeContent:
    """A message that was read and checked whole."""

    __slots__ = ("_octets", "header_octets", "metadata", "octets", "wire_octets")

    def __init__(self, fields: bytes, content: memoryview, metadata: dict[str, Any]) -> None:
        self._octets = fields + content
        self.metadata = metadata
        self.octets: int = metadata["octets"] + octets_of_fields(fields)
        self.wire_octets = len(self._octets)
        self.header_octets: int = metadata["header_octets"] + len(fields)

    async def read(self, offset: int, count: int) -> bytes:
        return self._octets[offset : offset + count]


@implementer(IContent)
class StreamedContent:
    """
    A message that is read as it is sent.

    Its checksum runs along as long as reads follow each other from the start; the last of them fails when it is wrong.
    """

    def __init__(
        self,
        contents: Contents,
        segment: OpenSegment,
        place: Place,
        record: Record,
        metadata: dict[str, Any],
        fields: bytes,
        first: bytes,
    ) -> None:
        """@param first: octets of the content that have been read already."""
        self._contents = contents
        self._segment = segment
        self._place = place
        self._record = record
        self.metadata = metadata
        self._unique_id = metadata["unique_id"]
        self._fields = fields
        self._first = first
        self._checked = 0  # octets of the content that the checksum has seen
        self._checksum = 0
        self.octets: int = metadata["octets"] + octets_of_fields(fields)
        self.wire_octets = len(fields) + record.content_octets
        self.header_octets: int = metadata["header_octets"] + len(fields)

    async def read(self, offset: int, count: int) -> bytes:
        fields = len(self._fields)
        if offset >= fields:
            return await self._read_content(offset - fields, count)
        head = self._fields[offset : offset + count]
        return head + await self._read_content(0, count - len(head))

    async def _read_content(self, offset: int, count: int) -> bytes:
        count = min(count, self._record.content_octets - offset)
        if count <= 0:
            return b""
        if offset + count <= len(self._first):
            octets = self._first[offset : offset + count]
        else:
            octets = await self._read_file(offset, count)
        self._check(offset, octets)
        return octets

    async def _read_file(self, offset: int, count: int) -> bytes:
        try:
            return await self._contents.read(self._segment, self._record.content_offset + offset, count)
        except OSError as error:
            raise self._contents.unreadable(self._unique_id, self._place, error) from error

    def _check(self, offset: int, octets: bytes) -> None:
        if offset == 0:
            self._checked = self._checksum = 0
        if offset != self._checked:
            return
        self._checksum = crc32(octets, self._checksum)
        self._checked += len(octets)
        if self._checked == self._record.content_octets and self._checksum != self._record.content_checksum:
            raise self._contents.damaged(self._unique_id, self._place, "content checksum")
