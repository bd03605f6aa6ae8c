"""
Two counts that all processes of a spool map into their memory, so that each can be checked without a system call.

They are the first octets of `locks/catalogue`: how often a name has changed, and how often the index was built anew.  Only that they
move means anything; they are changed under the file's lock, or while nobody else may start.
"""

from __future__ import annotations

import mmap
import struct

from mailhost.spool.files import Files
from mailhost.spool.log.layout import Layout

_COUNT = struct.Struct("<Q")
_NAMES, _INDEXES, _OCTETS = 0, 8, 16


class Counts:
    """Open between `open` and `close`; -1 is read at other times."""

    def __init__(self, files: Files, layout: Layout) -> None:
        self._files = files
        self._layout = layout
        self._map: mmap.mmap | None = None

    def open(self) -> None:
        """In any thread.  A second call does nothing."""
        if self._map is not None:
            return
        files = self._files
        fd = files.open_lock(self._layout.catalogue_lock)
        try:
            if files.size(fd) < _OCTETS:
                files.truncate(fd, _OCTETS)
            self._map = files.map(fd, _OCTETS)
        finally:
            files.close(fd)

    def close(self) -> None:
        if self._map is not None:
            self._map.close()
            self._map = None

    @property
    def names(self) -> int:
        """Moves whenever a name changes, in whatever process."""
        return self._read(_NAMES)

    @property
    def indexes(self) -> int:
        """Moves whenever there is another index."""
        return self._read(_INDEXES)

    def name_changed(self) -> None:
        self._add_one(_NAMES)

    def index_built(self) -> None:
        self._add_one(_INDEXES)

    def _read(self, offset: int) -> int:
        if self._map is None:
            return -1
        count: int = _COUNT.unpack_from(self._map, offset)[0]
        return count

    def _add_one(self, offset: int) -> None:
        assert self._map is not None
        _COUNT.pack_into(self._map, offset, self._read(offset) + 1)
