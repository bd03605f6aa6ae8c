"""
Segments as files: the one this process appends to, and those it reads.

A writer holds flock() on its segment from the making to the closing, and nobody else ever appends to it.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mailhost.spool.files import Files
from mailhost.spool.log import records
from mailhost.spool.log.layout import Layout
from mailhost.spool.log.records import HEADER_OCTETS, LOG, SegmentHeader
from mailhost.spool.log.scan import Scan

_BLOCK_OCTETS = 1024 * 1024


def new_id() -> int:
    """Random, never reused; 63 bits, since SQLite's integers have a sign."""
    return secrets.randbits(63)


def new_header(id: int, shape: int = LOG) -> SegmentHeader:
    return SegmentHeader(id, time.time_ns() // 1000, secrets.token_bytes(16), shape)


class Fence(NamedTuple):
    """Where a segment truly ends after a sync of it has failed."""

    segment: int
    end: int

    def metadata(self) -> bytes:
        return records.pack_metadata({"segment": records.id_text(self.segment), "end": self.end})


class Segment:
    """
    The segment this process appends to.  Used by one thread at a time.

    `end` is where the next group begins, everything before it being right; `synced` is how much of it a successful sync has covered.
    """

    def __init__(self, files: Files, layout: Layout, id: int, secret: bytes, fd: int) -> None:
        self._files = files
        self._layout = layout
        self._fd = fd
        self.id = id
        self.secret = secret
        self.end = HEADER_OCTETS
        self.synced = 0

    @classmethod
    def create(cls, files: Files, layout: Layout, fences: Iterable[Fence] = ()) -> Segment:
        """
        A new one, its directory entry synced, and its octets too if there are fences in it.

        @raise OSError: nothing is left of it that anybody would obey, but for fences, which are true.
        """
        header, fd = _create_locked(files, layout)
        segment = cls(files, layout, header.id, header.secret, fd)
        try:
            files.write(fd, [header.pack()], 0)
            files.fault_point("segment.created")
            segment._state(fences)
            files.sync_directory(layout.segments)
            files.fault_point("segment.entered")
        except OSError:
            segment.discard()
            raise
        return segment

    def discard(self) -> None:
        """Nothing was acknowledged for what is in it, and its fences are stated again elsewhere."""
        try:
            self._files.unlink(self._layout.segment(self.id))
        except OSError:
            pass
        self.close()

    def _state(self, fences: Iterable[Fence]) -> None:
        octets = b"".join(self._bare_record(records.FENCE, fence.metadata(), self.end) for fence in fences)
        if octets:
            self._files.write(self._fd, [octets], self.end)
            self.sync(self.end + len(octets))
            self._files.fault_point("fence.synced")

    def _bare_record(self, kind: int, metadata: bytes, offset: int) -> bytes:
        return records.pack_record_header(self.secret, kind, metadata, 0, 0, offset, self.synced) + metadata

    def write(self, buffers: Sequence[bytes]) -> None:
        """Write a group where it belongs: at `end`, which only `sync` moves."""
        self._files.write(self._fd, buffers, self.end)

    def sync(self, end: int) -> None:
        """@param end: how far the group that was written goes."""
        self._files.sync(self._fd)
        self.end = self.synced = end

    @property
    def is_in_place(self) -> bool:
        """Whether its file still has its name: what is appended to one without would be lost.  Asks the disk."""
        return self._files.is_at(self._fd, self._layout.segment(self.id))

    def scan(self, end: int) -> Scan:
        """Its records up to there, read back."""
        return Scan(self._files, self._fd, self.secret, HEADER_OCTETS, end)

    def seal(self) -> None:
        """State that nothing follows.  @raise OSError: it is not sealed, and right all the same."""
        octets = self._bare_record(records.SEAL, b"{}", self.end)
        try:
            self.write([octets])
            self.sync(self.end + len(octets))
        except OSError:
            self.cut()
            raise

    def cut(self) -> None:
        """Take away what stands behind `end`, as far as this is possible; what remains is fenced by a later segment."""
        try:
            self._files.truncate(self._fd, self.end)
        except OSError:
            pass

    def close(self) -> None:
        """Let go of the lock with it."""
        try:
            self._files.close(self._fd)
        except OSError:
            pass


def _create_locked(files: Files, layout: Layout) -> tuple[SegmentHeader, int]:
    """A process that starts may lock our file before we do, and take it away as an empty one; then there is another id."""
    while True:
        header = new_header(new_id())
        path = layout.segment(header.id)
        try:
            fd = files.create(path)
        except FileExistsError:
            continue
        if files.lock(fd) and files.is_at(fd, path):
            return header, fd
        files.close(fd)


class OpenSegment:
    """A segment opened for reading: what stands in it stays readable as long as somebody holds this, even after an unlink."""

    __slots__ = ("_files", "fd", "secret")

    def __init__(self, files: Files, fd: int, secret: bytes) -> None:
        self._files = files
        self.fd = fd
        self.secret = secret

    def __del__(self) -> None:
        self._files.close(self.fd)


class Readers:
    """
    Segments opened for reading, the latest used kept open.

    One that fell out of here is closed when the last content that reads from it lets go.
    """

    def __init__(self, files: Files, layout: Layout, kept: int = 128) -> None:
        self._files = files
        self._layout = layout
        self._kept = kept
        self._open: OrderedDict[int, OpenSegment] = OrderedDict()
        self._changing = threading.Lock()

    def at_once(self, id: int) -> OpenSegment | None:
        """The segment if it is open.  Never waits for a disk."""
        with self._changing:
            segment = self._open.get(id)
            if segment is not None:
                self._open.move_to_end(id)
            return segment

    def open(self, id: int) -> OpenSegment:
        """May wait for the disk.  @raise OSError: it is not there, or not readable."""
        segment = self.at_once(id)
        if segment is None:
            segment = self._opened(id)
            with self._changing:
                self._open[id] = segment
                while len(self._open) > self._kept:
                    self._open.popitem(last=False)
        return segment

    def _opened(self, id: int) -> OpenSegment:
        fd = self._files.open(self._layout.segment(id))
        try:
            secret = find_secret(self._files, fd)
        except BaseException:
            self._files.close(fd)
            raise
        return OpenSegment(self._files, fd, secret)

    def let_go(self, id: int) -> None:
        """Of a segment that is gone: as long as it is open its space does not come back."""
        with self._changing:
            self._open.pop(id, None)

    def let_go_of_gone(self) -> None:
        """The same, of those that other processes took away.  May wait for the disk."""
        with self._changing:
            held = list(self._open)
        for id in held:
            if not self._files.exists(self._layout.segment(id)):
                self.let_go(id)

    def close(self) -> None:
        with self._changing:
            self._open.clear()


class NoSecret(OSError):
    """Neither the segment's header nor any record's can be read."""


def find_secret(files: Files, fd: int) -> bytes:
    """
    A segment's secret: from its header, or, when that is damaged, from the first record, the seal at its end, or any record.

    @raise NoSecret: nothing can be read of it.
    """
    octets = files.read(fd, 2 * HEADER_OCTETS, 0)
    header = records.read_segment_header(octets)
    if header is not None:
        return header.secret
    secret = records.secret_of(octets[HEADER_OCTETS:], HEADER_OCTETS)
    if secret is None:
        seal = files.size(fd) - HEADER_OCTETS - len(b"{}")
        secret = records.secret_of(files.read(fd, HEADER_OCTETS, seal), seal) if seal > 0 else None
    secret = secret or _secret_of_any(files, fd)
    if secret is None:
        raise NoSecret("no header, and no record")
    return secret


def _secret_of_any(files: Files, fd: int) -> bytes | None:
    """Of the first record that stands where it says it does."""
    at = HEADER_OCTETS
    while len(block := files.read(fd, _BLOCK_OCTETS, at)) >= HEADER_OCTETS:
        place = block.find(records.RECORD_MAGIC)
        while place >= 0:
            secret = records.secret_of(files.read(fd, HEADER_OCTETS, at + place), at + place)
            if secret is not None:
                return secret
            place = block.find(records.RECORD_MAGIC, place + 1)
        at += len(block) - len(records.RECORD_MAGIC) + 1
    return None
