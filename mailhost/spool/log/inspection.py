"""
Looks at a spool without starting it: nothing here changes what is there, so all of it goes beside a running host.

A copy of the index, taken at one instant, says how far each segment was right at that instant; segments only ever grow, so what is
read up to there is one consistent state, whatever is delivered meanwhile.  Segments go away by compaction only, which `pinned` holds.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import NamedTuple

from mailhost.spool.files import Files
from mailhost.spool.log.layout import Layout

Progress = Callable[[int, int], None]
"""Told what is done and what there is in all, in octets or in messages."""


def unwatched(done: int, total: int) -> None:
    """For whoever wants no progress."""


class SegmentState(NamedTuple):
    """One segment, as it was when it was looked at."""

    id: int
    octets: int
    """Of the file."""
    position: int
    """How far the index has it; 0 for one that it does not know."""
    sealed: bool
    held: bool
    """A process appends to it, or may."""

    @property
    def name(self) -> str:
        return f"{self.id:016x}"


@contextmanager
def pinned(files: Files, layout: Layout) -> Iterator[None]:
    """No segment goes away meanwhile.  Waits for a compaction that is under way."""
    fd = files.open_lock(layout.compaction_lock)
    try:
        files.lock(fd, wait=True)
        yield
    finally:
        files.close(fd)


@contextmanager
def nobody_starts(files: Files, layout: Layout) -> Iterator[None]:
    """No process starts on this spool meanwhile; those that run go on."""
    fd = layout.lock_start()
    try:
        yield
    finally:
        files.close(fd)


@contextmanager
def reading_index(layout: Layout) -> Iterator[sqlite3.Connection]:
    """
    A connection to the index as it is, in a transaction of one instant: for short queries, since its log grows meanwhile.

    @raise sqlite3.Error: there is no index, or it cannot be read.
    """
    with closing(sqlite3.connect(f"file:{_quoted(layout.index)}?mode=rw", uri=True, timeout=10)) as connection:
        connection.execute("BEGIN")
        yield connection


def copy_index(layout: Layout, into: str) -> None:
    """
    A copy of the index as it is at one instant, for queries that take long.

    @param into: the path of a file that is not there yet.
    @raise sqlite3.Error: there is no index, or it cannot be read.
    """
    uri = f"file:{_quoted(layout.index)}?mode=rw"
    with closing(sqlite3.connect(uri, uri=True, timeout=10)) as source, closing(sqlite3.connect(into)) as target:
        source.backup(target)
        (answer,) = target.execute("PRAGMA quick_check(1)").fetchone()
    if answer != "ok":
        raise sqlite3.DatabaseError(answer)


Positions = Mapping[int, tuple[int, bool]]
"""By segment: how far the index has it, and whether it is sealed."""


def positions(index: sqlite3.Connection) -> Positions:
    rows = index.execute("SELECT id, position, sealed FROM segments").fetchall()
    return {id: (position, bool(sealed)) for id, position, sealed in rows}


def segments(files: Files, layout: Layout, known: Positions) -> list[SegmentState]:
    """Every segment there is, those of a running host too."""
    with nobody_starts(files, layout):  # for we lock what a process that starts would take over
        states = [_state(files, layout, id, *known.get(id, (0, False))) for id in sorted(layout.segment_ids())]
    return [state for state in states if state is not None]


def _state(files: Files, layout: Layout, id: int, position: int, sealed: bool) -> SegmentState | None:
    try:
        fd = files.open(layout.segment(id))
    except FileNotFoundError:  # its maker gave it up before there was anything in it
        return None
    try:
        held = not sealed and not files.lock(fd)
        return SegmentState(id, files.size(fd), position, sealed, held)
    finally:
        files.close(fd)


def _quoted(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
