"""Makes the index anew from the segments, with no host running."""

from __future__ import annotations

import fcntl
import os
from typing import NamedTuple

from mailhost.events import Observer
from mailhost.refusal import SpoolUnavailable
from mailhost.spool.files import Files
from mailhost.spool.log import inspection
from mailhost.spool.log.counts import Counts
from mailhost.spool.log.index import Index
from mailhost.spool.log.inspection import Progress
from mailhost.spool.log.layout import Layout
from mailhost.spool.log.recovery import Recovery

# Where every open connection to an SQLite database holds a shared lock on its file (https://sqlite.org/fileformat.html, the lock-byte
# page; SHARED_FIRST and SHARED_SIZE in its source).
_SHARED_FIRST = 0x40000002
_SHARED_OCTETS = 510

_TOTALS = "SELECT count(*), coalesce(sum(messages), 0) FROM maildrops WHERE name IS NOT NULL"


class Rebuilt(NamedTuple):
    maildrops: int
    messages: int


class _WatchedFiles(Files):
    """Tells how much was read."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._octets = 0
        self.total = 0

    def read(self, fd: int, count: int, offset: int) -> bytes:
        octets = super().read(fd, count, offset)
        self._octets += len(octets)
        self._progress(min(self._octets, self.total), self.total)
        return octets


def rebuild(directory: str, tell: Observer, progress: Progress) -> Rebuilt:
    """
    Interrupted, it leaves an index that the next start, or another rebuild, goes on with.

    @raise SpoolUnavailable: a host is running; nothing was done.
    """
    files = _WatchedFiles(progress)
    layout = Layout(files, directory)
    with inspection.nobody_starts(files, layout):
        if _is_open(layout.index):
            raise SpoolUnavailable(cause="a host has this spool open: stop it first")
        for path in (layout.index, layout.index + "-wal", layout.index + "-shm"):
            if files.exists(path):
                files.unlink(path)
        files.total = sum(os.path.getsize(layout.segment(id)) for id in layout.segment_ids())
        return _rebuild(files, layout, tell)


def _is_open(path: str) -> bool:
    """Whether any process has the database open."""
    try:
        fd = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, _SHARED_OCTETS, _SHARED_FIRST)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def _rebuild(files: Files, layout: Layout, tell: Observer) -> Rebuilt:
    counts = Counts(files, layout)
    index = Index(layout.index, counts)
    counts.open()
    try:
        layout.prepare()
        Recovery(files, layout, counts, index, tell).run()
        found = index.read(lambda connection: connection.execute(_TOTALS).fetchone())
        return Rebuilt(*found)
    finally:
        index.close()
        counts.close()
