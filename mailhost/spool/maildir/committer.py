"""
Group commit: whatever became whole while one group was made durable is the next group.

One thread works at a time.  What must not happen while messages are entered, such as a change of names, waits for its turn among them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from mailhost.events import Observer, Trouble
from mailhost.refusal import Refusal, SpoolUnavailable
from mailhost.spool.log.threads import Threads, shielded
from mailhost.spool.log.writer import refusal_of
from mailhost.spool.maildir.group import Delivery

T = TypeVar("T")

Waiting = tuple[Delivery, "Deferred[None]"]


class Committer:
    """
    Lives in the reactor's thread.

    States: idle; a group gathers until the turn of the reactor ends; a group or a job is with the thread while the next gathers.
    """

    def __init__(self, reactor: Any, run: Callable[[Sequence[Delivery]], None], observer: Observer) -> None:
        """@param run: makes deliveries durable, in a thread."""
        self._reactor = reactor
        self._run = run
        self._observer = observer
        self._threads = Threads(reactor, most=1)
        self._gathering: list[Waiting] = []
        self._jobs: deque[tuple[Callable[[], Any], Deferred[Any]]] = deque()
        self._busy = False
        self._idle: list[Deferred[None]] = []
        self._stopping = True

    def start(self) -> None:
        self._threads.start()
        self._stopping = False

    async def stop(self) -> None:
        """Do what waits, then end."""
        self._stopping = True
        if self._busy:
            idle: Deferred[None] = Deferred()
            self._idle.append(idle)
            await idle
        self._threads.stop()

    def commit(self, delivery: Delivery) -> Deferred[None]:
        """
        @return: fires when all copies are durable.  Cancelling it undoes nothing.
        @raise Refusal: none was stored.
        """
        outcome: Deferred[None] = Deferred()
        if self._stopping:
            outcome.errback(SpoolUnavailable(cause="stopping"))
            return outcome
        self._gathering.append((delivery, outcome))
        self._go_on()
        return outcome

    def alone(self, job: Callable[[], T]) -> Deferred[T]:
        """@return: what the job returns or raises; it is called in the thread, while no message is entered."""
        outcome: Deferred[T] = Deferred()
        if self._stopping:
            outcome.errback(SpoolUnavailable(cause="stopping"))
            return outcome
        self._jobs.append((job, outcome))
        self._go_on()
        return shielded(outcome)

    def _go_on(self) -> None:
        if not self._busy:
            self._busy = True
            self._reactor.callLater(0, self._next)

    def _next(self) -> None:
        if self._jobs:
            job, outcome = self._jobs.popleft()
            self._threads.run(job).addBoth(self._job_done, outcome)
        elif self._gathering:
            group, self._gathering = self._gathering, []
            self._threads.run(self._run, [delivery for delivery, _ in group]).addBoth(self._group_done, group)
        else:
            self._busy = False
            idle, self._idle = self._idle, []
            for waiter in idle:
                waiter.callback(None)

    def _job_done(self, result: Any, outcome: Deferred[Any]) -> None:
        outcome.callback(result)
        self._next()

    def _group_done(self, result: Failure | None, group: list[Waiting]) -> None:
        told = False
        for delivery, outcome in group:
            error = delivery.error
            if isinstance(result, Failure):
                outcome.errback(result)
            elif error is None:
                outcome.callback(None)
            else:
                if not (told or isinstance(error, Refusal)):
                    told = True
                    self._observer(Trouble("the spool's disk failed; what was not stored was not acknowledged", error))
                outcome.errback(Failure(refusal_of(error) if isinstance(error, OSError) else error))
        self._next()
