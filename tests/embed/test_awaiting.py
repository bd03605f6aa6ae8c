"""Coroutines of two worlds on one loop: each is driven by what it can be driven by."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, succeed

from mailhost.service.awaiting import called, from_asyncio, here


def on_loop(scenario: Callable[[], Awaitable[Any]]) -> Any:
    """Run as `asyncio.run` runs it; nothing here needs a reactor."""

    async def limited() -> Any:
        async with asyncio.timeout(10):
            return await scenario()

    return asyncio.run(limited())


def in_twisted(coroutine: Any) -> asyncio.Future[Any]:
    """A coroutine driven as Twisted drives it, its result for the test to await."""
    return Deferred.fromCoroutine(coroutine).asFuture(asyncio.get_running_loop())


def fired_soon(value: object) -> Deferred[Any]:
    deferred: Deferred[Any] = Deferred()
    asyncio.get_running_loop().call_soon(deferred.callback, value)
    return deferred


async def answer(function: Callable[..., Any], *arguments: Any) -> Any:
    return await called(function, *arguments)


def test_a_function_awaits_futures_and_deferreds() -> None:
    """In turn, in one coroutine, with asyncio's own ways to bound a wait."""

    async def function(start: int) -> int:
        async with asyncio.timeout(5):
            total = start + sum(await asyncio.gather(asyncio.sleep(0, 10), asyncio.sleep(0.001, 20)))
            total += await fired_soon(1) + await succeed(2)
            await asyncio.sleep(0)
        assert asyncio.current_task() is not None
        return total

    async def scenario() -> int:
        return await in_twisted(answer(function, 100))

    assert on_loop(scenario) == 133


def test_what_it_raises() -> None:
    """Exceptions come through both ways: out of the function, and into it from a Deferred or a future."""

    async def function() -> None:
        with pytest.raises(KeyError):
            await Deferred.fromCoroutine(fails(KeyError()))
        with pytest.raises(LookupError):
            await asyncio.gather(fails(LookupError()))
        raise ValueError("its own")

    async def fails(error: Exception) -> None:
        raise error

    async def scenario() -> None:
        with pytest.raises(ValueError, match="its own"):
            await in_twisted(answer(function))

    on_loop(scenario)


def test_cancelling_reaches_it() -> None:
    """A task sees asyncio's CancelledError at whatever it waits for, we see Twisted's, and a Deferred in between is cancelled."""
    for wait in (lambda: asyncio.Event().wait(), Deferred):
        seen: list[str] = []

        async def function() -> None:
            try:
                await wait()  # type: ignore[operator]  # noqa: B023
            except asyncio.CancelledError:
                seen.append("cancelled")  # noqa: B023
                raise

        async def scenario() -> None:
            deferred: Deferred[None] = Deferred.fromCoroutine(answer(function))
            ended = deferred.asFuture(asyncio.get_running_loop())
            await asyncio.sleep(0.01)
            deferred.cancel()
            with pytest.raises(CancelledError):
                await asyncio.shield(ended)

        on_loop(scenario)
        assert seen == ["cancelled"]


def test_a_deferred_is_passed_on() -> None:
    """A function that answers with a Deferred needs no task."""
    deferred = succeed(1)

    async def scenario() -> None:
        assert called(lambda: deferred) is deferred

    on_loop(scenario)


def test_without_a_loop() -> None:
    """Under any other reactor a coroutine is Twisted's to drive, and asyncio's is refused with the reason."""

    async def function() -> int:
        return await succeed(1)

    results: list[int] = []
    Deferred.fromCoroutine(answer(function)).addCallback(results.append)
    assert results == [1]
    with pytest.raises(RuntimeError, match="asyncio reactor"):
        from_asyncio(function())


def test_here_fits_whoever_awaits() -> None:
    """The same Deferred is a future in a task, and a Deferred in a coroutine of Twisted's."""

    async def waits() -> Any:
        return await here(fired_soon("fired"))

    async def scenario() -> None:
        assert await asyncio.create_task(waits()) == "fired"
        twisted: Deferred[Any] = Deferred()
        asyncio.get_running_loop().call_soon(lambda: Deferred.fromCoroutine(waits()).chainDeferred(twisted))
        assert await twisted.asFuture(asyncio.get_running_loop()) == "fired"

    on_loop(scenario)
