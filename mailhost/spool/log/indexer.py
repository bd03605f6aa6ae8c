"""
Brings committed groups into the index, in their order, and sees to it that none is left out.

A group is acknowledged when its segment is synced, whatever the index says: one that could not be indexed at once waits here, and
those behind it wait with it, since a segment's position may only move over what is indexed.  After a crash they are read again from
the segment.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred

from mailhost.events import Observer, Trouble
from mailhost.refusal import SpoolUnavailable
from mailhost.spool.files import Files
from mailhost.spool.log.index import Change, Index, Outdated, is_busy
from mailhost.spool.log.threads import Threads

_SOON_SECONDS = 0.05
_LATER_SECONDS = 0.5
_LONGEST_SECONDS = 30.0
# Transactions after which the index's own log is emptied: some megabytes, so that a start has little to read there.
_CHECKPOINT_AFTER = 200


class Indexer:
    """Lives in the reactor's thread, but for `index_in_thread`."""

    def __init__(
        self,
        reactor: Any,
        files: Files,
        index: Index,
        threads: Threads,
        observer: Observer,
        change_over: Callable[[], Awaitable[None]],
    ) -> None:
        """@param change_over: opens an index that another process has built, and reads our own segments into it."""
        self._change_over = change_over
        self._reactor = reactor
        self._files = files
        self._index = index
        self._threads = threads
        self._observer = observer
        self._waiting: list[Change] = []
        self._waiters: list[Deferred[None]] = []
        self._retry: Any = None
        self._working: Deferred[int] | None = None
        self._pause = _SOON_SECONDS
        self._commits = 0
        self._checkpoint: Deferred[None] | None = None

    @property
    def behind(self) -> bool:
        """Whether something durable is not in the index yet."""
        return bool(self._waiting)

    def index_in_turn(self, change: Change) -> None:
        """Never raises: what cannot be done now is done later."""
        if not self._waiting:
            try:
                if self._index.commit_now(change):
                    self._indexed()
                    return
            except Exception as error:  # whatever it is, the group is durable and its waiters are told so
                self._complain(error)
        self.index_later(change)

    def index_in_thread(self, change: Change) -> bool:
        """@return: false when this has to go through `index_later`.  Groups come one at a time, so nothing overtakes another."""
        if self._waiting:
            return False
        try:
            self._index.commit([change])
        except Exception:  # it comes again, and is complained of then
            return False
        return True

    def indexed_in_thread(self) -> None:
        """To be told afterwards, when `index_in_thread` has succeeded."""
        self._indexed()

    def _indexed(self) -> None:
        self._files.fault_point("index.committed")
        self._commits += 1
        if self._commits >= _CHECKPOINT_AFTER and self._checkpoint is None:
            self._commits = 0
            self._checkpoint = self._threads.run(self._index.checkpoint)
            self._checkpoint.addErrback(self._not_checkpointed)
            self._checkpoint.addCallback(self._checkpointed)

    def _checkpointed(self, _: None) -> None:
        self._checkpoint = None

    def _not_checkpointed(self, failure: Any) -> None:
        failure.trap(sqlite3.Error)
        if not is_busy(failure.value):
            self._complain(failure.value)

    def index_later(self, change: Change) -> None:
        change.again = True  # whoever takes the segment over in the meantime indexes it too
        self._waiting.append(change)
        self._try_again_in(_SOON_SECONDS)

    def caught_up(self) -> Deferred[None]:
        """@return: fires when nothing is behind.  @raise SpoolUnavailable: the index takes nothing now."""
        waiter: Deferred[None] = Deferred()
        if self._waiting:
            self._waiters.append(waiter)
        else:
            waiter.callback(None)
        return waiter

    def _try_again_in(self, seconds: float) -> None:
        if self._retry is None and self._working is None:
            self._retry = self._reactor.callLater(seconds, self._try)

    def _try(self) -> None:
        self._retry = None
        self._working = working = Deferred.fromCoroutine(self._commit_waiting())
        working.addCallbacks(self._done, self._failed)

    async def _commit_waiting(self) -> int:
        """@return: how many changes were committed."""
        if self._index.is_outdated:
            await self._change_over()
        changes = list(self._waiting)
        await self._threads.run(self._index.commit, changes)
        return len(changes)

    def check(self) -> None:
        """Called before the index is read: a new one is changed over to first, and `caught_up` waits for that."""
        if self._index.is_outdated and not self._waiting:
            self.index_later(Change())

    def _done(self, count: int) -> None:
        self._working = None
        self._pause = _SOON_SECONDS
        del self._waiting[:count]
        self._indexed()
        if self._waiting:
            self._try()
        else:
            self._tell(lambda waiter: waiter.callback(None))

    def _failed(self, failure: Any) -> None:
        self._working = None
        error = failure.value
        if isinstance(error, Outdated) or (isinstance(error, sqlite3.Error) and is_busy(error)):
            self._pause = _SOON_SECONDS
        elif isinstance(error, SpoolUnavailable):  # somebody is building a new one
            self._pause = _LATER_SECONDS
            self._tell(lambda waiter: waiter.errback(error))
        else:
            self._complain(error)
            self._pause = min(self._pause * 2, _LONGEST_SECONDS)
            self._tell(lambda waiter: waiter.errback(SpoolUnavailable(cause=error)))
        self._try_again_in(self._pause)

    def _tell(self, tell: Callable[[Deferred[None]], None]) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            tell(waiter)

    def _complain(self, error: BaseException) -> None:
        self._observer(Trouble("the index cannot be written; mail is safe in its segments and is indexed later", error))

    async def stop(self) -> None:
        """One more try, if something waits; what is not indexed then is found at the next start."""
        for under_way in (self._working, self._checkpoint):
            if under_way is not None:
                await _ended(under_way)
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        try:
            if self._waiting:
                await self._commit_waiting()
        except (SpoolUnavailable, OSError, sqlite3.Error) as error:
            self._complain(error)
        self._waiting = []
        self._tell(lambda waiter: waiter.errback(SpoolUnavailable(cause="stopping")))


def _ended(working: Deferred[Any]) -> Deferred[None]:
    ended: Deferred[None] = Deferred()
    working.addBoth(lambda _: ended.callback(None))
    return ended
