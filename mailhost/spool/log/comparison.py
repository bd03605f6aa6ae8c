"""
What the index says and should not, and what it does not say and should: joins of the evidence with a copy of the index.

The evidence is in the database itself, see `evidence`; the copy is attached as `i`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection

from mailhost.spool.log.findings import Forgotten, Lost, Report, Unstated


def compare(database: sqlite3.Connection, segments: Collection[int], report: Report) -> None:
    """@param segments: those that are there."""
    _tell_lost(database, _LOST, _NAMES, report)
    report.forgotten += [Forgotten(*row) for row in database.execute(_FORGOTTEN)]
    report.unstated += [
        Unstated(id, name, named, bool(removed)) for id, name, named, removed in database.execute(_UNSTATED)
    ]
    for text, query in _DISAGREEMENTS:
        (count,) = database.execute(f"SELECT count(*) FROM ({query})").fetchone()
        if count:
            report.disagreements.append(f"{text}: {count}")
    for (id,) in database.execute("SELECT id FROM i.segments WHERE position > 0"):
        if id not in segments:
            report.disagreements.append(f"segment {id:016x} is in the index and is not there")


def tell_lost_without_index(database: sqlite3.Connection, report: Report) -> None:
    """Those that are known by what could still be read of them."""
    _tell_lost(database, _LOST_WITHOUT_INDEX, _NAMES_WITHOUT_INDEX, report)


def _tell_lost(database: sqlite3.Connection, query: str, names: str, report: Report) -> None:
    name_of = dict(database.execute(names))
    for maildrop, unique_id, time, octets, segment, offset, length in database.execute(query):
        name = name_of.get(maildrop, f"{maildrop:016x}")
        report.lost.append(Lost(name, maildrop, unique_id, time, octets, f"{segment:016x}", offset, length))


_REMOVED = "SELECT id FROM i.maildrops WHERE removed UNION SELECT maildrop FROM bound WHERE removed"
_NO_RECORD = "NOT EXISTS (SELECT 1 FROM seen AS s WHERE s.maildrop = m.maildrop AND s.unique_id = m.unique_id)"
_LOST = (
    "SELECT m.maildrop, m.unique_id, m.time, m.octets, m.segment, m.offset, m.length FROM i.messages AS m"
    f" WHERE {_NO_RECORD} AND m.maildrop NOT IN ({_REMOVED}) ORDER BY 1, 3"
)
_LOST_WITHOUT_INDEX = (
    f"SELECT m.* FROM broken AS m WHERE {_NO_RECORD} AND m.maildrop NOT IN (SELECT maildrop FROM bound WHERE removed)"
    " AND NOT EXISTS (SELECT 1 FROM gone AS g WHERE g.maildrop = m.maildrop AND g.unique_id = m.unique_id) ORDER BY 1, 3"
)
_NAMES_WITHOUT_INDEX = "SELECT maildrop, name FROM bound WHERE name IS NOT NULL ORDER BY named"
_NAMES = "SELECT id, name FROM i.maildrops WHERE name IS NOT NULL"
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
