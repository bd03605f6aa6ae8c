"""
A spool that fails when it is told to: for tests of what a protocol does when its spool cannot, is late, or never answers.

    spool = FailingSpool(MemorySpool())
    spool.fail("commit", SpoolFull())               # the next commit is refused
    spool.fail("read", OSError("bug"), times=2)     # the next two reads raise what is no refusal
    spool.let_pass("write", 3)                      # three writes are as usual ...
    spool.fail("write", SpoolFull())                # ... and the fourth is not
    answer = spool.hold("open")                     # the next opening waits, before anything is done
    answer.callback(None)                           # ... until here
    answer = spool.hold("update", done=True)        # the next update is done, and only its answer waits
    spool.delay("stage", clock, 5.0)                # the next stage takes five seconds of this clock

Faults of one step are used up in the order in which they were asked for; a step without any is passed on as it is.
`calls` counts the steps that were reached.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from typing import Literal, NamedTuple, TypeVar, get_args

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from mailhost.envelope import Copy, Envelope, Outcome, Totals
from mailhost.interfaces import IContent, IMaildrop, ISpool, IStagedMessage, Listing

Step = Literal[
    "start", "stop", "stage", "write", "commit", "open", "listing", "content", "read", "update",
    "times", "notes", "keep_notes",
    "create", "exists", "totals", "rename", "remove",
]  # fmt: skip

_T = TypeVar("_T")


class _Wait(NamedTuple):
    answer: Deferred[None]
    done: bool


class _Delay(NamedTuple):
    reactor: IReactorTime
    seconds: float


_Fault = BaseException | _Wait | _Delay | None
"""None is a step that is let pass."""


@implementer(ISpool)
class FailingSpool:
    """Passes everything on to another spool, but for the faults that were asked for."""

    def __init__(self, inner: ISpool) -> None:
        self._inner = inner
        self._faults: defaultdict[str, deque[_Fault]] = defaultdict(deque)
        self.calls: Counter[str] = Counter()

    # -- what a test asks for

    def fail(self, step: Step, failure: BaseException, times: int = 1) -> None:
        """
        The next `times` of `step` raise `failure`, and do nothing else.

        A write never raises: one that fails throws its octets away, and `commit` raises.
        """
        self._add(step, failure, times)

    def let_pass(self, step: Step, times: int = 1) -> None:
        """The next `times` of `step` are as usual: faults asked for later come after them."""
        self._add(step, None, times)

    def hold(self, step: Step, *, done: bool = False) -> Deferred[None]:
        """
        The next `step` waits for the Deferred that this returns; failed, it is what the step raises.

        @param done: the step is done first, and only its answer waits.  A write always is.
        """
        wait = _Wait(Deferred(), done)
        self._add(step, wait, 1)
        return wait.answer

    def delay(self, step: Step, reactor: IReactorTime, seconds: float, times: int = 1) -> None:
        """The next `times` of `step` begin that much later."""
        self._add(step, _Delay(reactor, seconds), times)

    def _add(self, step: Step, fault: _Fault, times: int) -> None:
        if step not in get_args(Step):
            raise ValueError(f"no such step: {step!r}")
        self._faults[step].extend([fault] * times)

    # -- what the wrappers below ask

    def next_fault(self, step: Step) -> _Fault:
        """Count a step that was reached, and use up its fault."""
        self.calls[step] += 1
        faults = self._faults[step]
        return faults.popleft() if faults else None

    async def meet(self, step: Step, work: Callable[[], Awaitable[_T]]) -> _T:
        """Do `work`, or what was asked for."""
        match self.next_fault(step):
            case BaseException() as failure:
                raise failure
            case _Wait(answer, done=True):
                result = await work()
                await answer
                return result
            case _Wait(answer):
                await answer
            case _Delay() as delay:
                await _sleep(delay)
        return await work()

    # -- ISpool

    async def start(self) -> None:
        await self.meet("start", self._inner.start)

    async def stop(self) -> None:
        await self.meet("stop", self._inner.stop)

    async def stage(self, envelope: Envelope, copies: Sequence[Copy]) -> IStagedMessage:
        return _Staged(self, await self.meet("stage", lambda: self._inner.stage(envelope, copies)))

    async def open_maildrop(self, name: str, wait_seconds: float) -> IMaildrop:
        return _Maildrop(self, await self.meet("open", lambda: self._inner.open_maildrop(name, wait_seconds)))

    async def create(self, name: str) -> None:
        await self.meet("create", lambda: self._inner.create(name))

    async def exists(self, name: str) -> bool:
        return await self.meet("exists", lambda: self._inner.exists(name))

    async def totals(self, name: str) -> Totals:
        return await self.meet("totals", lambda: self._inner.totals(name))

    async def rename(self, old: str, new: str) -> None:
        await self.meet("rename", lambda: self._inner.rename(old, new))

    async def remove(self, name: str) -> None:
        await self.meet("remove", lambda: self._inner.remove(name))

    def maildrops(self) -> AsyncIterator[str]:
        return self._inner.maildrops()


def _sleep(delay: _Delay) -> Deferred[None]:
    over: Deferred[None] = Deferred(lambda _: call.cancel())
    call = delay.reactor.callLater(delay.seconds, over.callback, None)
    return over


@implementer(IStagedMessage)
class _Staged:
    def __init__(self, spool: FailingSpool, inner: IStagedMessage) -> None:
        self._spool = spool
        self._inner = inner
        self._failure: BaseException | None = None
        self.unique_id = inner.unique_id

    def write(self, octets: bytes) -> Deferred[None] | None:
        fault = self._spool.next_fault("write")
        if isinstance(fault, BaseException):
            self._failure = self._failure or fault
        if self._failure is not None:
            return None
        room = self._inner.write(octets)
        match fault:
            case _Wait(answer):
                return Deferred.fromCoroutine(_both(room, answer))
            case _Delay() as delay:
                return Deferred.fromCoroutine(_both(room, _sleep(delay)))
        return room

    async def commit(self) -> Outcome:
        if self._failure is not None:
            self._inner.abort()
            raise self._failure
        begun = False

        def commit() -> Awaitable[Outcome]:
            nonlocal begun
            begun = True
            return self._inner.commit()

        try:
            return await self._spool.meet("commit", commit)
        finally:
            if not begun:
                self._inner.abort()

    def abort(self) -> None:
        self._inner.abort()


async def _both(first: Deferred[None] | None, second: Deferred[None]) -> None:
    if first is not None:
        await first
    await second


@implementer(IMaildrop)
class _Maildrop:
    def __init__(self, spool: FailingSpool, inner: IMaildrop) -> None:
        self._spool = spool
        self._inner = inner
        self.totals = inner.totals

    async def listing(self) -> Listing:
        return await self._spool.meet("listing", self._inner.listing)

    async def content(self, number: int) -> IContent:
        return _Content(self._spool, await self._spool.meet("content", lambda: self._inner.content(number)))

    async def update(self, deleted: Collection[int]) -> None:
        await self._spool.meet("update", lambda: self._inner.update(deleted))

    async def times(self) -> Sequence[int]:
        return await self._spool.meet("times", self._inner.times)

    async def notes(self) -> bytes:
        return await self._spool.meet("notes", self._inner.notes)

    async def keep_notes(self, notes: bytes) -> None:
        await self._spool.meet("keep_notes", lambda: self._inner.keep_notes(notes))

    def when_wanted(self, ask: Callable[[], None]) -> None:
        self._inner.when_wanted(ask)

    def release(self) -> None:
        self._inner.release()


@implementer(IContent)
class _Content:
    def __init__(self, spool: FailingSpool, inner: IContent) -> None:
        self._spool = spool
        self._inner = inner
        self.octets = inner.octets
        self.wire_octets = inner.wire_octets
        self.header_octets = inner.header_octets

    async def read(self, offset: int, count: int) -> bytes:
        return await self._spool.meet("read", lambda: self._inner.read(offset, count))
