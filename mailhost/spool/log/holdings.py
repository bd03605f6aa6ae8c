"""
What the index knows about space: which segments are worth compacting, and what in them is still wanted.

A record is wanted where the index sends readers for it; a deletion, as long as any segment holds what it deletes; what is said of a
maildrop's name, when nothing later is.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

from mailhost.spool.log.index import Index

NOTHING_HELD = 1 << 62
"""A time that no deletion is later than."""

_ROWS_AT_ONCE = 500
# About what is needed to state each of these.
_OCTETS_PER_DELETION = 48
_OCTETS_PER_NAME = 200
_OCTETS_PER_SEGMENT = 400


class Holding(NamedTuple):
    """One sealed segment, in octets."""

    segment: int
    octets: int
    """Of the whole segment."""
    live: int
    """Of messages in maildrops."""
    kept: int
    """Of records that are no messages, as far as compaction has looked; by an estimate, since deletions come to be of no use."""
    held: int
    """Of deleted messages that are held back."""

    @property
    def wanted(self) -> int:
        return self.live + self.kept + self.held


class Holdings:
    """Any thread may call, but the reactor's.  @raise sqlite3.Error: from all of it."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def all(self) -> list[Holding]:
        """Also of segments that are not sealed; nothing is held back."""
        query = "SELECT id, position, live, kept, 0 FROM segments"
        rows = self._index.read(lambda connection: connection.execute(query).fetchall())
        return [Holding(*row) for row in rows]

    def sealed(self, since: int) -> list[Holding]:
        """@param since: what was deleted later is held back; microseconds since 1970."""
        rows = self._index.read(lambda connection: connection.execute(_SEALED, (since,)).fetchall())
        ((deletions, maildrops),) = self._index.read(lambda connection: connection.execute(_COUNTS).fetchall())
        needed = deletions * _OCTETS_PER_DELETION + maildrops * _OCTETS_PER_NAME + len(rows) * _OCTETS_PER_SEGMENT
        stated = sum(kept for _, _, _, kept, _ in rows)
        return [
            Holding(segment, octets, live, kept * min(needed, stated) // max(stated, 1), held)
            for segment, octets, live, kept, held in rows
        ]

    def live(self, segment: int) -> int:
        query = "SELECT live FROM segments WHERE id = ?"
        row = self._index.read(lambda connection: connection.execute(query, (segment,)).fetchone())
        return int(row[0]) if row else 0

    def wanted_drops(self, segment: int, offset: int, message: dict[str, Any], since: int) -> list[str]:
        """@return: those maildrops, as its metadata names them, for which this copy of a message is the one that counts."""

        def wanted(connection: sqlite3.Connection) -> list[str]:
            place = (message["time"], message["unique_id"], segment, offset, since)
            return [
                drop for drop in message["drops"] if connection.execute(_IS_WANTED, (int(drop, 16), *place)).fetchone()
            ]

        return self._index.read(wanted)

    def wanted_deletions(self, maildrop: int, messages: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
        """@return: those of these (time, unique id) that some segment may still hold."""
        listed = json.dumps([unique_id for _, unique_id in messages])
        rows = self._index.read(lambda connection: connection.execute(_DELETED, (maildrop, listed)).fetchall())
        unique_ids = {unique_id for (unique_id,) in rows}
        return [message for message in messages if message[1] in unique_ids]

    def is_latest_name(self, maildrop: int, named: int) -> bool:
        query = "SELECT 1 FROM maildrops WHERE id = ? AND named > ?"
        return self._index.read(lambda connection: connection.execute(query, (maildrop, named)).fetchone()) is None

    def keep(self, segment: int, octets: int) -> None:
        """
        Say how much of a segment is no messages, durably.

        All that was committed before is durable with it.
        """
        query = "UPDATE segments SET kept = ? WHERE id = ?"
        self._index.write(lambda connection: connection.execute(query, (octets, segment)), synced=True)

    def forget_some(self, segment: int) -> bool:
        """
        Forget a segment that is durably gone, and what was deleted in it.

        @return: whether there may be more to forget.
        """

        def forget(connection: sqlite3.Connection) -> bool:
            if connection.execute(_FORGET_DELETED, (segment, _ROWS_AT_ONCE)).rowcount == _ROWS_AT_ONCE:
                return True
            connection.execute("DELETE FROM segments WHERE id = ?", (segment,))
            return False

        return self._index.write(forget)

    def forget_unheld(self) -> None:
        """Forget deletions of messages that no segment holds.  Right only when all of them have been read."""
        query = "DELETE FROM deletions WHERE segment IS NULL"
        self._index.write(lambda connection: connection.execute(query))


_COUNTS = "SELECT (SELECT count(*) FROM deletions), (SELECT count(*) FROM maildrops)"
_SEALED = (
    "SELECT id, position, live, kept,"
    " (SELECT coalesce(sum(length), 0) FROM deletions WHERE segment = id AND deleted > ?)"
    " FROM segments WHERE sealed"
)
_IS_WANTED = (
    "SELECT 1 FROM messages WHERE maildrop = ?1 AND time = ?2 AND unique_id = ?3 AND segment = ?4 AND offset = ?5 UNION ALL"
    " SELECT 1 FROM deletions WHERE maildrop = ?1 AND unique_id = ?3 AND segment = ?4 AND offset = ?5 AND deleted > ?6"
)
_DELETED = "SELECT unique_id FROM deletions WHERE maildrop = ? AND unique_id IN (SELECT value FROM json_each(?))"
_FORGET_DELETED = (
    "DELETE FROM deletions WHERE (maildrop, unique_id) IN"
    " (SELECT maildrop, unique_id FROM deletions WHERE segment = ? LIMIT ?)"
)
