"""
Looks every second whether another process has built the index anew, and changes over to it; and whether our segment is still there.

Such an index knows nothing of segments that others hold: it awaits them, and until they are in it no maildrop is opened and no name is
made, in any process.  So everybody who lives has to change over soon, whether or not there is mail for him.  What a process held that
has ended meanwhile is taken over by whoever finds that it is still awaited.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock
from twisted.python.failure import Failure

from mailhost.events import Observer, Trouble
from mailhost.refusal import SpoolUnavailable
from mailhost.spool.files import Files
from mailhost.spool.log.committer import Committer
from mailhost.spool.log.index import Index, is_busy
from mailhost.spool.log.layout import Layout
from mailhost.spool.log.recovery import Recovery
from mailhost.spool.log.threads import Threads
from mailhost.spool.log.writer import Writer

_LOOK_SECONDS = 1.0
_BETWEEN_REBUILDS_SECONDS = 600.0


class _SomebodyStarts(SpoolUnavailable):
    """It may be building the index anew; soon it is done."""


class Watch:
    """Lives in the reactor's thread, but where it says otherwise.  Not started; started; stopped, and can be started again."""

    def __init__(
        self,
        reactor: Any,
        files: Files,
        layout: Layout,
        index: Index,
        threads: Threads,
        writer: Writer,
        committer: Committer,
        recovery: Recovery,
        observer: Observer,
    ) -> None:
        self._reactor = reactor
        self._files = files
        self._layout = layout
        self._index = index
        self._threads = threads
        self._writer = writer
        self._committer = committer
        self._recovery = recovery
        self._observer = observer
        self._one_at_a_time = DeferredLock()
        self._next: Any = None
        self._awaiting = False  # whether something may be missing in the index
        self._next_rebuild = 0.0
        self._trouble = ""  # what was told last

    def start(self) -> None:
        self._awaiting = True
        self._next = self._reactor.callLater(_LOOK_SECONDS, self._look)

    async def stop(self) -> None:
        """`change_over` may be called after it."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        async with self._one_at_a_time:
            pass

    def _look(self) -> None:
        self._next = self._reactor.callLater(_LOOK_SECONDS, self._look)
        self._committer.aside(self._writer.let_go_if_gone).addErrback(self._not_looked)
        if self._has_work and not self._one_at_a_time.locked:
            Deferred.fromCoroutine(self._change_over_quietly())

    def _not_looked(self, failure: Failure) -> None:
        """The disk does not even say whether a file is there; writing to it will fail too, and be told of."""
        failure.trap(OSError, SpoolUnavailable)

    @property
    def _has_work(self) -> bool:
        return self._index.is_outdated or self._awaiting or self._may_rebuild

    @property
    def _may_rebuild(self) -> bool:
        """Damage is built anew, though not again and again on a disk that is no good."""
        return self._index.damage is not None and self._reactor.seconds() >= self._next_rebuild

    async def _change_over_quietly(self) -> None:
        try:
            await self.change_over()
        except _SomebodyStarts:
            return
        except SpoolUnavailable as error:
            self._tell(error.cause)
        except (OSError, sqlite3.Error) as error:
            self._tell(error)
        else:
            self._trouble = ""

    def _tell(self, error: object) -> None:
        """Once, not every second."""
        if self._next is None or str(error) == self._trouble or (isinstance(error, sqlite3.Error) and is_busy(error)):
            return
        self._trouble = str(error)
        self._observer(Trouble("mail that another process has left is not in the index yet", error))

    async def change_over(self) -> None:
        """
        To the newest index, if ours is not; and bring into it what nobody holds.

        @raise SpoolUnavailable: somebody else is starting, and it has to be tried again.
        @raise OSError: or sqlite3.Error: the same.
        """
        async with self._one_at_a_time:
            if self._index.is_outdated:
                await self._alone(self._to_newest)
            elif self._may_rebuild:
                await self._alone(self._rebuild)
            elif self._awaiting:
                await self._alone(self._bring_in_the_rest)

    async def _alone(self, work: Callable[[], Awaitable[None]]) -> None:
        """While nobody else can start."""
        starting = await self._threads.run(self._layout.try_lock_start)
        if starting is None:
            raise _SomebodyStarts(cause="another process is starting, and may be building the index anew")
        try:
            await work()
        finally:
            self._files.close(starting)

    async def _rebuild(self) -> None:
        what = "the index is damaged and is built anew from the segments; POP3 says [SYS/TEMP] until that is done"
        self._observer(Trouble(what, self._index.damage))
        self._next_rebuild = self._reactor.seconds() + _BETWEEN_REBUILDS_SECONDS
        await self._threads.run(self._recovery.build_index)
        await self._to_newest()

    async def _to_newest(self) -> None:
        self._awaiting = True
        if self._committer.is_working:
            # Nothing may be written meanwhile: the first that is said of a segment to the new index must be all that is in it.
            await self._committer.aside(self._open_newest)
        else:
            await self._threads.run(self._open_newest)
        await self._bring_in_the_rest()

    def _open_newest(self) -> None:
        self._recovery.open_index(self._writer.own())

    async def _bring_in_the_rest(self) -> None:
        self._awaiting = await self._threads.run(self._take_over)

    def _take_over(self) -> bool:
        """@return: whether something is missing still."""
        if not self._index.awaited():
            return False
        self._recovery.take_over()
        return bool(self._index.awaited())
