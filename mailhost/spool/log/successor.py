"""
A segment made of what is still wanted of others.

It is written under `staging/`, states first which segments it replaces, and gets its name under `segments/` when all of it is durable.
So whoever finds it there finds it whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from zlib import crc32

from mailhost.refusal import SpoolUnavailable
from mailhost.spool.files import Files
from mailhost.spool.log import records
from mailhost.spool.log.layout import Layout
from mailhost.spool.log.records import FENCE, HEADER_OCTETS, REPLACES, SEAL
from mailhost.spool.log.scan import Scan
from mailhost.spool.log.segments import Fence, new_header, new_id

_WRITTEN_AT_ONCE = 256 * 1024
# Synced in pieces, since a long sync makes the committer's wait.
_SYNCED_AT_ONCE = 4 * 1024 * 1024


class Successor:
    """
    Used in threads, by one at a time.

    States: nothing in it, and no file; being written; named.  `discard` ends it in all states.
    """

    def __init__(self, files: Files, layout: Layout, fences: Mapping[int, int], replaces: Sequence[int]) -> None:
        """
        @param fences: to be stated again: segment to its end.
        @param replaces: segments.
        """
        self._files = files
        self._layout = layout
        self._fences = fences
        self._replaces = replaces
        self._header = new_header(new_id())
        self._path = layout.staged(self._header.id)
        self._fd = -1
        self._waiting: list[bytes] = []
        self._waiting_octets = 0
        self._end = 0
        self._synced = 0
        self.id = self._header.id
        self.records = 0
        if fences:
            self._begin()

    @property
    def is_begun(self) -> bool:
        """Whether there is anything in it."""
        return self.records > 0

    def add(self, kind: int, metadata: bytes, content: bytes = b"") -> None:
        """@raise OSError: it is no good any more."""
        if not self.is_begun:
            self._begin()
        self._append(kind, metadata, content)
        if self._waiting_octets >= _WRITTEN_AT_ONCE:
            self._write()

    def _begin(self) -> None:
        self._fd = self._files.create(self._path)
        # Whoever starts removes staged files that nobody holds.
        if not (self._files.lock(self._fd) and self._files.is_at(self._fd, self._path)):
            raise SpoolUnavailable(cause="a staged file was cleaned up under our hands")
        self._put(self._header.pack())
        for segment, end in self._fences.items():
            self._append(FENCE, Fence(segment, end).metadata())
        self._append(REPLACES, records.pack_metadata({"segments": [records.id_text(id) for id in self._replaces]}))

    def _append(self, kind: int, metadata: bytes, content: bytes = b"") -> None:
        offset = self._end + self._waiting_octets
        self._put(
            records.pack_record_header(
                self._header.secret, kind, metadata, len(content), crc32(content), offset, self._synced
            )
        )
        self._put(metadata)
        self._put(content)
        self.records += 1

    def _put(self, octets: bytes) -> None:
        self._waiting.append(octets)
        self._waiting_octets += len(octets)

    def _write(self) -> None:
        self._files.write(self._fd, [b"".join(self._waiting)], self._end)
        self._end += self._waiting_octets
        self._waiting, self._waiting_octets = [], 0
        if self._end - self._synced >= _SYNCED_AT_ONCE:
            self._sync()

    def _sync(self) -> None:
        self._files.sync(self._fd)
        self._synced = self._end

    def finish(self) -> Iterator[int]:
        """
        Make it durable, read it back, and give it its name.

        @return: octets done at each step.
        @raise OSError: also when what was written is not what is read.
        """
        self._write()
        self._files.fault_point("compact.written")
        self._sync()
        self._append(SEAL, b"{}")
        self._write()
        self._sync()
        self._files.fault_point("compact.synced")
        yield from self._read_back()
        self._files.rename(self._path, self._layout.segment(self.id))
        self._path = self._layout.segment(self.id)
        self._files.fault_point("compact.renamed")
        try:
            self._files.sync_directory(self._layout.segments)
        except OSError:  # a second sync may lie about this name: what it replaces must not be unlinked for it
            self._files.unlink(self._path)
            raise
        self._files.fault_point("compact.entered")
        self._close()

    def _read_back(self) -> Iterator[int]:
        found, before = 0, HEADER_OCTETS
        scan = Scan(self._files, self._fd, self._header.secret, HEADER_OCTETS, self._end)
        for record, _ in scan:
            found += 1
            if record.end - before >= _WRITTEN_AT_ONCE:
                yield record.end - before
                before = record.end
        if scan.damaged or scan.tail != self._end or found != self.records:
            raise OSError(f"segment {self.id:016x} cannot be read back as it was written")

    def discard(self) -> None:
        """Never raises.  One that has its name stays: it is as good as what it replaces."""
        if self._fd < 0:
            return
        if self._path == self._layout.staged(self.id):
            try:
                self._files.unlink(self._path)
            except OSError:
                pass
        self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        self._files.close(fd)
