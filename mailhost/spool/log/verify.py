"""
Reads every checksum of every record, and compares what the segments say with what the index says.

The comparison is one of sets, in a scratch database: what each record means is written down there, and joined with a copy of the index
that was taken at one instant.  It shares no code with the replay of records, so that a mistake there would show here.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from typing import Any, NamedTuple
from zlib import crc32

from mailhost.octets import Measure
from mailhost.spool.files import Files
from mailhost.spool.log import inspection, records
from mailhost.spool.log.fences import fences
from mailhost.spool.log.inspection import Progress, SegmentState, unwatched
from mailhost.spool.log.layout import Layout
from mailhost.spool.log.records import HEADER_OCTETS, SINGLE
from mailhost.spool.log.scan import Found, Scan
from mailhost.spool.log.segments import NoSecret, find_secret

_ROWS_AT_ONCE = 5000

_SCRATCH = """
CREATE TABLE seen (maildrop INTEGER, unique_id TEXT, time INTEGER, octets INTEGER, segment INTEGER, offset INTEGER, length INTEGER);
CREATE TABLE broken (maildrop INTEGER, unique_id TEXT, time INTEGER, octets INTEGER, segment INTEGER, offset INTEGER, length INTEGER);
CREATE TABLE gone (maildrop INTEGER, unique_id TEXT);
CREATE TABLE bound (maildrop INTEGER, name TEXT, named INTEGER, removed INTEGER);
"""
_SORTED = """
CREATE INDEX seen_by_message ON seen (maildrop, unique_id);
CREATE INDEX gone_by_message ON gone (maildrop, unique_id);
CREATE INDEX bound_by_maildrop ON bound (maildrop);
"""


class Damage(NamedTuple):
    """A stretch of a segment that cannot be read."""

    segment: str
    start: int
    stop: int
    quarantined: bool
    """A copy of it is in quarantine, and no maildrop misses what was in it: `repair` has been here."""


class Lost(NamedTuple):
    """A message that a maildrop should have, and no good record of it is left."""

    maildrop: str
    """Its name, or its id when it has none."""
    id: int
    unique_id: str
    time: int
    octets: int
    segment: str
    offset: int
    length: int
    """Of the record."""


class Forgotten(NamedTuple):
    """A deletion that only the index knows: without a record of it the message would come back with a new index."""

    maildrop: int
    unique_id: str
    time: int
    deleted: int


class Unstated(NamedTuple):
    """A maildrop's name, or its removal, that only the index knows."""

    maildrop: int
    name: str | None
    named: int
    removed: bool


class Report:
    """What was found.  The lists are empty in a spool that is as it should be."""

    def __init__(self) -> None:
        self.segments = self.octets = self.records = self.messages = 0
        self.waiting = 0
        """Good records that the index has not reached: of a host that ended without a stop.  The next start takes them over."""
        self.torn = 0
        """Octets of groups that a crash cut short; the next start cuts them off."""
        self.damaged: list[Damage] = []
        self.lost: list[Lost] = []
        self.forgotten: list[Forgotten] = []
        self.unstated: list[Unstated] = []
        self.disagreements: list[str] = []
        """Between index and segments, where the segments are good: a new index puts them right."""

    @property
    def needs_repair(self) -> bool:
        damaged = any(not damage.quarantined for damage in self.damaged)
        return damaged or bool(self.lost or self.forgotten or self.unstated)

    @property
    def is_good(self) -> bool:
        return not self.needs_repair and not self.disagreements


def verify(files: Files, directory: str, progress: Progress = unwatched) -> Report:
    """
    Goes beside a running host; its segments are read as far as the index has them.

    @raise OSError: something cannot be opened at all.
    """
    layout = Layout(files, directory)
    with inspection.pinned(files, layout), tempfile.TemporaryDirectory(prefix="mailhost-verify-") as scratch:
        return Verification(files, layout, scratch, progress).run()


class Verification:
    """One run."""

    def __init__(self, files: Files, layout: Layout, scratch: str, progress: Progress) -> None:
        self._files = files
        self._layout = layout
        self._scratch = scratch
        self._progress = progress
        self._report = Report()

    def run(self) -> Report:
        index: str | None = os.path.join(self._scratch, "index")
        assert index is not None
        try:
            inspection.copy_index(self._layout, index)
        except sqlite3.Error as error:
            self._report.disagreements.append(f"the index cannot be read: {error}")
            index = None
        with closing(sqlite3.connect(os.path.join(self._scratch, "segments"), isolation_level=None)) as database:
            database.execute("PRAGMA journal_mode = OFF")
            database.execute("PRAGMA synchronous = OFF")
            database.executescript(_SCRATCH)
            if index is not None:
                database.execute("ATTACH ? AS i", (index,))
            known = {} if index is None else inspection.positions(database)
            states = inspection.segments(self._files, self._layout, known)
            self._read(database, states)
            database.executescript(_SORTED)
            if index is None:
                self._tell_lost(database, _LOST_WITHOUT_INDEX, dict(database.execute(_NAMES_WITHOUT_INDEX)))
            else:
                self._compare(database, states)
        self._look_into_quarantine()
        return self._report

    # -- the segments

    def _read(self, database: sqlite3.Connection, states: list[SegmentState]) -> None:
        report, done, total = self._report, 0, sum(state.octets for state in states)
        open_ones = [state.id for state in states if not state.sealed]
        ends = fences(self._files, self._layout, [state.id for state in states]) if open_ones else {}
        for state in states:
            reading = _Reading(self._files, self._layout, state, ends.get(state.id), report)
            rows = _Rows(database)
            for found in reading.records():
                rows.add(state.id, found)
                self._progress(done + found.record.end, total)
            rows.add_broken(state.id, reading.broken())
            rows.write()
            done += state.octets
            report.segments += 1
            report.octets += state.octets
            report.messages += rows.messages
        self._progress(total, total)

    # -- against the index

    def _compare(self, database: sqlite3.Connection, states: list[SegmentState]) -> None:
        report = self._report
        self._tell_lost(
            database, _LOST, dict(database.execute("SELECT id, name FROM i.maildrops WHERE name IS NOT NULL"))
        )
        report.forgotten += [Forgotten(*row) for row in database.execute(_FORGOTTEN)]
        report.unstated += [
            Unstated(id, name, named, bool(removed)) for id, name, named, removed in database.execute(_UNSTATED)
        ]
        for text, query in _DISAGREEMENTS:
            (count,) = database.execute(f"SELECT count(*) FROM ({query})").fetchone()
            if count:
                report.disagreements.append(f"{text}: {count}")
        there = {state.id for state in states}
        for (id,) in database.execute("SELECT id FROM i.segments WHERE position > 0"):
            if id not in there:
                report.disagreements.append(f"segment {id:016x} is in the index and not in {self._layout.segments}")

    def _tell_lost(self, database: sqlite3.Connection, query: str, names: dict[int, str]) -> None:
        for maildrop, unique_id, time, octets, segment, offset, length in database.execute(query):
            name = names.get(maildrop, f"{maildrop:016x}")
            self._report.lost.append(Lost(name, maildrop, unique_id, time, octets, f"{segment:016x}", offset, length))

    def _look_into_quarantine(self) -> None:
        """Damage that nobody misses anything of any more, and of which there is a copy, is an old story."""
        missed = {lost.segment for lost in self._report.lost}
        self._report.damaged = [
            damage._replace(quarantined=damage.segment not in missed and self._is_kept(damage))
            for damage in self._report.damaged
        ]

    def _is_kept(self, damage: Damage) -> bool:
        return self._files.exists(self._layout.quarantined(int(damage.segment, 16), damage.start, "damaged"))


class _Reading:
    """One segment, as far as it has to be right."""

    def __init__(self, files: Files, layout: Layout, state: SegmentState, fence: int | None, report: Report) -> None:
        self._files = files
        self._layout = layout
        self._state = state
        self._fence = fence
        self._report = report
        self._damaged: list[tuple[int, int]] = []
        self._broken: list[Found] = []

    def records(self) -> Iterator[Found]:
        """The good ones that the index has reached; the report learns of all others."""
        fd = self._files.open(self._layout.segment(self._state.id))
        try:
            yield from self._records(fd)
        finally:
            self._files.close(fd)

    def _records(self, fd: int) -> Iterator[Found]:
        state, report = self._state, self._report
        end = self._end()
        try:
            secret = find_secret(self._files, fd)
        except NoSecret:
            if state.position or state.octets:
                self._tell_damage(0, max(state.octets, state.position))
            return
        header = records.read_segment_header(self._files.read(fd, HEADER_OCTETS, 0))
        if header is None:
            self._tell_damage(0, HEADER_OCTETS)
        # A large message was synced whole before its segment got its name.
        synced = end if header is not None and header.shape == SINGLE else 0
        scan = Scan(self._files, fd, secret, HEADER_OCTETS, end, max(state.position, synced))
        for found in scan:
            report.records += 1
            if state.position and found.record.offset >= state.position:
                report.waiting += 1
            else:
                yield found
        for start, stop in scan.damaged:
            self._tell_damage(start, stop)
            self._read_broken(fd, secret, start)
        if not state.held:
            report.torn += max(end - max(scan.tail, state.position), 0)

    def _end(self) -> int:
        """A running host writes behind the position; what it writes there is not ours to judge."""
        state = self._state
        if state.sealed or (state.held and state.position):
            return min(state.octets, state.position)
        return state.octets if self._fence is None else min(state.octets, self._fence)

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


class _Rows:
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


# -- what the index says, and should not; and what it does not say, and should

_REMOVED = "SELECT id FROM i.maildrops WHERE removed UNION SELECT maildrop FROM bound WHERE removed"
_NO_RECORD = "NOT EXISTS (SELECT 1 FROM seen AS s WHERE s.maildrop = m.maildrop AND s.unique_id = m.unique_id)"
_LOST = (
    "SELECT m.maildrop, m.unique_id, m.time, m.octets, m.segment, m.offset, m.length FROM i.messages AS m"
    f" WHERE {_NO_RECORD} AND m.maildrop NOT IN ({_REMOVED}) ORDER BY 1, 3"
)
# Without an index those are known whose metadata could still be read.
_LOST_WITHOUT_INDEX = (
    f"SELECT m.* FROM broken AS m WHERE {_NO_RECORD} AND m.maildrop NOT IN (SELECT maildrop FROM bound WHERE removed)"
    " AND NOT EXISTS (SELECT 1 FROM gone AS g WHERE g.maildrop = m.maildrop AND g.unique_id = m.unique_id) ORDER BY 1, 3"
)
_NAMES_WITHOUT_INDEX = "SELECT maildrop, name FROM bound WHERE name IS NOT NULL ORDER BY named"
_FORGOTTEN = (
    "SELECT d.maildrop, d.unique_id, d.time, d.deleted FROM i.deletions AS d"
    " WHERE NOT EXISTS (SELECT 1 FROM gone AS g WHERE g.maildrop = d.maildrop AND g.unique_id = d.unique_id)"
    " AND EXISTS (SELECT 1 FROM seen AS s WHERE s.maildrop = d.maildrop AND s.unique_id = d.unique_id)"
    f" AND d.maildrop NOT IN ({_REMOVED})"
)
# A maildrop whose name another one took has none in the index, and its own record still says the old one.
_UNSTATED = (
    "SELECT m.id, m.name, m.named, m.removed FROM i.maildrops AS m WHERE m.named > 0 AND NOT EXISTS (SELECT 1 FROM bound AS b"
    " WHERE b.maildrop = m.id AND b.named = m.named AND (m.name IS NULL OR b.name = m.name) AND b.removed = m.removed)"
)
_ELSEWHERE = (
    f"SELECT 1 FROM i.messages AS m WHERE m.maildrop NOT IN ({_REMOVED}) AND NOT ({_NO_RECORD}) AND NOT EXISTS"
    " (SELECT 1 FROM seen AS s WHERE s.maildrop = m.maildrop AND s.unique_id = m.unique_id AND s.time = m.time"
    " AND s.octets = m.octets AND s.segment = m.segment AND s.offset = m.offset AND s.length = m.length)"
)
_UNLISTED = (
    "SELECT DISTINCT s.maildrop, s.unique_id FROM seen AS s LEFT JOIN i.messages AS m"
    " ON m.maildrop = s.maildrop AND m.time = s.time AND m.unique_id = s.unique_id"
    f" WHERE m.maildrop IS NULL AND s.maildrop NOT IN ({_REMOVED})"
    " AND NOT EXISTS (SELECT 1 FROM gone AS g WHERE g.maildrop = s.maildrop AND g.unique_id = s.unique_id)"
    " AND NOT EXISTS (SELECT 1 FROM i.deletions AS d WHERE d.maildrop = s.maildrop AND d.unique_id = s.unique_id)"
)
_RISEN = (
    "SELECT 1 FROM i.messages AS m JOIN gone AS g ON g.maildrop = m.maildrop AND g.unique_id = m.unique_id"
    f" WHERE m.maildrop NOT IN ({_REMOVED})"
)
_UNKNOWN_NAMES = (
    "SELECT b.maildrop FROM bound AS b LEFT JOIN i.maildrops AS m ON m.id = b.maildrop"
    " WHERE m.id IS NULL OR (m.named < b.named AND NOT m.removed)"
)
_WRONG_TOTALS = (
    "SELECT d.id FROM i.maildrops AS d LEFT JOIN"
    " (SELECT maildrop, count(*) AS messages, sum(octets) AS octets FROM i.messages GROUP BY maildrop) AS m ON m.maildrop = d.id"
    " WHERE NOT d.removed AND (d.messages <> coalesce(m.messages, 0) OR d.octets <> coalesce(m.octets, 0))"
)
_WRONG_LIVE = (
    "SELECT s.id FROM i.segments AS s LEFT JOIN (SELECT segment, sum(length) AS live FROM i.messages GROUP BY segment) AS m"
    " ON m.segment = s.id WHERE s.live <> coalesce(m.live, 0)"
)
_DISAGREEMENTS = (
    ("messages that the index looks for in the wrong place", _ELSEWHERE),
    ("messages that are in no listing", _UNLISTED),
    ("deleted messages that are still listed", _RISEN),
    ("maildrops that the index does not know, or by an old name", _UNKNOWN_NAMES),
    ("maildrops with wrong totals", _WRONG_TOTALS),
    ("segments whose live octets are wrong", _WRONG_LIVE),
)
