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
from contextlib import closing, contextmanager

from mailhost.spool.files import Files
from mailhost.spool.log import comparison, evidence, inspection
from mailhost.spool.log.evidence import Reading, Rows
from mailhost.spool.log.fences import fences
from mailhost.spool.log.findings import Damage, Report
from mailhost.spool.log.inspection import Progress, SegmentState, unwatched
from mailhost.spool.log.layout import Layout


def verify(files: Files, directory: str, progress: Progress = unwatched) -> Report:
    """
    Goes beside a running host; its segments are read as far as the index has them.

    @raise OSError: something cannot be opened at all.
    """
    layout = Layout(files, directory)
    with inspection.pinned(files, layout), tempfile.TemporaryDirectory(prefix="mailhost-verify-") as scratch:
        return _Verification(files, layout, progress).run(scratch)


class _Verification:
    """One run."""

    def __init__(self, files: Files, layout: Layout, progress: Progress) -> None:
        self._files = files
        self._layout = layout
        self._progress = progress
        self._report = Report()

    def run(self, scratch: str) -> Report:
        index = os.path.join(scratch, "index")
        has_index = self._copy_index(index)
        with _database(os.path.join(scratch, "evidence")) as database:
            if has_index:
                database.execute("ATTACH ? AS i", (index,))
            states = self._states(database, has_index=has_index)
            self._read(database, states, has_index=has_index)
            if has_index:
                comparison.compare(database, {state.id for state in states}, self._report)
            else:
                comparison.tell_lost_without_index(database, self._report)
        self._look_into_quarantine()
        return self._report

    def _copy_index(self, into: str) -> bool:
        try:
            inspection.copy_index(self._layout, into)
        except sqlite3.Error as error:
            self._report.disagreements.append(f"the index cannot be read: {error}")
            return False
        return True

    def _states(self, database: sqlite3.Connection, *, has_index: bool) -> list[SegmentState]:
        """Without an index a segment that is being written is read to the end of its whole records."""
        if has_index:
            return inspection.segments(self._files, self._layout, inspection.positions(database))
        return [state._replace(held=False) for state in inspection.segments(self._files, self._layout, {})]

    def _read(self, database: sqlite3.Connection, states: list[SegmentState], *, has_index: bool) -> None:
        report, done, total = self._report, 0, sum(state.octets for state in states)
        ends = {} if all(s.sealed for s in states) else fences(self._files, self._layout, [s.id for s in states])
        for state in states:
            end = evidence.end_of(state, ends.get(state.id))
            limit = state.position if has_index else end
            reading = Reading(self._files, self._layout, state, end, limit, report)
            rows = Rows(database)
            for found in reading.records():
                rows.add(state.id, found)
                self._progress(done + found.record.end, total)
            rows.add_broken(state.id, reading.broken())
            rows.write()
            done += state.octets
            report.segments += 1
            report.octets += state.octets
            report.messages += rows.messages
        database.executescript(evidence.SORTED)
        self._progress(total, total)

    def _look_into_quarantine(self) -> None:
        """Damage that nobody misses anything of any more, and of which there is a copy, is an old story."""
        missed = {lost.segment for lost in self._report.lost}
        self._report.damaged = [
            damage._replace(quarantined=damage.segment not in missed and self._is_kept(damage))
            for damage in self._report.damaged
        ]

    def _is_kept(self, damage: Damage) -> bool:
        return self._files.exists(self._layout.quarantined(int(damage.segment, 16), damage.start, "damaged"))


@contextmanager
def _database(path: str) -> Iterator[sqlite3.Connection]:
    """For evidence; nobody needs it after a crash."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA synchronous = OFF")
        database.executescript(evidence.TABLES)
        yield database
