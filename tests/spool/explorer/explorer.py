"""
Runs a workload, lets the power fail at each of its instants in many ways, and looks at what a spool then finds.

`explore` gives a sentence for every promise that was broken, with all that is needed to see it again.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from mailhost.envelope import NO_PARAMETERS, NULL_REVERSE_PATH, Client, Copy, Envelope, Path
from mailhost.events import Event, Trouble
from mailhost.interfaces import ISpool
from mailhost.refusal import Refusal
from tests.spool.explorer.checks import Contents, Seen, Wrong, broken, look
from tests.spool.explorer.clockwork import Simulation
from tests.spool.explorer.crashes import Effort, crashes_at, what_is_left
from tests.spool.explorer.disk import ROOT, Disk, Image, SimulatedFiles
from tests.spool.explorer.index_history import IndexHistory
from tests.spool.explorer.promises import Promises
from tests.spool.explorer.workloads import Kind, Workload, World

SPOOL = "spool"
NEW = "new@example.test"
"""A maildrop that no workload knows."""

_PROBE = b"Subject: after the crash\r\n\r\n..\r\n"
_FIELDS = b"Return-Path: <>\r\n"
_ENVELOPE = Envelope(
    Client("s2", "192.0.2.2", 40000, "mx", "smtp"), NULL_REVERSE_PATH, NO_PARAMETERS, (Path("new", "example.test"),)
)


class Violation(NamedTuple):
    crash: str
    sentences: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.crash}: {'; '.join(self.sentences)}"


class Report(NamedTuple):
    world: World
    crashes: int
    """How many different ones were tried."""
    violations: list[Violation]


def explore(
    kind: Kind,
    workload: Workload,
    effort: Effort,
    *,
    seed: int = 1,
    swallowed: frozenset[str] = frozenset(),
    at_most: int = 5,
) -> Report:
    """
    @param swallowed: sites of syncs that say yes and do nothing.
    @param at_most: violations after which it stops.
    """
    with _directory() as base:
        world = World(kind, base, seed, swallowed)
        world.run(workload)
    with _directory() as base:
        explorer = Explorer(kind, world, base, Random(seed))
        violations = list(itertools.islice(explorer.explore(effort), at_most))
    return Report(world, explorer.crashes, violations)


def recorded(kind: Kind, workload: Workload) -> World:
    """What a workload has left, without a crash."""
    with _directory() as base:
        world = World(kind, base, seed=1)
        world.run(workload)
    return world


def _directory() -> tempfile.TemporaryDirectory[str]:
    """For SQLite, in memory where there is room."""
    return tempfile.TemporaryDirectory(prefix="explorer-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)


class Explorer:
    def __init__(self, kind: Kind, world: World, base: str, random: Random) -> None:
        self._kind = kind
        self._world = world
        self._base = base
        self._random = random
        self._tried: set[int] = set()
        self.crashes = 0

    def explore(self, effort: Effort) -> Iterator[Violation]:
        disk, ledger = self._world.disk, self._world.ledger
        moments = ledger.moments()
        for at in self._instants(effort):
            said = max((moment for moment in moments if moment <= at), default=0)
            promises = ledger.at(at)
            indexes = self._world.history.until(at)
            for crash in crashes_at(disk, at, effort, self._random):
                index = self._random.choice([indexes[0], indexes[-1], self._random.choice(indexes)])
                image = what_is_left(disk, crash)
                if SPOOL not in image.directories[ROOT]:
                    index = None
                key = hash((said, index, tuple(sorted(image.tree().items()))))
                if key not in self._tried:
                    self._tried.add(key)
                    self.crashes += 1
                    yield from self._try(Left(image, index, index == indexes[0]), promises, str(crash))

    def _instants(self, effort: Effort) -> list[int]:
        moments = self._world.ledger.moments()
        others = [at for at in range(len(self._world.disk.operations) + 1) if at not in moments]
        self._random.shuffle(others)
        return [*sorted(moments), *others][: effort.instants]

    def _try(self, left: Left, promises: Promises, crash: str) -> Iterator[Violation]:
        crash += ", no index" if left.index is None else ""
        after = Aftermath(self._kind, self._base, left)
        sentences = after.check(promises)
        if sentences:
            yield Violation(crash, tuple(sentences))
        elif self._random.random() < 0.3:
            yield from self._crash_again(after, promises, crash)

    def _crash_again(self, after: Aftermath, promises: Promises, crash: str) -> Iterator[Violation]:
        """The power fails once more, at some instant of the first start."""
        at = self._random.choice([after.started_at, self._random.randrange(after.started_at + 1)])
        again = self._random.choice(list(crashes_at(after.disk, at, Effort(0, 5), self._random)))
        index = self._random.choice(after.history.until(at))
        image = what_is_left(after.disk, again)
        if SPOOL not in image.directories[ROOT]:
            index = None
        second = Aftermath(self._kind, self._base, Left(image, index, False))
        sentences = second.check(promises, shown=after.contents if at == after.started_at else None)
        if sentences:
            yield Violation(f"{crash}, then at the start {again}", tuple(sentences))


class Left(NamedTuple):
    """What there is after a crash."""

    image: Image
    index: bytes | None
    is_latest: bool
    """Whether that is what the index had come to."""


class Aftermath:
    """What spools find that start on what a crash has left: one, and another one after it."""

    def __init__(self, kind: Kind, base: str, left: Left) -> None:
        self.disk = Disk(left.image)
        self.contents: Contents = {}
        """What the first of them showed."""
        self.started_at = 0
        """How many operations its start took."""
        self._kind = kind
        self._base = base
        self._directory = os.path.join(base, "spool")
        self._simulation = Simulation(0)
        self._simulation.clockwork.advance(1e6)
        self._events: list[Event] = []
        self.history = IndexHistory(os.path.join(self._directory, kind.index))
        self._is_latest = left.is_latest
        self._lay_out(left.index)

    def _lay_out(self, index: bytes | None) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)
        os.mkdir(self._directory)
        if index is not None:
            with open(self.history.path, "wb") as file:
                file.write(index)

    def check(self, promises: Promises, shown: Contents | None = None) -> list[str]:
        """
        @param shown: exactly what must be there, if somebody has seen it already.
        @return: what is wrong.
        """
        self.disk.before_operation = self.history.look
        with self._simulation.running():
            try:
                sentences = self._first(promises)
                if shown is not None and self.contents != shown:
                    sentences.append("what had been shown has changed")
                return sentences or self._second()
            except Wrong as wrong:
                return [str(wrong)]
            except Refusal as refusal:
                return [f"{type(refusal).__name__}: {refusal.cause}"]
            finally:
                self.history.close()
                self.disk.close()

    def _first(self, promises: Promises) -> list[str]:
        spool = self._start()
        self.history.look(len(self.disk.operations))
        self.started_at = len(self.disk.operations)
        try:
            self.contents = self._simulation.clockwork.run(look(spool))
            sentences = broken(promises, self.contents)
            if not sentences:
                self._simulation.clockwork.run(self._deliver(spool))
        finally:
            self._simulation.clockwork.run(_stop(spool))
        return sentences + [f"trouble: {event.what} ({event.cause})" for event in self._events if self._is_alarm(event)]

    def _is_alarm(self, event: Event) -> bool:
        """Nothing is wrong with what a power failure leaves; that an index is older than the segments may be said."""
        if not isinstance(event, Trouble):
            return False
        return self._is_latest or "the index is built anew" not in event.what

    def _second(self) -> list[str]:
        spool = self._start()
        try:
            found = self._simulation.clockwork.run(look(spool))
        finally:
            self._simulation.clockwork.run(_stop(spool))
        sentences = []
        for name in {*self.contents, NEW}:
            before, after = self.contents.get(name, []), found.get(name, [])
            if after[: len(before)] != before:
                sentences.append(f"{name}: another start has changed what is there")
            elif len(after) != len(before) + 1 or not _is_probe(after[-1], before):
                sentences.append(f"{name}: what was delivered after the crash is not there")
        return sentences

    def _start(self) -> ISpool:
        self._simulation.next_clockwork()
        self.history.close()
        files = SimulatedFiles(self.disk, self._base)
        files.before_renaming_index = self.history.close
        spool = self._kind.make(self._directory, self._simulation.clockwork, self._events.append, files)
        self._simulation.clockwork.run(_start(spool))
        return spool

    async def _deliver(self, spool: ISpool) -> None:
        """To every maildrop there is, and to a new one."""
        staged = await spool.stage(_ENVELOPE, [Copy(name, _FIELDS) for name in [*self.contents, NEW]])
        staged.write(_PROBE)
        await staged.commit()


def _is_probe(seen: Seen, before: list[Seen]) -> bool:
    return seen.wire == _FIELDS + _PROBE and seen.unique_id not in {other.unique_id for other in before}


async def _start(spool: ISpool) -> None:
    await spool.start()


async def _stop(spool: ISpool) -> None:
    await spool.stop()
