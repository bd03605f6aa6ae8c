"""
The index: an SQLite database derived from the segments, shared by all processes of one spool.

It is never the truth.  What it says about a segment is right up to the segment's `position`, which changes in the same transaction as
the rows, so that whatever a crash leaves of it, the rest is found by reading on from there.

    segments   position; sealed: nothing will follow; live: octets of its records, counted once for each maildrop they are in;
               kept: octets of records that are no messages, where compaction has looked;
               awaited: it was there when this index was built, and is not in it yet, see `build`
    maildrops  name (null for one that is removed, or not yet heard of), named: when it got it; totals; changes: a count of them
    messages   added: the maildrop's count of changes with which the row came, so that a listing can be read later than its totals
    deletions  a deletion always wins: a message that is listed here never comes back; the row keeps where it is, and goes when no
               segment holds the message any more
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

from mailhost.envelope import Totals
from mailhost.refusal import SpoolUnavailable
from mailhost.spool.log.counts import Counts

_FORMAT = 3
_APPLICATION = 0x6D68_6F31
_MANY_FRAMES = 4096  # pages of 4 KiB in the write-ahead log
_PATIENCE_SECONDS = 10.0  # for another process that is writing

_SCHEMA = """
CREATE TABLE segments (
    id INTEGER PRIMARY KEY,
    position INTEGER NOT NULL DEFAULT 0,
    sealed INTEGER NOT NULL DEFAULT 0,
    live INTEGER NOT NULL DEFAULT 0,
    kept INTEGER NOT NULL DEFAULT 0,
    awaited INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX segments_awaited ON segments (id) WHERE awaited;
CREATE TABLE maildrops (
    id INTEGER PRIMARY KEY,
    name TEXT UNIQUE,
    named INTEGER NOT NULL DEFAULT 0,
    removed INTEGER NOT NULL DEFAULT 0,
    messages INTEGER NOT NULL DEFAULT 0,
    octets INTEGER NOT NULL DEFAULT 0,
    changes INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE messages (
    maildrop INTEGER NOT NULL,
    time INTEGER NOT NULL,
    unique_id TEXT NOT NULL,
    octets INTEGER NOT NULL,
    segment INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    length INTEGER NOT NULL,
    added INTEGER NOT NULL,
    PRIMARY KEY (maildrop, time, unique_id)
) WITHOUT ROWID;
CREATE TABLE deletions (
    maildrop INTEGER NOT NULL,
    unique_id TEXT NOT NULL,
    deleted INTEGER NOT NULL,
    time INTEGER NOT NULL,
    octets INTEGER,
    segment INTEGER,
    offset INTEGER,
    length INTEGER,
    PRIMARY KEY (maildrop, unique_id)
) WITHOUT ROWID;
CREATE INDEX deletions_by_segment ON deletions (segment, deleted);
"""

T = TypeVar("T")


class MessageRow(NamedTuple):
    maildrop: int
    time: int
    unique_id: str
    octets: int
    """Of the plain form, the maildrop's own fields counted."""
    segment: int
    offset: int
    length: int
    """Of the record."""


class Deletion(NamedTuple):
    maildrop: int
    deleted: int
    messages: Sequence[tuple[int, str]]
    """(time, unique id) of each."""


class Binding(NamedTuple):
    """What a catalogue record says.  Of two for one maildrop, and of two for one name, the later counts."""

    maildrop: int
    name: str | None
    named: int
    removed: bool = False


class Position(NamedTuple):
    segment: int
    position: int
    sealed: bool = False
    whole: bool = False
    """Everything before it is in this change; without that, nothing can be said of a segment that is awaited."""


class Change:
    """What a group of records, or a piece of a segment, means for the index."""

    __slots__ = ("again", "bindings", "deletions", "messages", "positions")

    def __init__(self, *, again: bool = False) -> None:
        """@param again: some of it may be known already, from an earlier try or from whoever took the segment over."""
        self.again = again
        self.messages: list[MessageRow] = []
        self.deletions: list[Deletion] = []
        self.bindings: list[Binding] = []
        self.positions: list[Position] = []


class Snapshot(NamedTuple):
    """A maildrop at one moment: of two equal ones the listing is the same."""

    built: int
    """Which index this was read from."""
    changes: int


class Place(NamedTuple):
    segment: int
    offset: int
    length: int


class Mismatch(sqlite3.DatabaseError):
    """There is no index, or one of another version: it is built anew."""


class Outdated(sqlite3.DatabaseError):
    """There is a new index, built by another process."""


class Index:
    """
    Connections to the index.  Any thread may call; none of it belongs on the reactor's, but for `commit_now`.

    Errors are `sqlite3.Error`, and leave the index as it was.
    """

    def __init__(self, path: str, counts: Counts) -> None:
        self._path = path
        self._counts = counts
        self._built = -1  # the count of indexes when this one was opened
        self._idle: list[sqlite3.Connection] = []
        self._open: list[sqlite3.Connection] = []
        self._impatient: sqlite3.Connection | None = None
        self._patient: sqlite3.Connection | None = None
        self._patiently = threading.Lock()
        self.damage: sqlite3.Error | None = None
        """What was seen of it, since it was opened, by whoever used it."""

    # -- opening

    def open(self, own: Change | None = None) -> None:
        """
        Again, when there is a new one; until it returns the old one is `is_outdated` to everybody.

        @param own: what stands in the segments held here, from their beginnings: into the index before anybody uses it.
        @raise sqlite3.Error: it is not there, or it is damaged; then it has to be built anew.
        """
        built = self._counts.indexes
        patient = self._connect(_PATIENCE_SECONDS)
        try:
            if own is not None:
                _commit(patient, lambda connection: _apply(connection, own))
            impatient = self._connect(_PATIENCE_SECONDS)
        except BaseException:
            self._disconnect(patient)
            raise
        impatient.execute("PRAGMA busy_timeout = 0")
        with self._patiently:
            self._idle = []  # what other threads have in hand belongs to the old one
            self._patient, self._impatient = patient, impatient
            self._built = built
        self.damage = None

    @property
    def built(self) -> int:
        """Which one this is: it moves when a new one is changed over to."""
        return self._built

    @property
    def is_outdated(self) -> bool:
        """Another process has built a new index, and ours is a file without a name."""
        return self._counts.indexes != self._built

    def _connect(self, seconds: float) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"file:{_quoted(self._path)}?mode=rw",
            uri=True,
            timeout=seconds,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=64,
        )
        try:
            _prepare(connection)
        except BaseException:
            connection.close()
            raise
        self._open.append(connection)
        return connection

    def _disconnect(self, connection: sqlite3.Connection) -> None:
        self._open.remove(connection)
        connection.close()

    def close(self) -> None:
        """All connections.  No other call may be under way."""
        connections, self._open = self._open, []
        self._idle.clear()
        self._impatient = self._patient = None
        for connection in connections:
            connection.close()

    # -- writing

    def commit_now(self, change: Change) -> bool:
        """Without waiting for anybody.  @return: false when somebody else is writing; nothing was done then."""
        assert self._impatient is not None
        if self.is_outdated:
            return False
        try:
            _commit(self._impatient, lambda connection: _apply(connection, change))
        except sqlite3.OperationalError as error:
            if is_busy(error):
                return False
            raise
        except sqlite3.DatabaseError as error:
            self._note(error)
            raise
        return True

    def _note(self, error: sqlite3.Error) -> None:
        if is_damaged(error):
            self.damage = error

    def commit(self, changes: Iterable[Change]) -> None:
        """Some seconds of patience, then an error.  @raise Outdated: it has to be opened again, and ours read again into it."""
        with self._patiently:
            assert self._patient is not None
            if self.is_outdated:
                raise Outdated("another process has built the index anew")
            try:
                _commit(self._patient, lambda connection: _apply_all(connection, changes))
            except sqlite3.Error as error:
                self._note(error)
                raise

    def write(self, work: Callable[[sqlite3.Connection], T], *, synced: bool = False) -> T:
        """
        Another kind of change, in one transaction.  Short, since deliveries wait for it.

        @param synced: on return it is durable, and so is all that was committed before.
        """
        with self._patiently:
            assert self._patient is not None
            if self.is_outdated:
                raise Outdated("another process has built the index anew")
            self._patient.execute(f"PRAGMA synchronous = {'FULL' if synced else 'NORMAL'}")
            try:
                return _commit(self._patient, work)
            finally:
                self._patient.execute("PRAGMA synchronous = NORMAL")

    def forget_some(self, maildrop: int, at_most: int = 1000) -> bool:
        """Take away rows of a maildrop that was removed.  @return: whether there may be more."""

        def forget(connection: sqlite3.Connection) -> bool:
            query = "SELECT segment, length, time, unique_id FROM messages WHERE maildrop = ? LIMIT ?"
            rows = connection.execute(query, (maildrop, at_most)).fetchall()
            connection.executemany(_DELETE_MESSAGE, [(maildrop, *row[2:]) for row in rows])
            connection.executemany(_LESS_LIVE, [(length, segment) for segment, length, *_ in rows])
            return len(rows) == at_most

        with self._patiently:
            assert self._patient is not None
            return _commit(self._patient, forget)

    def checkpoint(self) -> None:
        """
        Move what is in the write-ahead log to its place, so that the log begins anew with the next transaction.

        Most of it goes while others write.  They are made to wait only when the log has grown far, because they never left a gap.
        """
        connection = self._connect(seconds=1)
        try:
            first = _checkpoint(connection, "PASSIVE")
            second = _checkpoint(connection, "PASSIVE")
            if second != first and second >= _MANY_FRAMES:
                _checkpoint(connection, "RESTART")
        finally:
            self._disconnect(connection)

    # -- reading

    def totals(self, maildrop: int, *, so_far: bool = False) -> tuple[Totals, Snapshot]:
        """
        What is in the maildrop now, and the name of this moment.

        @param so_far: as far as this is known; otherwise a new index in which not everything is yet is waited for.
        """
        built = self._built

        def totals(connection: sqlite3.Connection) -> tuple[Totals, Snapshot]:
            if not so_far:
                _check_whole(connection)
            query = "SELECT messages, octets, changes FROM maildrops WHERE id = ?"
            messages, octets, changes = connection.execute(query, (maildrop,)).fetchone() or (0, 0, 0)
            return Totals(messages, octets), Snapshot(built, changes)

        return self._read(totals)

    def totals_now(self, maildrop: int) -> Totals | None:
        """On the reactor's thread, beside `commit_now`, without waiting for anybody.  @return: None when that cannot be."""
        if self._impatient is None or self.is_outdated:
            return None
        query = "SELECT messages, octets FROM maildrops WHERE id = ?"
        try:
            return Totals(*(self._impatient.execute(query, (maildrop,)).fetchone() or (0, 0)))
        except sqlite3.OperationalError as error:
            if is_busy(error):
                return None
            raise

    def listing(self, maildrop: int, snapshot: Snapshot) -> tuple[list[int], list[str]]:
        """@return: octets and unique ids as they were at that moment, in the order of their numbers."""
        # Text put together by SQLite and cut by Python costs a third of fetching rows, and most of it without the interpreter lock.
        query = (
            "SELECT group_concat(octets, ' '), group_concat(unique_id, ' ') FROM"
            " (SELECT octets, unique_id FROM messages WHERE maildrop = ? AND added <= ? ORDER BY time, unique_id)"
        )
        self._check(snapshot)

        def listing(connection: sqlite3.Connection) -> tuple[list[int], list[str]]:
            octets, unique_ids = connection.execute(query, (maildrop, snapshot.changes)).fetchone()
            if octets is None:
                return [], []
            return list(map(int, str(octets).split(" "))), unique_ids.split(" ")

        return self._read(listing)

    def places(self, maildrop: int, snapshot: Snapshot) -> list[tuple[int, int, int, int]]:
        """@return: (segment, offset, length, time) of each message, as `listing` has them."""
        query = "SELECT segment, offset, length, time FROM messages WHERE maildrop = ? AND added <= ? ORDER BY time, unique_id"
        self._check(snapshot)
        return self._read(lambda connection: connection.execute(query, (maildrop, snapshot.changes)).fetchall())

    def _check(self, snapshot: Snapshot) -> None:
        if snapshot.built != self._built:
            raise SpoolUnavailable(cause="the index was built anew beneath an open session")

    def maildrop(self, name: str) -> int | None:
        """The id behind a name.  None only when it is certain that there is no such name."""
        query = "SELECT id FROM maildrops WHERE name = ?"

        def maildrop(connection: sqlite3.Connection) -> int | None:
            rows = connection.execute(query, (name,)).fetchall()
            if not rows:
                _check_whole(connection)
                rows = connection.execute(query, (name,)).fetchall()  # it may have come just now
            return rows[0][0] if rows else None

        return self._read(maildrop)

    def has_name(self, maildrop: int) -> bool:
        query = "SELECT 1 FROM maildrops WHERE id = ? AND name IS NOT NULL"
        return bool(self._read(lambda connection: connection.execute(query, (maildrop,)).fetchone()))

    def named(self) -> int:
        """The time of the latest change of a name."""
        query = "SELECT coalesce(max(named), 0) FROM maildrops"
        found: int = self._read_whole(lambda connection: connection.execute(query).fetchone()[0])
        return found

    def had(self, maildrop: int, unique_ids: Sequence[str]) -> set[str]:
        """Those of these unique ids that are in the maildrop, or were and are known to be deleted."""
        query = (
            "SELECT unique_id FROM messages WHERE maildrop = ?1 AND unique_id IN (SELECT value FROM json_each(?2)) UNION"
            " SELECT unique_id FROM deletions WHERE maildrop = ?1 AND unique_id IN (SELECT value FROM json_each(?2))"
        )
        wanted = json.dumps(unique_ids)
        rows = self._read_whole(lambda connection: connection.execute(query, (maildrop, wanted)).fetchall())
        return {id for (id,) in rows}

    def names(self, after: str, at_most: int) -> list[str]:
        """Names of maildrops in order, from behind one."""
        query = "SELECT name FROM maildrops WHERE name > ? ORDER BY name LIMIT ?"
        rows = self._read_whole(lambda connection: connection.execute(query, (after, at_most)).fetchall())
        return [name for (name,) in rows]

    def segments(self) -> dict[int, Position]:
        query = "SELECT id, position, sealed FROM segments"
        rows = self._read(lambda connection: connection.execute(query).fetchall())
        return {id: Position(id, position, bool(sealed)) for id, position, sealed in rows}

    def awaited(self) -> list[int]:
        """Segments that were there when this index was built, and are not in it yet."""
        return [id for (id,) in self._read(lambda connection: connection.execute(_AWAITED).fetchall())]

    def forget_awaited(self, ids: Iterable[int]) -> None:
        """These are not there any more, and nothing of them is missed."""
        query = "UPDATE segments SET awaited = 0 WHERE id = ?"
        self.write(lambda connection: connection.executemany(query, [(id,) for id in ids]))

    def removed_with_messages(self) -> list[int]:
        """Maildrops that were removed and still have rows."""
        query = "SELECT id FROM maildrops WHERE removed AND EXISTS (SELECT 1 FROM messages WHERE maildrop = id)"
        return [id for (id,) in self._read(lambda connection: connection.execute(query).fetchall())]

    def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """One statement of somebody else's."""
        return self._read(query)

    def _read_whole(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """@raise SpoolUnavailable: also while not everything is in this index yet."""

        def read(connection: sqlite3.Connection) -> T:
            _check_whole(connection)
            return query(connection)

        return self._read(read)

    def _read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Transactions of one statement: each ends with its fetch."""
        if self.is_outdated:
            raise SpoolUnavailable(cause="the index is being changed for a new one")
        idle = self._idle
        try:
            connection = idle.pop() if idle else self._connect(_PATIENCE_SECONDS)
            result = query(connection)
        except SpoolUnavailable:
            idle.append(connection)
            raise
        except sqlite3.Error as error:
            self._note(error)
            raise SpoolUnavailable(cause=error) from error
        idle.append(connection)  # not after an error: that connection is closed with the index
        return result


def build(path: str, segments: Iterable[int]) -> None:
    """
    An empty index.

    What a segment says about names and mail is not known before all of it has been read, and some can be read only by the processes
    that hold them.  Until then no maildrop is opened and no name is made: it might be one that there is.

    @param path: of a file that does not exist yet.
    @param segments: all there are: they are awaited.
    """
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.executescript(_SCHEMA)
        connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        connection.execute(f"PRAGMA user_version = {_FORMAT}")
        _commit(connection, lambda connection: connection.executemany(_AWAIT, [(id,) for id in segments]))
    finally:
        connection.close()


_AWAIT = "INSERT INTO segments (id, awaited) VALUES (?, 1)"
_AWAITED = "SELECT id FROM segments WHERE awaited"


def _check_whole(connection: sqlite3.Connection) -> None:
    if connection.execute(_AWAITED + " LIMIT 1").fetchone():
        raise SpoolUnavailable(cause="the index is being built anew, and not everything is in it yet")


def _prepare(connection: sqlite3.Connection) -> None:
    if connection.execute("PRAGMA application_id").fetchone() != (_APPLICATION,):
        raise Mismatch("not an index of ours")
    if connection.execute("PRAGMA user_version").fetchone() != (_FORMAT,):
        raise Mismatch("an index of another version")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("PRAGMA cache_size = -8192")


def is_busy(error: sqlite3.Error) -> bool:
    """Somebody else has the lock: trying again is all there is to do."""
    return _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def is_damaged(error: object) -> bool:
    """Whether the index is not there, or no index of ours, or cannot be read for good: it has to be built anew."""
    if isinstance(error, SpoolUnavailable):
        error = error.cause
    return isinstance(error, Mismatch) or _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _code(error: object) -> int:
    """Errors that Python's module makes by itself have none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _quoted(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _checkpoint(connection: sqlite3.Connection, mode: str) -> int:
    """@return: how many pages of the log have been moved so far."""
    _, _, moved = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
    return int(moved)


def _commit(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    connection.execute("BEGIN IMMEDIATE")
    try:
        result = work(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return result


def _apply_all(connection: sqlite3.Connection, changes: Iterable[Change]) -> None:
    for change in changes:
        _apply(connection, change)


def _apply(connection: sqlite3.Connection, change: Change) -> None:
    (_replay if change.again else _add)(connection, change)


# -- new records: nothing of them is known yet

_ADD_MESSAGE = (
    "INSERT INTO messages SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, changes + 1 FROM maildrops WHERE id = ?1 AND NOT removed"
)
_ADD_TOTALS = "UPDATE maildrops SET messages = messages + ?, octets = octets + ?, changes = changes + 1 WHERE id = ? AND NOT removed"
_ADD_POSITION = (
    "INSERT INTO segments (id, position, sealed, live) VALUES (?1, ?2, ?3, ?5) ON CONFLICT (id) DO UPDATE"
    " SET position = iif(awaited AND NOT ?4, position, max(position, excluded.position)),"
    " sealed = iif(awaited AND NOT ?4, sealed, max(sealed, excluded.sealed)),"
    " awaited = awaited AND NOT ?4, live = live + excluded.live"
)


def _add(connection: sqlite3.Connection, change: Change) -> None:
    """Few calls for many rows, each giving up and taking back the interpreter lock."""
    for binding in change.bindings:
        _bind(connection, binding)
    if change.messages:
        totals: dict[int, list[int]] = {}
        live: dict[int, int] = {}
        for maildrop, _, _, octets, segment, _, length in change.messages:
            of = totals.setdefault(maildrop, [0, 0, maildrop])
            of[0] += 1
            of[1] += octets
            live[segment] = live.get(segment, 0) + length
        connection.executemany(_ADD_MESSAGE, change.messages)
        connection.executemany(_ADD_TOTALS, totals.values())
    else:
        live = {}
    for deletion in change.deletions:
        _delete(connection, deletion)
    # A new segment stands twice among the positions: it counts once.
    positions = [(*position, live.pop(position.segment, 0)) for position in change.positions]
    connection.executemany(_ADD_POSITION, positions)


# -- records that may be known already

_PLACE = "SELECT segment, offset, length FROM messages WHERE maildrop = ? AND time = ? AND unique_id = ?"
_PLACE_OF_DELETED = (
    "UPDATE deletions SET octets = ?, segment = ?, offset = ?, length = ? WHERE maildrop = ? AND unique_id = ?"
)
_MOVE = "UPDATE messages SET segment = ?, offset = ?, length = ? WHERE maildrop = ? AND time = ? AND unique_id = ?"


def _replay(connection: sqlite3.Connection, change: Change) -> None:
    """Row by row, since each may be new, moved or deleted; order does not matter."""
    for binding in change.bindings:
        _bind(connection, binding)
    for row in change.messages:
        _replay_message(connection, row)
    for deletion in change.deletions:
        _delete(connection, deletion)
    connection.executemany(_ADD_POSITION, [(*position, 0) for position in change.positions])


def _replay_message(connection: sqlite3.Connection, row: MessageRow) -> None:
    maildrop, time, unique_id, octets, segment, _, length = row
    if connection.execute(_PLACE_OF_DELETED, (octets, *row[4:], maildrop, unique_id)).rowcount:
        return
    connection.execute("INSERT OR IGNORE INTO segments (id) VALUES (?)", (segment,))
    connection.execute("INSERT OR IGNORE INTO maildrops (id) VALUES (?)", (maildrop,))
    known = connection.execute(_PLACE, (maildrop, time, unique_id)).fetchone()
    if known is None:
        if connection.execute(_ADD_MESSAGE, row).rowcount:
            connection.execute(_ADD_TOTALS, (1, octets, maildrop))
            connection.execute(_LESS_LIVE, (-length, segment))
    elif known != row[4:]:
        connection.execute(_MOVE, (*row[4:], maildrop, time, unique_id))
        connection.execute(_LESS_LIVE, (known[2], known[0]))
        connection.execute(_LESS_LIVE, (-length, segment))


# -- deletions and names: the same for new records and for known ones

_DELETE_MESSAGE = "DELETE FROM messages WHERE maildrop = ? AND time = ? AND unique_id = ?"
_LESS_LIVE = "UPDATE segments SET live = live - ? WHERE id = ?"
_LISTED = "SELECT json_extract(value, '$[0]') AS time, json_extract(value, '$[1]') AS unique_id FROM json_each(?2)"
_FOUND = f"({_LISTED}) AS listed CROSS JOIN messages AS m ON m.maildrop = ?1 AND m.time = listed.time AND m.unique_id = listed.unique_id"
_TOTALS_OF = f"SELECT m.segment, count(*), sum(m.octets), sum(m.length) FROM {_FOUND} GROUP BY m.segment"
_KEEP_DELETED = (
    "INSERT OR IGNORE INTO deletions (maildrop, deleted, unique_id, time, octets, segment, offset, length)"
    " SELECT ?1, ?3, listed.unique_id, listed.time, m.octets, m.segment, m.offset, m.length"
    f" FROM {_FOUND.replace('CROSS', 'LEFT')}"
)
_DELETE_LISTED = f"DELETE FROM messages WHERE maildrop = ?1 AND (time, unique_id) IN ({_LISTED})"


def _delete(connection: sqlite3.Connection, deletion: Deletion) -> None:
    maildrop = deletion.maildrop
    listed = json.dumps(deletion.messages)
    found = connection.execute(_TOTALS_OF, (maildrop, listed)).fetchall()
    connection.execute(_KEEP_DELETED, (maildrop, listed, deletion.deleted))
    if not found:
        return
    connection.execute(_DELETE_LISTED, (maildrop, listed))
    connection.execute(_ADD_TOTALS, (-sum(row[1] for row in found), -sum(row[2] for row in found), maildrop))
    connection.executemany(_LESS_LIVE, [(length, segment) for segment, _, _, length in found])


def _bind(connection: sqlite3.Connection, binding: Binding) -> None:
    connection.execute("INSERT OR IGNORE INTO maildrops (id) VALUES (?)", (binding.maildrop,))
    query = "SELECT named, removed FROM maildrops WHERE id = ?"
    named, removed = connection.execute(query, (binding.maildrop,)).fetchone()
    if removed or named >= binding.named:
        return
    name = binding.name
    if name is not None and not _take_name(connection, name, binding.named):
        name = None
    connection.execute("UPDATE maildrops SET name = ?, named = ? WHERE id = ?", (name, binding.named, binding.maildrop))
    if binding.removed:
        connection.execute(
            "UPDATE maildrops SET removed = 1, messages = 0, octets = 0, changes = changes + 1 WHERE id = ?",
            (binding.maildrop,),
        )


def _take_name(connection: sqlite3.Connection, name: str, named: int) -> bool:
    """@return: false when another maildrop got this name later."""
    holder = connection.execute("SELECT id, named FROM maildrops WHERE name = ?", (name,)).fetchone()
    if holder is None:
        return True
    if holder[1] > named:
        return False
    connection.execute("UPDATE maildrops SET name = NULL WHERE id = ?", (holder[0],))
    return True
