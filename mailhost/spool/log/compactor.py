"""Drives compaction in the background, at a pace that deliveries and sessions do not feel."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.task import deferLater

from mailhost.events import Bug, Notice, Observer, Trouble
from mailhost.refusal import SpoolUnavailable
from mailhost.spool.log.compaction import Compaction, Gain
from mailhost.spool.log.index import Outdated, is_busy
from mailhost.spool.log.threads import Threads

_BETWEEN_SECONDS = 60.0
# Shorter pauses are saved up.
_SHORTEST_PAUSE_SECONDS = 0.01
# Where syncs are slow now, somebody waits for them: that many times slower then.
_SLOWER = 8


class Compactor:
    """Lives in the reactor's thread.  Not started; started; stopped, and then it can be started again."""

    def __init__(
        self,
        reactor: Any,
        compaction: Compaction,
        observer: Observer,
        octets_per_second: int,
        since: Callable[[], int],
        is_disk_slow: Callable[[], bool],
    ) -> None:
        """
        @param since: asked at each pass, in a thread: what was deleted later is held back; microseconds since 1970.
        @param is_disk_slow: whether those who deliver have to wait for the disk now.
        """
        self._reactor = reactor
        self._compaction = compaction
        self._observer = observer
        self._octets_per_second = octets_per_second
        self._since = since
        self._is_disk_slow = is_disk_slow
        self._threads = Threads(reactor, most=1)
        self._one_at_a_time = DeferredLock()
        self._next: Any = None
        self._pause: Deferred[None] | None = None
        self._owed = 0.0
        self._hurry = False
        self._complained = ""  # of what, so that it is said once
        self._stopping = True

    def start(self) -> None:
        self._stopping = False
        self._threads.start()
        self._schedule()

    def _schedule(self) -> None:
        if not self._stopping:
            self._next = self._reactor.callLater(_BETWEEN_SECONDS, self._begin)

    def _begin(self) -> None:
        self._next = None
        Deferred.fromCoroutine(self._run_in_background())

    async def _run_in_background(self) -> None:
        try:
            await self.run()
        except (OSError, sqlite3.Error, SpoolUnavailable) as error:
            if not self._stopping and not _comes_right(error) and str(error) != self._complained:
                self._complained = str(error)
                self._observer(Trouble("compaction could not go on; it is tried again", error))
        except Exception as error:
            self._observer(Bug("compaction", error))
        self._schedule()

    def hurry(self) -> None:
        """The disk is full: from now to the end of a whole pass without pauses."""
        self._hurry = True
        self._end_pause()
        if self._next is not None:
            self._next.reset(0)

    async def run(self) -> Gain:
        """
        One pass now, after one that is under way.

        @raise OSError: or sqlite3.Error or SpoolUnavailable; what was not done is for another pass.
        """
        async with self._one_at_a_time:
            hurried = self._hurry
            since = await self._threads.run(self._since)
            steps = self._compaction.run(since)
            try:
                while not self._stopping:
                    octets = await self._threads.run(next, steps, None)
                    if octets is None:
                        break
                    await self._rest(octets)
            finally:
                await self._threads.run(_close, steps)
            self._complained = ""
            gain = self._compaction.gain()
            if gain.segments:
                self._observer(Notice(f"compaction: {gain.segments} segments are gone, {gain.octets} octets in all"))
            if hurried:
                self._hurry = False
            return gain

    async def _rest(self, octets: int) -> None:
        if self._hurry or not self._octets_per_second:
            return
        self._owed += octets / self._octets_per_second * (_SLOWER if self._is_disk_slow() else 1)
        if self._owed < _SHORTEST_PAUSE_SECONDS or self._stopping:
            return
        seconds, self._owed = self._owed, 0.0
        self._pause = deferLater(self._reactor, seconds)
        try:
            await self._pause
        except CancelledError:
            pass
        finally:
            self._pause = None

    def _end_pause(self) -> None:
        if self._pause is not None:
            self._pause.cancel()

    async def stop(self) -> None:
        """At the next step's end."""
        if self._stopping:
            return
        self._stopping = True
        if self._next is not None:
            self._next.cancel()
            self._next = None
        self._end_pause()
        async with self._one_at_a_time:
            self._threads.stop()


def _close(steps: Iterator[int]) -> None:
    steps.close()  # type: ignore[attr-defined]


def _comes_right(error: Exception) -> bool:
    """By itself, at another pass."""
    if isinstance(error, sqlite3.Error):
        return isinstance(error, Outdated) or is_busy(error)
    return isinstance(error, SpoolUnavailable)
