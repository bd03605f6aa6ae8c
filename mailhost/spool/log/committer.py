"""
Group commit: everything that became whole in one turn of the reactor is written and synced once.

Never a timer, never a thread per message.  `callLater(0)` is the end of the turn.  While syncs are short the group is written right
there; otherwise one thread takes all that waits while the next group gathers.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from mailhost.events import Notice, Observer, Trouble
from mailhost.refusal import Refusal, SpoolFull, SpoolUnavailable
from mailhost.spool.log.entries import Entry
from mailhost.spool.log.index import Change
from mailhost.spool.log.indexer import Indexer
from mailhost.spool.log.pace import Pace
from mailhost.spool.log.records import DELETION, MESSAGE
from mailhost.spool.log.writer import Writer, is_full, refusal_of

_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0

Waiting = tuple[Entry, "Deferred[None]"]


class Committer:
    """
    Lives in the reactor's thread; `_work` is its own.

    States: idle; a group gathers; a group is with the thread while the next one gathers.  Beside it, whether the spool refuses:
    after a failure whose fence could not be written, until it could.
    """

    def __init__(
        self,
        reactor: Any,
        writer: Writer,
        indexer: Indexer,
        pace: Pace,
        observer: Observer,
        make_room: Callable[[], bool] = lambda: False,
    ) -> None:
        """@param make_room: called in the thread when the disk is full; says whether there is more room now."""
        self._make_room = make_room
        self._reactor = reactor
        self._writer = writer
        self._indexer = indexer
        self._pace = pace
        self._observer = observer
        self._gathering: list[Waiting] = []
        self._in_flight: list[Waiting] | None = None
        self._scheduled = False
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._idle: list[Deferred[None]] = []
        self._asides: list[Callable[[], None]] = []
        self._mending: Any = None
        self._pause = _FIRST_PAUSE_SECONDS
        self._stopping = False
        self.refusal: Refusal | None = None
        """Why the spool takes nothing now, if so."""

    @property
    def is_working(self) -> bool:
        """Between start and the end of stop."""
        return self._thread is not None

    def start(self) -> None:
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="spool committer", daemon=True)
        self._thread.start()

    def commit(self, entry: Entry) -> Deferred[None]:
        """
        @return: fires when the record is durable.  Cancelling it undoes nothing.
        @raise Refusal: nothing of it was stored.
        """
        outcome: Deferred[None] = Deferred()
        if self._stopping or (self.refusal is not None and not self._may_empty(entry)):
            outcome.errback(self.refusal or SpoolUnavailable(cause="stopping"))
            return outcome
        self._gathering.append((entry, outcome))
        if self._in_flight is None and not self._scheduled:
            self._schedule()
        return outcome

    def _may_empty(self, entry: Entry) -> bool:
        """A deletion is tried on a full disk too: it is how the disk gets room."""
        return entry.kind == DELETION and isinstance(self.refusal, SpoolFull)

    # -- one group

    def _schedule(self) -> None:
        self._scheduled = True
        self._reactor.callLater(0, self._turn_ended)

    def _turn_ended(self) -> None:
        self._scheduled = False
        if self._in_flight is not None:
            return
        if self._asides:
            self._in_flight = []  # the writer is the thread's until it is done
            self._jobs.put(self._asides.pop(0))
            return
        if not self._gathering:
            return
        self._in_flight, self._gathering = self._gathering, []
        group = [entry for entry, _ in self._in_flight]
        if self._pace.in_turn and self._writer.is_ready and not any(entry.heavy for entry in group):
            self._commit_in_turn(group)
        else:
            self._jobs.put(lambda: self._commit_in_thread(group, None))

    def _commit_in_turn(self, group: list[Entry]) -> None:
        try:
            change = self._writer.write(group)
        except OSError as error:  # the rest takes a new segment, and time
            failed = error
            self._jobs.put(lambda: self._commit_in_thread(group, failed))
            return
        except Exception as error:  # a bug, which must not make everybody wait for ever
            self._group_failed(error)
            return
        self._pace.took_in_turn(self._writer.sync_seconds)
        self._indexer.index_in_turn(change)
        self._succeeded()

    def _commit_in_thread(self, group: list[Entry], failed: OSError | None) -> None:
        try:
            change = self._write(group, failed)
            indexed = self._indexer.index_in_thread(change)
        except BaseException as error:
            self._reactor.callFromThread(self._group_failed, error)
        else:
            self._reactor.callFromThread(self._group_written, change, indexed)

    def _write(self, group: list[Entry], failed: OSError | None) -> Change:
        """After a failure a new segment is begun, which states where the failed one ends; on a full disk that made room."""
        if failed is None:
            try:
                return self._writer.write(group)
            except OSError as error:
                failed = error
        has_room = self._make_room_for(group, failed)
        if not self._writer.owes_fences:  # the segment could not even be begun
            if not has_room:
                raise failed
            return self._writer.write(group)
        self._tell(Trouble("the spool's disk failed a write or a sync; nothing of that group was acknowledged", failed))
        self._writer.begin_segment()
        if not is_full(failed):
            raise failed
        try:
            return self._writer.write(group)
        except OSError:
            self._writer.begin_segment()
            raise

    def _make_room_for(self, group: list[Entry], failed: OSError) -> bool:
        """For deletions, and what is said of maildrops; messages have to wait until there is room."""
        return is_full(failed) and any(entry.kind != MESSAGE for entry in group) and self._make_room()

    def _tell(self, event: Trouble) -> None:
        self._reactor.callFromThread(self._observer, event)

    def _group_written(self, change: Change, indexed: bool) -> None:
        self._pace.took_in_thread(self._writer.sync_seconds)
        if indexed:
            self._indexer.indexed_in_thread()
        else:
            self._indexer.index_later(change)
        self._succeeded()

    def _succeeded(self) -> None:
        self._pause = _FIRST_PAUSE_SECONDS
        self._ended(None)

    def _group_failed(self, error: BaseException) -> None:
        reason = refusal_of(error) if isinstance(error, OSError) else error
        if isinstance(reason, SpoolFull) or not self._writer.is_ready:
            self._refuse(reason if isinstance(reason, Refusal) else SpoolUnavailable(cause=reason))
        self._ended(Failure(reason))

    def _ended(self, failure: Failure | None) -> None:
        group, self._in_flight = self._in_flight or [], None
        if self._gathering or self._asides:
            self._schedule()
        for _, outcome in group:
            if failure is None:
                outcome.callback(None)
            else:
                outcome.errback(failure)
        if self._idle and self._in_flight is None and not self._gathering and not self._asides:
            idle, self._idle = self._idle, []
            for waiter in idle:
                waiter.callback(None)

    # -- while the disk fails

    def _refuse(self, refusal: Refusal) -> None:
        """Take nothing until a new segment could be begun, or some time has passed on a full disk."""
        if self.refusal is None:
            self._observer(Trouble("the spool takes no mail until its disk does", refusal.cause))
        self.refusal = refusal
        if self._mending is None and not self._stopping:
            self._mending = self._reactor.callLater(self._pause, self._mend)
            self._pause = min(self._pause * 2, _LONGEST_PAUSE_SECONDS)

    def _mend(self) -> None:
        if self._in_flight is not None:
            self._mending = self._reactor.callLater(_FIRST_PAUSE_SECONDS, self._mend)
            return
        self._mending = None
        self._in_flight = []  # the writer is the thread's until it is done
        self._jobs.put(self._mend_in_thread)

    def _mend_in_thread(self) -> None:
        try:
            self._begin_segment()
        except OSError as error:
            self._reactor.callFromThread(self._mended, refusal_of(error))
        else:
            self._reactor.callFromThread(self._mended, None)

    def _begin_segment(self) -> None:
        try:
            if not self._writer.is_ready:
                self._writer.begin_segment()
        except OSError as error:
            if not (is_full(error) and self._make_room()):
                raise
            self._writer.begin_segment()

    def _mended(self, refusal: Refusal | None) -> None:
        if refusal is not None:
            self._refuse(refusal)
        else:
            self.refusal = None
            self._observer(Notice("the spool's disk is tried again"))
        self._ended(None)

    # -- between groups

    def aside(self, work: Callable[[], None]) -> Deferred[None]:
        """
        Run this in the committer's thread while no group is under way: it may use the writer.

        @return: fires when it has returned; fails with what it raises.
        """
        done: Deferred[None] = Deferred()
        if self._stopping:
            done.errback(SpoolUnavailable(cause="stopping"))
            return done
        self._asides.append(lambda: self._work_aside(work, done))
        if self._in_flight is None and not self._scheduled:
            self._schedule()
        return done

    def _work_aside(self, work: Callable[[], None], done: Deferred[None]) -> None:
        try:
            work()
        except BaseException:
            self._reactor.callFromThread(self._aside_ended, done.errback, Failure())
        else:
            self._reactor.callFromThread(self._aside_ended, done.callback, None)

    def _aside_ended(self, tell: Callable[[Any], None], outcome: Any) -> None:
        self._ended(None)
        tell(outcome)

    # -- the thread

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    def _close_in_thread(self, closed: Deferred[Change]) -> None:
        try:
            change = self._writer.close()
        except BaseException:
            self._reactor.callFromThread(closed.errback, Failure())
        else:
            self._reactor.callFromThread(closed.callback, change)

    async def stop(self) -> None:
        """Commit what waits, seal the segment, end the thread."""
        self._stopping = True
        if self._mending is not None:
            self._mending.cancel()
            self._mending = None
        if self._gathering or self._asides or self._in_flight is not None:
            idle: Deferred[None] = Deferred()
            self._idle.append(idle)
            await idle
        closed: Deferred[Change] = Deferred()
        self._jobs.put(lambda: self._close_in_thread(closed))
        change = await closed
        if change.positions:
            self._indexer.index_later(change)
        self._jobs.put(None)
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.refusal = None
        self._pause = _FIRST_PAUSE_SECONDS
