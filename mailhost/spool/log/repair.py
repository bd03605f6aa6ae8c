"""
Puts a damaged spool in order, and throws nothing away.

What cannot be read is copied to `quarantine/`, with a list of what was lost; maildrops stop listing messages of which no good record is
left.  Deletions and names whose records were hit, and which the index still knows, are written down anew, or they would come undone
with the next index.  A segment keeps its damaged stretch, since the good records around it stay where they are.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import groupby

from mailhost.spool.files import Files
from mailhost.spool.log.entries import CatalogueEntry, DeletionEntry, Entry
from mailhost.spool.log.findings import Damage, Forgotten, Lost, Report
from mailhost.spool.log.index import Binding, Deletion
from mailhost.spool.log.layout import Layout

_COPIED_OCTETS = 1024 * 1024
_ROWS_AT_ONCE = 500


def set_aside(files: Files, layout: Layout, report: Report) -> str | None:
    """
    Copy damaged stretches to quarantine, and list beside them what was lost; all of it durable on return.

    @return: the path of that list; None when nothing was lost.
    """
    for damage in report.damaged:
        _copy(files, layout, damage)
    listed = _write_list(files, layout, report.lost) if report.lost else None
    files.sync_directory(layout.quarantine)
    return listed


def _copy(files: Files, layout: Layout, damage: Damage) -> None:
    id = int(damage.segment, 16)
    path = layout.quarantined(id, damage.start, "damaged")
    if files.exists(path):
        return
    source = files.open(layout.segment(id))
    try:
        # Under its own name once it is whole, since that name says that there is a copy.
        target = files.create(_fresh(files, path + ".new"))
        try:
            for at, octets in _blocks(files, source, damage):
                files.write(target, [octets], at - damage.start)
            files.sync(target)
        finally:
            files.close(target)
        files.rename(path + ".new", path)
    finally:
        files.close(source)


def _blocks(files: Files, fd: int, damage: Damage) -> Iterator[tuple[int, bytes]]:
    """Offsets and octets; what the disk does not give is left out, and stays a hole in the copy."""
    for at in range(damage.start, damage.stop, _COPIED_OCTETS):
        try:
            octets = files.read(fd, min(_COPIED_OCTETS, damage.stop - at), at)
        except OSError:
            continue
        if octets:
            yield at, octets


def _write_list(files: Files, layout: Layout, lost: Iterable[Lost]) -> str:
    path = os.path.join(layout.quarantine, time.strftime("lost-%Y%m%dT%H%M%SZ.json", time.gmtime()))
    fd = files.create(_fresh(files, path))
    try:
        files.write(fd, [json.dumps([one._asdict() for one in lost], indent=1).encode()], 0)
        files.sync(fd)
    finally:
        files.close(fd)
    return path


def _fresh(files: Files, path: str) -> str:
    if files.exists(path):
        files.unlink(path)
    return path


def unlist(layout: Layout, lost: Sequence[Lost]) -> int:
    """
    Take lost messages out of their maildrops' listings.

    A session that has such a maildrop open may be told to try again; the next one sees it as it is.

    @return: how many were taken out: those that still stood where they had been seen.
    """
    count = 0
    with closing(sqlite3.connect(layout.index, timeout=30, isolation_level=None)) as connection:
        for first in range(0, len(lost), _ROWS_AT_ONCE):
            connection.execute("BEGIN IMMEDIATE")
            count += sum(_unlist_one(connection, one) for one in lost[first : first + _ROWS_AT_ONCE])
            connection.execute("COMMIT")
    return count


def _unlist_one(connection: sqlite3.Connection, lost: Lost) -> int:
    segment = int(lost.segment, 16)
    found = connection.execute(
        "DELETE FROM messages WHERE maildrop = ? AND time = ? AND unique_id = ? AND segment = ? AND offset = ?",
        (lost.id, lost.time, lost.unique_id, segment, lost.offset),
    ).rowcount
    if found:
        connection.execute(
            "UPDATE maildrops SET messages = messages - 1, octets = octets - ?, changes = changes + 1 WHERE id = ?",
            (lost.octets, lost.id),
        )
        connection.execute("UPDATE segments SET live = live - ? WHERE id = ?", (lost.length, segment))
    return found


def forget_missing_segments(files: Files, layout: Layout) -> None:
    """Those that are in the index, are not there, and of which nothing is listed any more."""
    with closing(sqlite3.connect(layout.index, timeout=30, isolation_level=None)) as connection:
        query = "SELECT id FROM segments WHERE position > 0 AND NOT EXISTS (SELECT 1 FROM messages WHERE segment = segments.id)"
        for (id,) in connection.execute(query).fetchall():
            if not files.exists(layout.segment(id)):
                connection.execute("DELETE FROM segments WHERE id = ?", (id,))


def restatements(report: Report) -> list[Entry]:
    """Records to be appended anew: deletions and names that only the index knows."""
    entries: list[Entry] = [DeletionEntry(deletion) for deletion in _deletions(report.forgotten)]
    return entries + [CatalogueEntry(Binding(*unstated)) for unstated in report.unstated]


def _deletions(forgotten: Iterable[Forgotten]) -> Iterator[Deletion]:
    def of(one: Forgotten) -> tuple[int, int]:
        return one.maildrop, one.deleted

    for (maildrop, deleted), ones in groupby(sorted(forgotten, key=of), of):
        yield Deletion(maildrop, deleted, [(one.time, one.unique_id) for one in ones])
