"""
Requests for maildrops that other processes hold.

A ring of the last maildrop ids that were asked for, in a small file that all processes of a spool map into their memory, behind a count
of them all.  Asking is a write to memory, and looking for requests a read of it, so that neither waits for a disk.  Nothing
depends on a request: one that is lost, because two processes wrote at once or too many came, is made again by whoever still waits.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Set

from mailhost.spool.files import Files

_NUMBER = struct.Struct("<Q")
_PLACES = 64
_OCTETS = _NUMBER.size * (1 + _PLACES)


class Requests:
    """Open between `open` and `close`; at other times nobody asks for anything."""

    def __init__(self, files: Files, path: str) -> None:
        self._files = files
        self._path = path
        self._map: mmap.mmap | None = None
        self._seen = 0

    def open(self) -> None:
        """In any thread.  A second call does nothing."""
        if self._map is not None:
            return
        fd = self._files.open_lock(self._path)
        try:
            if self._files.size(fd) < _OCTETS:
                self._files.truncate(fd, _OCTETS)
            self._map = self._files.map(fd, _OCTETS)
        finally:
            self._files.close(fd)
        self._seen = self._read(0)

    def close(self) -> None:
        if self._map is not None:
            self._map.close()
            self._map = None

    def add(self, maildrop: int) -> None:
        """Ask whoever holds it."""
        if self._map is None:
            return
        count = self._read(0)
        _NUMBER.pack_into(self._map, _NUMBER.size * (1 + count % _PLACES), maildrop)
        _NUMBER.pack_into(self._map, 0, count + 1)

    def new(self) -> Set[int]:
        """The maildrops that were asked for since the last call."""
        if self._map is None:
            return frozenset()
        first, self._seen = self._seen, self._read(0)
        return {self._read(1 + count % _PLACES) for count in range(max(first, self._seen - _PLACES), self._seen)}

    def _read(self, place: int) -> int:
        assert self._map is not None
        number: int = _NUMBER.unpack_from(self._map, _NUMBER.size * place)[0]
        return number
