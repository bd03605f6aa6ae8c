"""
What is done to a spool while its disk is recorded.

A workload uses a `World`, which keeps the ledger: every request goes into it before it is made, and every answer at once.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from random import Random
from typing import Any, Protocol
from unittest import mock

from twisted.internet.defer import Deferred, gatherResults

from mailhost.envelope import NO_PARAMETERS, NULL_REVERSE_PATH, Client, Copy, Envelope, Path
from mailhost.events import Event
from mailhost.interfaces import IMaildrop, ISpool
from mailhost.octets import Measure
from mailhost.refusal import Refusal
from mailhost.spool.log.spool import LogSpool
from tests.spool.explorer.checks import broken, found_as, look, settle
from tests.spool.explorer.clockwork import Simulation
from tests.spool.explorer.disk import ROOT, Disk, Killed, Names, SimulatedFiles, Sync
from tests.spool.explorer.index_history import IndexHistory
from tests.spool.explorer.promises import Ledger, Message, Said

ANN, BOB, CLEO = "ann@example.test", "bob@example.test", "cleo@example.test"
LARGE_OCTETS = 5000
"""Messages beyond this go the way of large ones."""

_ENVELOPE = Envelope(
    Client("s1", "192.0.2.1", 40000, "mx", "smtp"), NULL_REVERSE_PATH, NO_PARAMETERS, (Path("ann", "example.test"),)
)


class Kind(Protocol):
    """A kind of spool."""

    index: str
    """The name of its SQLite index in its directory."""
    shows_durable_only: bool
    """Whether a process that takes over makes durable what it found before it shows it."""

    def make(
        self, directory: str, reactor: Any, observer: Callable[[Event], None], files: SimulatedFiles
    ) -> ISpool: ...

    def bury(self, spool: ISpool) -> None:
        """Close what the process had open beside `files`: it has been killed."""


class World:
    """One spool on one disk, and what was asked of it."""

    def __init__(self, kind: Kind, base: str, seed: int, swallowed: frozenset[str] = frozenset()) -> None:
        """@param base: a real directory, in which the spool's real files (SQLite's) are made."""
        self.kind = kind
        self.disk = Disk()
        self.directory = os.path.join(base, "spool")
        self.history = IndexHistory(os.path.join(self.directory, kind.index))
        self.disk.before_operation = self.history.look
        self.ledger = Ledger(lambda: len(self.disk.operations))
        self.events: list[Event] = []
        self.sites: set[str] = set()
        self.simulation = Simulation(seed)
        self.random = Random(seed)
        self._base = base
        self._swallowed = swallowed
        self._numbers = itertools.count(1)
        self._named: dict[str, int] = {}
        self.files: SimulatedFiles
        self.spool: ISpool

    def run(self, workload: Workload) -> None:
        """All of it, the spool's end included."""
        with self.simulation.running(), _unfinished_coroutines():
            os.mkdir(self.directory)
            for part in workload(self):
                try:
                    self.simulation.clockwork.run(part)
                except Killed:
                    self._bury()
            self._bury()
            self.history.look(len(self.disk.operations))
            self.history.close()
            self.disk.close()

    # -- the process

    async def start(self, *failures: tuple[str, int]) -> None:
        """
        A new process opens the spool.

        @param failures: operations that the disk fails when they are asked for next, and with what.
        """
        clockwork = self.simulation.clockwork
        self.files = SimulatedFiles(self.disk, self._base)
        self.files.swallowed = set(self._swallowed)
        self.files.sites = self.sites
        self.files.failures += failures
        self.files.before_renaming_index = self.history.close
        clockwork.after_each = self.files._live
        self.spool = self.kind.make(self.directory, clockwork, self.events.append, self.files)
        await self.spool.start()

    async def stop(self) -> None:
        await self.spool.stop()
        self.simulation.clockwork.advance(1)

    def _bury(self) -> None:
        """The process has ended.  What it had not answered it never will; the next one must show the same from its start on."""
        self.kind.bury(self.spool)
        self.files.bury()
        self.simulation.next_clockwork()

    async def die_at(self, point: str, work: Any) -> None:
        """The process ends at a fault point while it does this."""
        self.files.kill_at = point
        await work
        raise AssertionError(f"{point} was never reached")

    async def failing(self, operation: str, code: int, work: Any) -> None:
        """The disk fails the next operation of a kind while the spool does this."""
        self.files.fail(operation, code)
        await work
        assert not self.files.failures, f"no {operation} was asked for"

    async def settle(self) -> None:
        """After a kill: what a client can see now must not change any more, where the spool promises that."""
        contents = await look(self.spool)
        wrong = broken(self.ledger.now, contents)
        assert not wrong, wrong
        if not self.kind.shows_durable_only:
            return
        settle(self.ledger, contents)
        for number, maildrop in self.ledger.now.maildrops.items():
            self._named = {name: named for name, named in self._named.items() if named != number}
            self._named |= dict.fromkeys(found_as(maildrop, contents), number)

    def lose_index(self) -> None:
        """By an operator, while the spool is stopped."""
        self.history.close()
        for suffix in "", "-wal", "-shm":
            path = self.history.path + suffix
            if os.path.exists(path):
                os.unlink(path)

    def lose_durably(self, name: str) -> None:
        """The same, of something else in the spool's directory; and this is synced."""
        inode = self.disk.now.directories[ROOT][os.path.basename(self.directory)]
        self.disk.perform(Names(inode, ((name, None),)))
        self.disk.perform(Sync(inode))

    # -- mail in

    async def deliver(self, *names: str, octets: int = 100) -> bool:
        """@return: whether it was taken."""
        numbers = [self._number(name) for name in names]
        fields = [f"Delivered-To: {name}\r\n".encode() for name in names]
        content = self._content(octets)
        measure = Measure()
        measure.feed(content)
        try:
            staged = await self.spool.stage(_ENVELOPE, list(map(Copy, names, fields)))
        except Refusal:
            return False
        message = Message(staged.unique_id, content, measure.octets, dict(zip(numbers, fields)))
        self.ledger.staged(message)
        for start in range(0, len(content), 2000):
            room = staged.write(content[start : start + 2000])
            if room is not None:
                await room
        return await self._answer(staged.commit(), lambda said: self.ledger.answered(message.unique_id, said))

    async def deliver_at_once(self, *deliveries: Sequence[str], octets: int = 100) -> None:
        """Several that are committed together."""
        await at_once(*(self.deliver(*names, octets=octets) for names in deliveries))

    def _content(self, octets: int) -> bytes:
        """In wire form, different each time, with lines of dots and octets that no text has."""
        number = next(self._numbers)
        line = b"..line %d \0\xff of dots\r\n" % number
        return b"Subject: %d\r\n\r\n" % number + line * (octets // len(line) + 1)

    async def _answer(self, request: Awaitable[Any], note: Callable[[Said], None]) -> bool:
        try:
            await request
        except Refusal:
            note(Said.NO)
            return False
        note(Said.YES)
        return True

    # -- mail out

    async def delete(self, name: str, *indexes: int) -> bool:
        """@param indexes: 0-based, in the listing; all of them if none is given."""
        async with self.opened(name) as maildrop:
            unique_ids = (await maildrop.listing()).unique_ids
            chosen = indexes or range(len(unique_ids))
            number = self._named[name]
            self.ledger.deleting(number, [unique_ids[index] for index in chosen])
            return await self._answer(
                maildrop.update([index + 1 for index in chosen]), lambda said: self.ledger.deleted(number, said)
            )

    @contextlib.asynccontextmanager
    async def opened(self, name: str) -> AsyncIterator[IMaildrop]:
        maildrop = await self.spool.open_maildrop(name, 5)
        try:
            yield maildrop
        finally:
            maildrop.release()

    async def undelete(self, name: str, unique_id: str) -> None:
        """A message that was deleted, as a new one."""
        assert isinstance(self.spool, LogSpool)
        number, old = self._named[name], self.ledger.now.messages[unique_id]
        staged: list[str] = []

        async def stage(*arguments: Any) -> Any:
            message = await self.spool.stage(*arguments)
            staged.append(message.unique_id)
            fields = {number: old.maildrops[number]}
            self.ledger.staged(Message(message.unique_id, old.content, old.octets, fields))
            return message

        self.spool._undelete._stage = stage
        await self._answer(self.spool.undelete(name, [unique_id]), lambda said: self.ledger.answered(staged[0], said))

    def deleted(self, name: str) -> list[str]:
        """Unique ids of what was deleted in a maildrop, in no order."""
        deletions = self.ledger.now.maildrops[self._named[name]].deletions
        return sorted(set().union(*(deletion.unique_ids for deletion in deletions if deletion.said is Said.YES)))

    async def compact(self) -> None:
        """As far as the disk lets it."""
        assert isinstance(self.spool, LogSpool)
        try:
            await self.spool.compact()
        except OSError:
            pass

    # -- maildrops

    def _number(self, name: str) -> int:
        """Of the maildrop that has this name, or is about to get it."""
        if name not in self._named:
            self._named[name] = next(self._numbers)
            self.ledger.may_be_named(self._named[name], None, name)
        return self._named[name]

    async def create(self, name: str) -> None:
        number = self._number(name)
        await self.spool.create(name)
        self.ledger.may_be_named(number, name)

    async def rename(self, old: str, new: str) -> None:
        number = self._named.pop(old)
        self._named[new] = number
        self.ledger.may_be_named(number, old, new)
        await self.spool.rename(old, new)
        self.ledger.may_be_named(number, new)

    async def remove(self, name: str) -> None:
        number = self._named.pop(name)
        self.ledger.may_be_named(number, name, None)
        await self.spool.remove(name)
        self.ledger.may_be_named(number, None)


@contextlib.contextmanager
def _unfinished_coroutines() -> Iterator[None]:
    """Those of a killed process never come to their end, and Python would complain when they are collected."""
    with mock.patch.object(sys, "unraisablehook", return_value=None):
        yield
        gc.collect()


Workload = Callable[[World], Iterator[Any]]
"""Gives coroutines, each run to its end or to the process's; it may look at the world in between."""


async def at_once(*work: Any) -> None:
    await gatherResults([Deferred.fromCoroutine(each) for each in work], consumeErrors=True)
