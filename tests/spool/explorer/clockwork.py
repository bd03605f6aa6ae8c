"""
A reactor whose threads are no threads: what is given to them is done in its own turn, in an order drawn from a seed.

So a spool does the same operations in the same order each time, and what a test has found can be found again.
"""

from __future__ import annotations

import contextlib
import queue
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from random import Random
from types import SimpleNamespace
from typing import Any, TypeVar
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from mailhost.spool.log import committer, threads, writer
from mailhost.spool.maildir import syncs

T = TypeVar("T")

_EPOCH_SECONDS = 1_800_000_000


class Clockwork(Clock):
    """Time passes when there is nothing else to do."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random = Random(seed)
        self._calls: deque[Callable[[], Any]] = deque()
        self._jobs: deque[Callable[[], Any]] = deque()
        self.after_each: Callable[[], None] = lambda: None

    def callFromThread(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self._calls.append(lambda: call(*args, **kwargs))

    def in_thread(self, job: Callable[[], Any]) -> None:
        self._jobs.append(job)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Until this is done."""
        outcome: list[Any] = []
        Deferred.fromCoroutine(work).addBoth(outcome.append)
        while not outcome:
            self._step()
        self.after_each()
        if isinstance(outcome[0], Failure):
            outcome[0].raiseException()
        result: T = outcome[0]
        return result

    def _step(self) -> None:
        waiting = [queue for queue in (self._calls, self._jobs) if queue]
        if waiting:
            self.random.choice(waiting).popleft()()
        else:
            later = self.getDelayedCalls()
            assert later, "waits for something that never comes"
            self.advance(max(0.0, min(call.getTime() for call in later) - self.seconds()))
        self.after_each()

    def time_ns(self) -> int:
        return int((_EPOCH_SECONDS + self.seconds()) * 1e9)


class Simulation:
    """What is simulated while it lasts: threads, clock and random numbers.  `clockwork` is that of the processes that run now."""

    def __init__(self, seed: int) -> None:
        self._seeds = Random(seed)
        self._drawn = Random(seed)
        self.clockwork = Clockwork(seed)

    def next_clockwork(self) -> Clockwork:
        """For the next process: whatever the last had under way is gone, but time goes on."""
        seconds = self.clockwork.seconds() + 1
        self.clockwork = Clockwork(self._seeds.getrandbits(32))
        self.clockwork.advance(seconds)
        return self.clockwork

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        drawn = self._drawn
        with contextlib.ExitStack() as stack:
            for where, name, instead in (
                (time, "time_ns", lambda: self.clockwork.time_ns()),
                (secrets, "randbits", drawn.getrandbits),
                (secrets, "token_bytes", drawn.randbytes),
                (secrets, "token_hex", lambda octets: drawn.randbytes(octets).hex()),
                (threads, "ThreadPool", lambda *_: _Pool(self.clockwork)),
                (committer, "queue", _instead_of(queue, SimpleQueue=lambda: _Jobs(self.clockwork))),
                (committer, "threading", _instead_of(threading, Thread=_NoThread)),
                (writer, "perf_counter", lambda: self.clockwork.seconds()),
                (syncs, "_SLOW_SECONDS", 1e9),
            ):
                stack.enter_context(mock.patch.object(where, name, instead))
            yield


def _instead_of(module: Any, **changed: Any) -> Any:
    return SimpleNamespace(**(vars(module) | changed))


class _Pool:
    """In the place of a ThreadPool."""

    def __init__(self, clockwork: Clockwork) -> None:
        self._clockwork = clockwork
        self._waiting: deque[Callable[[], None]] = deque()

    def start(self) -> None:
        pass

    def callInThreadWithCallback(
        self, ended: Callable[[bool, Any], None], work: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> None:
        def job() -> None:
            try:
                result = work(*args, **kwargs)
            except Exception:
                ended(False, Failure())
            else:
                ended(True, result)

        self._waiting.append(job)
        self._clockwork.in_thread(self._do_one)

    def _do_one(self) -> None:
        if self._waiting:
            self._waiting.popleft()()

    def stop(self) -> None:
        """What waits is done before this returns."""
        while self._waiting:
            self._do_one()


class _Jobs:
    """In the place of a committer's queue: the clockwork takes its jobs."""

    def __init__(self, clockwork: Clockwork) -> None:
        self._clockwork = clockwork

    def put(self, job: Callable[[], None] | None) -> None:
        if job is not None:
            self._clockwork.in_thread(job)


class _NoThread:
    def __init__(self, **options: Any) -> None:
        pass

    def start(self) -> None:
        pass

    def join(self) -> None:
        pass
