"""
Calls into code that keeps Twisted's interfaces, not ours.

Such code may raise, answer at once, with a Deferred or with a coroutine, late, or never.  What it raises that is no refusal is passed
on: sessions take it for the bug it is.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from mailhost.events import Bug, Observer
from mailhost.refusal import TookTooLong


class Calls:
    """Calls with a limit."""

    def __init__(self, reactor: IReactorTime, observer: Observer) -> None:
        self._reactor = reactor
        self._observer = observer

    async def answer(
        self,
        seconds: float,
        function: Callable[..., Any],
        *arguments: Any,
        late: Callable[[Any], object] | None = None,
    ) -> Any:
        """
        What a function answers, waited for if need be.

        @param late: called with an answer that came when nobody waited any more.
        @raise TookTooLong: there was none in so many seconds.  The Deferred was cancelled.
        """
        answer = function(*arguments)
        if isinstance(answer, Coroutine):
            answer = Deferred.fromCoroutine(answer)
        if isinstance(answer, Deferred):
            return await self._in_time(seconds, answer, late)
        return answer

    async def _in_time(self, seconds: float, answer: Deferred[Any], late: Callable[[Any], object] | None) -> Any:
        # Waited for by a Deferred of our own: a foreign one may have a canceller that raises, or that never lets it fire.
        waiter: Deferred[Any] = Deferred()
        answer.addBoth(self._hand_over, waiter, late)
        if waiter.called:
            return await waiter
        timer = self._reactor.callLater(seconds, waiter.errback, TookTooLong(cause="an answer that did not come"))
        try:
            return await waiter
        except Exception:  # the limit, or our caller was cancelled; their own failure has nothing left to cancel
            self.safely("canceller", answer.cancel)
            raise
        finally:
            if timer.active():
                timer.cancel()

    def _hand_over(self, result: Any, waiter: Deferred[Any], late: Callable[[Any], object] | None) -> None:
        if not waiter.called:
            waiter.callback(result)
        elif late is not None and not isinstance(result, Failure):
            self.safely("late answer", late, result)

    def safely(self, where: str, function: Callable[..., object], *arguments: Any) -> None:
        """Call what must not disturb us; what it raises is reported."""
        try:
            function(*arguments)
        except Exception as error:
            self._observer(Bug(where, error))
