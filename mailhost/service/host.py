"""
The service: starts its parts, and stops them, in the order that loses nothing.

A MultiService waits for nobody: listeners would accept while the spool replays, and the spool would close while sessions drain.  Here
ports are bound first (by root, if that is how the process was started), the spool opens, then connections are accepted.  To stop, ports
close, sessions end at a command boundary, the spool commits what waits; only then do threads and checks end.

What belongs to a whole process (signals, umask, exit statuses) is not here: applications put this service among their own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults

from mailhost.events import Bug, Notice, Observer, Trouble, unobserved
from mailhost.interfaces import ISpool
from mailhost.service.listen import CannotListen, Door, Listener, SessionFactory


class Wiring(NamedTuple):
    """All of a host but its spool: what a reload replaces."""

    doors: Sequence[Door]
    starting: Sequence[Callable[[], Awaitable[object] | None]] = ()
    """Called before anybody is served, such as a checker's first look at its file; what they raise fails the start or the reload."""
    stopped: Sequence[Callable[[], Awaitable[object] | None]] = ()
    """Called when all is over, also after a start that failed."""


class MailHost(Service):
    """
    A mail host of parts that were put together elsewhere.

    States: stopped; bound (ports taken, nobody served); opening (the spool starts); serving; stopping.  A stopped one can be started again.
    """

    def __init__(
        self,
        *,
        reactor: Any,
        spool: ISpool,
        wiring: Wiring,
        observer: Observer = unobserved,
    ) -> None:
        """@param reactor: the installed one; TLS schedules on that."""
        self._reactor = reactor
        self.spool = spool
        self._listeners = [Listener(reactor, door) for door in wiring.doors]
        self._wiring = wiring
        self._former: list[SessionFactory] = []
        self._observer = observer
        self._bound = False
        self._serving = False
        self._opening: Deferred[None] | None = None
        self._waiting: list[Deferred[None]] = []

    @property
    def listeners(self) -> Sequence[Listener]:
        return tuple(self._listeners)

    def when_ready(self) -> Deferred[None]:
        """Fires when connections are accepted; fails with what ended the start."""
        ready: Deferred[None] = Deferred()
        if self._serving:
            ready.callback(None)
        else:
            self._waiting.append(ready)
        return ready

    # -- start

    def privilegedStartService(self) -> None:
        """@raise CannotListen: a port could not be bound; none is kept."""
        super().privilegedStartService()
        try:
            for listener in self._listeners:
                listener.bind()
        except CannotListen:
            for listener in self._listeners:
                Deferred.fromCoroutine(listener.close())
            raise
        self._bound = True

    def startService(self) -> None:
        """@raise CannotListen: as privilegedStartService, when nobody has called that."""
        super().startService()
        # `twist` and applications that start a service by hand call only this one.
        if not self._bound:
            self.privilegedStartService()
        self._opening = Deferred.fromCoroutine(self._open())

    async def _open(self) -> None:
        try:
            await self._start_parts()
        except Exception as error:
            await self._close_ports()
            await _all(self._wiring.stopped)
            self._observer(Trouble("the host did not start", error))
            self._tell(error)
            return
        for listener in self._listeners:
            listener.accept()
        self._serving = True
        self._observer(Notice(f"ready: {', '.join(map(str, self._listeners)) or 'no listener'}"))
        self._tell(None)

    async def _start_parts(self) -> None:
        for listener in self._listeners:
            await listener.bound()
        await _all(self._wiring.starting)
        await self.spool.start()

    def _tell(self, error: Exception | None) -> None:
        waiting, self._waiting = self._waiting, []
        for ready in waiting:
            if error is None:
                ready.callback(None)
            else:
                ready.errback(error)

    # -- stop

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await self._close_ports()
        if self._opening is not None:
            await self._opening
        if not self._serving:
            return
        self._serving = False
        factories = [*self._former, *(listener.door.factory for listener in self._listeners)]
        self._former = []
        await gatherResults([Deferred.fromCoroutine(self._drained(factory)) for factory in factories])
        try:
            await self.spool.stop()
        finally:
            await _all(self._wiring.stopped)
        self._observer(Notice("stopped"))

    async def _drained(self, factory: SessionFactory) -> None:
        try:
            await factory.drain()
        except Exception as error:  # the spool has to commit what waits all the same
            self._observer(Bug("drain", error))

    async def _close_ports(self) -> None:
        self._bound = False
        await gatherResults([Deferred.fromCoroutine(listener.close()) for listener in self._listeners])

    # -- change

    async def change(self, wiring: Wiring) -> None:
        """
        Serve by this wiring from now on.  Ports whose endpoint stays are kept, and sessions that exist go on as they began.

        A host that is still starting is waited for; one that stops meanwhile does not change any more.

        @raise CannotListen: a new port could not be bound.  Whatever is raised, nothing has changed.
        """
        await self.when_ready()
        kept, new = self._matched(wiring.doors)
        await self._prepare(wiring, new)
        if not self._serving:
            await self._undo(wiring, new)
            return
        former, self._wiring = self._wiring, wiring
        gone = [listener for listener in self._listeners if listener not in kept]
        self._former = [f for f in self._former if f.connections] + [one.door.factory for one in self._listeners]
        for listener, door in kept.items():
            listener.turn(door)
        self._listeners = [*kept, *new]
        for listener in new:
            listener.accept()
        await gatherResults([Deferred.fromCoroutine(listener.close()) for listener in gone])
        await _all(former.stopped)

    def _matched(self, doors: Sequence[Door]) -> tuple[dict[Listener, Door], list[Listener]]:
        kept: dict[Listener, Door] = {}
        new: list[Listener] = []
        for door in doors:
            same = [known for known in self._listeners if known.door.endpoint == door.endpoint and known not in kept]
            if same:
                kept[same[0]] = door
            else:
                new.append(Listener(self._reactor, door))
        return kept, new

    async def _prepare(self, wiring: Wiring, new: Sequence[Listener]) -> None:
        """All of a change that can fail."""
        try:
            await _all(wiring.starting)
            for listener in new:
                listener.bind()
                await listener.bound()
        except BaseException:
            await self._undo(wiring, new)
            raise

    async def _undo(self, wiring: Wiring, new: Sequence[Listener]) -> None:
        for listener in new:
            await listener.close()
        await _all(wiring.stopped)


async def _all(calls: Sequence[Callable[[], Awaitable[object] | None]]) -> None:
    for call in calls:
        result = call()
        if result is not None:
            await result
