"""A spool's own few threads, for what may wait for the disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from mailhost.refusal import SpoolUnavailable

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """Started and stopped with the spool; can be started again."""

    def __init__(self, reactor: Any, most: int = 4) -> None:
        self._reactor = reactor
        self._most = most
        self._pool: ThreadPool | None = None

    def start(self) -> None:
        self._pool = ThreadPool(0, self._most, "spool")
        self._pool.start()

    def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """@return: what `work` returns or raises, in the reactor's thread.  @raise SpoolUnavailable: there are no threads now."""
        if self._pool is None:
            return fail(SpoolUnavailable(cause="the spool is not running"))
        return deferToThreadPool(self._reactor, self._pool, work, *args, **kwargs)

    def stop(self) -> None:
        """Wait for what is under way."""
        if self._pool is not None:
            self._pool.stop()
            self._pool = None


def shielded(work: Deferred[T]) -> Deferred[T]:
    """@return: its outcome; cancelling this one lets go of the answer and does nothing to the work."""
    answer: Deferred[T] = Deferred()
    work.addCallbacks(answer.callback, answer.errback)
    return answer
