"""
Awaiting across Twisted and asyncio.

Under the asyncio reactor one loop runs both, but each drives its own coroutines: Twisted's await Deferreds, asyncio's tasks await futures,
and to either the other's is an error.  An application's coroutines are run here as whatever it takes, and what we give them to await
is made to fit whoever awaits it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

_T = TypeVar("_T")


def called(function: Callable[..., Awaitable[_T]], *arguments: Any) -> Awaitable[_T]:
    """
    Call an application's function; await its answer as our own coroutines do.

    Where asyncio's loop runs, a coroutine becomes a task: it may await futures, Deferreds, or both in turn.
    """
    answer = function(*arguments)
    if isinstance(answer, Deferred) or _running_loop() is None:
        return answer
    return from_asyncio(answer)


def from_asyncio(awaitable: Awaitable[_T]) -> Deferred[_T]:
    """
    What asyncio can await, as a Deferred: a coroutine, a task or a future.  Cancelling the Deferred cancels it.

    @raise RuntimeError: asyncio's loop does not run here, so nothing would ever come of it.
    """
    loop = _running_loop()
    if loop is None:
        if asyncio.iscoroutine(awaitable):
            awaitable.close()
        raise RuntimeError("asyncio's loop does not run here: Twisted needs its asyncio reactor for this")
    deferred: Deferred[_T] = Deferred.fromFuture(loop.create_task(_translated(awaitable, loop)))
    return deferred.addErrback(_cancelled)


def here(deferred: Deferred[_T]) -> Awaitable[_T]:
    """A Deferred as whoever awaits it now can: in a task of asyncio's it is a future."""
    loop = _running_loop()
    if loop is None or asyncio.current_task(loop) is None:
        return deferred
    return deferred.asFuture(loop)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


async def _translated(awaitable: Awaitable[_T], loop: asyncio.AbstractEventLoop) -> _T:
    result: _T = await _Translated(awaitable, loop)
    return result


class _Translated:
    """Another awaitable, step by step, with a future in the place of each Deferred that it awaits."""

    def __init__(self, awaitable: Awaitable[Any], loop: asyncio.AbstractEventLoop) -> None:
        self._awaitable = awaitable
        self._loop = loop

    def __await__(self) -> Generator[Any, Any, Any]:
        steps: Any = self._awaitable.__await__()
        resume, value = steps.send, None
        while True:
            try:
                waited = resume(value)
            except StopIteration as end:
                return end.value
            try:
                if isinstance(waited, Deferred):
                    yield from _fired(waited, self._loop)
                    value = None
                else:
                    value = yield waited
                resume = steps.send
            except BaseException as error:
                resume, value = steps.throw, error


def _fired(deferred: Deferred[Any], loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
    """Done when a Deferred has its result, which stays there: whoever awaits a Deferred takes it from the Deferred itself."""
    future: asyncio.Future[None] = loop.create_future()

    def fired(result: Any) -> Any:
        if future.done():  # cancelled: nobody takes the result any more
            return None
        future.set_result(None)
        return result

    deferred.addBoth(fired)
    future.add_done_callback(lambda future: deferred.cancel() if future.cancelled() else None)
    return future


def _cancelled(failure: Failure) -> Failure:
    """Twisted's own exception in the place of asyncio's, which is no Exception and would pass through everything."""
    if failure.check(asyncio.CancelledError):
        return Failure(CancelledError())
    return failure
