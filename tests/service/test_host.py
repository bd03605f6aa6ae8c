"""The service's order of start and stop, and what a change keeps."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailhost.events import Bug, Notice, Trouble
from mailhost.refusal import SpoolUnavailable
from mailhost.service.host import MailHost, Wiring
from mailhost.service.listen import CannotListen, Door


class Reactor(Clock):
    """Listens in the diary only."""

    def __init__(self, diary: list[str]) -> None:
        super().__init__()
        self.diary = diary
        self.taken: set[int] = set()

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Port:
        if port in self.taken:
            raise CannotListenError(interface, port, OSError(98, "Address already in use"))
        self.taken.add(port)
        factory.doStart()
        self.diary.append(f"bind {port}")
        return Port(self, port, factory)


class Port:
    def __init__(self, reactor: Reactor, number: int, factory: Any) -> None:
        self.reactor = reactor
        self.number = number
        self.factory = factory

    def stopReading(self) -> None:
        pass

    def startReading(self) -> None:
        self.reactor.diary.append(f"accept {self.number}")

    def stopListening(self) -> None:
        self.reactor.diary.append(f"close {self.number}")
        self.reactor.taken.discard(self.number)
        self.factory.doStop()

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", self.number)


class Sessions:
    """A factory whose sessions end when the test says so."""

    def __init__(self, diary: list[str], name: str, connections: int = 1) -> None:
        self.diary = diary
        self.name = name
        self.connections = connections
        self.drained: Deferred[None] = Deferred()

    def buildProtocol(self, address: object) -> str:
        return self.name

    def doStart(self) -> None:
        pass

    def doStop(self) -> None:
        pass

    def drain(self) -> Deferred[None]:
        self.diary.append(f"drain {self.name}")
        return self.drained


class Spool:
    """A spool that starts and stops when the test says so."""

    def __init__(self, diary: list[str]) -> None:
        self.diary = diary
        self.started: Deferred[None] = Deferred()

    def start(self) -> Deferred[None]:
        self.diary.append("spool starts")
        return self.started

    async def stop(self) -> None:
        self.diary.append("spool stops")
        self.started = Deferred()


class MailHostTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.diary: list[str] = []
        self.events: list[Any] = []
        self.reactor = Reactor(self.diary)
        self.spool = Spool(self.diary)
        self.smtp = Sessions(self.diary, "smtp")
        self.pop3 = Sessions(self.diary, "pop3")

    def door(self, port: int, sessions: Sessions) -> Door:
        return Door(sessions.name, f"tcp:{port}", sessions)

    def wiring(self, *doors: Door) -> Wiring:
        return Wiring(
            doors,
            [lambda: self.diary.append("parts start")],
            [lambda: self.diary.append("parts stop")],
        )

    def host(self, *doors: Door) -> MailHost:
        return MailHost(
            reactor=self.reactor,
            spool=self.spool,  # type: ignore[arg-type]
            wiring=self.wiring(*(doors or (self.door(25, self.smtp), self.door(110, self.pop3)))),
            observer=self.events.append,
        )

    def test_the_order_of_a_start(self) -> None:
        """Ports are bound first, as root may have to; nobody is served before the spool is open."""
        host = self.host()
        host.privilegedStartService()
        assert self.diary == ["bind 25", "bind 110"]
        host.startService()
        ready = host.when_ready()
        assert self.diary[2:] == ["parts start", "spool starts"]
        self.assertNoResult(ready)
        self.spool.started.callback(None)
        self.successResultOf(ready)
        assert self.diary[4:] == ["accept 25", "accept 110"]
        assert self.events == [Notice("ready: smtp at 127.0.0.1:25, pop3 at 127.0.0.1:110")]

    def started(self, *doors: Door) -> MailHost:
        host = self.host(*doors)
        self.spool.started.callback(None)
        host.startService()
        self.diary.clear()
        return host

    def test_the_order_of_a_stop(self) -> None:
        """Nobody new, then the sessions' end, then the spool, which may still have commits to make."""
        host = self.started()
        stopped = host.stopService()
        assert self.diary == ["close 25", "close 110", "drain smtp", "drain pop3"]
        self.smtp.drained.callback(None)
        self.assertNoResult(stopped)
        self.pop3.drained.callback(None)
        self.successResultOf(stopped)
        assert self.diary[4:] == ["spool stops", "parts stop"]

    def test_a_stop_that_meets_a_bug(self) -> None:
        """Sessions that do not end as they should keep nobody from committing what waits; the bug is told."""
        host = self.started()
        stopped = host.stopService()
        self.smtp.drained.errback(ZeroDivisionError())
        self.pop3.drained.callback(None)
        self.successResultOf(stopped)
        assert self.diary[-2:] == ["spool stops", "parts stop"]
        assert [type(event) for event in self.events] == [Notice, Bug, Notice]

    def test_start_after_stop(self) -> None:
        """A host that was stopped starts like a new one."""
        host = self.started()
        self.smtp.drained.callback(None)
        self.pop3.drained.callback(None)
        self.successResultOf(host.stopService())
        self.diary.clear()
        host.startService()
        self.spool.started.callback(None)
        self.successResultOf(host.when_ready())
        assert self.diary[-2:] == ["accept 25", "accept 110"]
        assert "bind 25" in self.diary

    def test_a_stop_while_it_starts(self) -> None:
        """The spool is let finish its start, and is then stopped like any other."""
        self.smtp.drained.callback(None)
        self.pop3.drained.callback(None)
        host = self.host()
        host.startService()
        stopped = host.stopService()
        self.assertNoResult(stopped)
        self.spool.started.callback(None)
        self.successResultOf(stopped)
        assert self.diary[-2:] == ["spool stops", "parts stop"]
        assert "accept 25" not in self.diary

    def test_a_port_that_is_taken(self) -> None:
        """The start fails at once, and the ports that could be bound are let go."""
        self.reactor.taken.add(110)
        host = self.host()
        with pytest.raises(CannotListen, match="tcp:110"):
            host.privilegedStartService()
        assert self.diary == ["bind 25", "close 25"]

    def test_a_spool_that_does_not_open(self) -> None:
        """The ports are closed, who waits is told why, and a later stop has nothing to do."""
        host = self.host()
        ready = host.when_ready()
        host.startService()
        self.spool.started.errback(SpoolUnavailable("another version"))
        self.failureResultOf(ready, SpoolUnavailable)
        assert self.diary[-3:] == ["close 25", "close 110", "parts stop"]
        assert isinstance(self.events[-1], Trouble)
        self.successResultOf(host.stopService())
        assert self.diary[-1] == "parts stop"

    def test_a_change_keeps_ports_and_sessions(self) -> None:
        """Who is connected goes on; who comes now meets the new factory; the port was never closed."""
        host = self.started()
        listener = host.listeners[0]
        second = Sessions(self.diary, "second")
        self.successResultOf(Deferred.fromCoroutine(host.change(self.wiring(self.door(25, second)))))
        assert self.diary == ["parts start", "close 110", "parts stop"]
        assert host.listeners == (listener,)
        assert listener._switch is not None
        assert listener._switch.buildProtocol(None) == "second"
        host.stopService()
        assert [line for line in self.diary if line.startswith("drain")] == ["drain smtp", "drain pop3", "drain second"]

    def test_a_change_waits_for_the_start(self) -> None:
        """SIGHUP may come while the spool replays: nobody is served before it is open."""
        host = self.host()
        host.startService()
        second = Sessions(self.diary, "second")
        change = Deferred.fromCoroutine(host.change(self.wiring(self.door(26, second))))
        assert "bind 26" not in self.diary
        self.spool.started.callback(None)
        self.successResultOf(change)
        assert [listener.door.name for listener in host.listeners] == ["second"]
        assert self.diary.index("accept 25") < self.diary.index("bind 26")

    def test_a_stop_during_a_change(self) -> None:
        """The end wins: what was bound for the change is let go."""
        host = self.started(self.door(25, self.smtp))
        self.smtp.drained.callback(None)
        waiting: Deferred[None] = Deferred()
        wiring = Wiring([self.door(26, Sessions(self.diary, "second"))], [lambda: waiting])
        change = Deferred.fromCoroutine(host.change(wiring))
        self.successResultOf(host.stopService())
        waiting.callback(None)
        self.successResultOf(change)
        assert self.reactor.taken == set()
        assert "accept 26" not in self.diary

    def test_factories_without_sessions_are_forgotten(self) -> None:
        """A host that is reloaded every day does not keep every day's factory."""
        host = self.started(self.door(25, self.smtp))
        self.smtp.connections = 0
        for name in ("second", "third"):
            sessions = Sessions(self.diary, name, connections=0)
            self.successResultOf(Deferred.fromCoroutine(host.change(self.wiring(self.door(25, sessions)))))
        assert len(host._former) == 1

    def test_a_change_that_needs_a_port_it_cannot_have(self) -> None:
        """All or nothing: the old doors stay, and what was bound for the new ones is let go."""
        host = self.started()
        self.reactor.taken.add(2525)
        new = [Sessions(self.diary, name) for name in ("one", "two")]
        change = Deferred.fromCoroutine(host.change(self.wiring(self.door(26, new[0]), self.door(2525, new[1]))))
        self.failureResultOf(change, CannotListen)
        assert self.diary == ["parts start", "bind 26", "close 26", "parts stop"]
        assert [listener.door.name for listener in host.listeners] == ["smtp", "pop3"]
