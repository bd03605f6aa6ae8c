"""
What segments say, read once more from their first octet to their last, and written down in a scratch database.

    seen    each copy of each message, with the place of its record
    broken  the same of records whose content is damaged, and which still say whose they were
    gone    what was deleted
    bound   what maildrops were called, and which are removed
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any
from zlib import crc32

from mailhost.octets import Measure
from mailhost.spool.files import Files
from mailhost.spool.log import records
from mailhost.spool.log.findings import Damage, Report
from mailhost.spool.log.inspection import SegmentState
from mailhost.spool.log.layout import Layout
from mailhost.spool.log.records import HEADER_OCTETS, SINGLE
from mailhost.spool.log.scan import Found, Scan
from mailhost.spool.log.segments import NoSecret, find_secret

_ROWS_AT_ONCE = 5000

_COPY = (
    "(maildrop INTEGER, unique_id TEXT, time INTEGER, octets INTEGER, segment INTEGER, offset INTEGER, length INTEGER)"
)

TABLES = f"""
CREATE TABLE seen {_COPY};
CREATE TABLE broken {_COPY};
CREATE TABLE gone (maildrop INTEGER, unique_id TEXT);
CREATE TABLE bound (maildrop INTEGER, name TEXT, named INTEGER, removed INTEGER);
"""
SORTED = """
CREATE INDEX seen_by_message ON seen (maildrop, unique_id);
CREATE INDEX gone_by_message ON gone (maildrop, unique_id);
CREATE INDEX bound_by_maildrop ON bound (maildrop);
"""


def end_of(state: SegmentState, fence: int | None) -> int:
    """Where a segment has to be right up to.  What a host that runs writes behind the position is not ours to judge."""
    if state.sealed or state.held:
        return min(state.octets, state.position)
    return state.octets if fence is None else min(state.octets, fence)


class Reading:
    """One segment, as far as it has to be right."""

    def __init__(self, files: Files, layout: Layout, state: SegmentState, end: int, limit: int, report: Report) -> None:
        """
        @param end: where it ends, as far as this is ours to judge; see `end_of`.
        @param limit: what stands behind it only counts as waiting to be indexed.
        """
        self._files = files
        self._layout = layout
        self._state = state
        self._end = end
        self._limit = limit
        self._report = report
        self._broken: list[Found] = []

    def records(self) -> Iterator[Found]:
        """The good ones up to the limit; the report learns of all others."""
        fd = self._files.open(self._layout.segment(self._state.id))
        try:
            yield from self._records(fd)
        finally:
            self._files.close(fd)

    def _records(self, fd: int) -> Iterator[Found]:
        state, report, end = self._state, self._report, self._end
        try:
            secret = find_secret(self._files, fd)
        except NoSecret:
            if end:
                self._tell_damage(0, max(end, state.position))
            return
        header = records.read_segment_header(self._files.read(fd, HEADER_OCTETS, 0))
        if header is None:
            self._tell_damage(0, HEADER_OCTETS)
        # A large message was synced whole before its segment got its name.
        synced = end if header is not None and header.shape == SINGLE else 0
        scan = Scan(self._files, fd, secret, HEADER_OCTETS, end, max(state.position, synced))
        for found in scan:
            report.records += 1
            if found.record.offset >= self._limit:
                report.waiting += 1
            else:
                yield found
        for start, stop in scan.damaged:
            self._tell_damage(start, stop)
            self._read_broken(fd, secret, start)
        if not state.held:
            report.torn += max(end - max(scan.tail, state.position), 0)

    def _tell_damage(self, start: int, stop: int) -> None:
        self._report.damaged.append(Damage(self._state.name, start, stop, False))

    def _read_broken(self, fd: int, secret: bytes, start: int) -> None:
        """A record whose content is bad still says whose it was, if its metadata is good."""
        record = records.read_record_header(self._files.read(fd, HEADER_OCTETS, start), secret, start)
        if record is None or record.kind != records.MESSAGE:
            return
        metadata = self._files.read(fd, record.metadata_octets, start + HEADER_OCTETS)
        if crc32(metadata) == record.metadata_checksum:
            self._broken.append(Found(record, records.read_metadata(metadata)))

    def broken(self) -> list[Found]:
        """Damaged messages of which the metadata could be read; known when `records` has ended."""
        return self._broken


class Rows:
    """Writes down what records mean, many at a time."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._seen: list[tuple[Any, ...]] = []
        self._gone: list[tuple[Any, ...]] = []
        self._bound: list[tuple[Any, ...]] = []
        self.messages = 0

    def add(self, segment: int, found: Found) -> None:
        record, metadata = found
        if record.kind == records.MESSAGE:
            self.messages += 1
            self._seen += _copies(segment, found)
        elif record.kind == records.DELETION:
            maildrop = int(metadata["maildrop"], 16)
            self._gone += [(maildrop, unique_id) for _, unique_id in metadata["messages"]]
        elif record.kind == records.CATALOGUE:
            removed = bool(metadata.get("removed"))
            self._bound.append((int(metadata["maildrop"], 16), metadata["name"], metadata["time"], removed))
        if len(self._seen) + len(self._gone) > _ROWS_AT_ONCE:
            self.write()

    def add_broken(self, segment: int, broken: list[Found]) -> None:
        rows = [row for found in broken for row in _copies(segment, found)]
        self._database.executemany("INSERT INTO broken VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def write(self) -> None:
        self._database.execute("BEGIN")
        self._database.executemany("INSERT INTO seen VALUES (?, ?, ?, ?, ?, ?, ?)", self._seen)
        self._database.executemany("INSERT INTO gone VALUES (?, ?)", self._gone)
        self._database.executemany("INSERT INTO bound VALUES (?, ?, ?, ?)", self._bound)
        self._database.execute("COMMIT")
        self._seen, self._gone, self._bound = [], [], []


def _copies(segment: int, found: Found) -> Iterator[tuple[Any, ...]]:
    """One row for each maildrop that a message is in."""
    record, metadata = found
    for maildrop, fields in metadata["drops"].items():
        own = Measure()
        own.feed(records.fields_octets(fields))
        octets = metadata["octets"] + own.octets
        place = (segment, record.offset, record.length)
        yield int(maildrop, 16), metadata["unique_id"], metadata["time"], octets, *place
