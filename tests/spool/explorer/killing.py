"""
A spool under load in a process that is killed at a random instant, again and again; what is found after each is checked.

`python -m tests.spool.explorer.killing KIND DIRECTORY ROUNDS SEED` forks one process a round, which writes down what it asks for and
what it is told; it ends with status 0 when every promise was kept, and says what was not otherwise.  No power is lost here: what a
killed process has written stays.  What this adds is real threads, a real reactor and real files.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import struct
import sys
import time
from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from mailhost.envelope import NO_PARAMETERS, NULL_REVERSE_PATH, Client, Copy, Envelope, Path
from mailhost.interfaces import ISpool
from mailhost.octets import Measure
from mailhost.refusal import MaildropInUse
from mailhost.spool.files import Files
from tests.spool.explorer.checks import Wrong, broken, look, settle
from tests.spool.explorer.promises import Deletion, Ledger, Message, Promises, Said

NAMES = [f"user{number}@example.test" for number in range(4)]
SENDERS = 12

_LENGTH = struct.Struct("<I")
_LONGEST_SECONDS = 0.25
_STUCK_SECONDS = 30.0
_ENVELOPE = Envelope(
    Client("s1", "192.0.2.1", 40000, "mx", "smtp"), NULL_REVERSE_PATH, NO_PARAMETERS, (Path("user", "example.test"),)
)


class Deadly(Files):
    """Ends its process at one of the next fault points."""

    def __init__(self, left: float) -> None:
        """@param left: how many fault points there are to come."""
        self._left = left

    def fault_point(self, name: str) -> None:
        self._left -= 1
        if self._left < 0:
            os.kill(os.getpid(), signal.SIGKILL)


# ------------------------------------------------------------------------------------------------- the process that is killed


class Load:
    """Senders that deliver without a pause, and a reader that collects and deletes."""

    def __init__(self, spool: ISpool, reactor: Any, tell: Callable[..., None], random: Random) -> None:
        self._spool = spool
        self._reactor = reactor
        self._tell = tell
        self._random = random

    def begin(self) -> None:
        for work in [self._read, *[self._send] * SENDERS]:
            Deferred.fromCoroutine(work()).addErrback(lambda failure: self._tell("wrong", failure.getTraceback()))

    def _turn(self) -> Deferred[None]:
        """Whoever never has to wait must not keep the others from their turn."""
        return deferLater(self._reactor, 0)

    async def _send(self) -> None:
        while True:
            await self._turn()
            names = self._random.sample(NAMES, self._random.choice([1, 1, 1, 2, 4]))
            seed, octets = self._random.getrandbits(32), self._random.choice([50, 2000, 2000, 30_000])
            staged = await self._spool.stage(_ENVELOPE, [Copy(name, fields_of(name)) for name in names])
            self._tell("staged", staged.unique_id, names, seed, octets)
            content = content_of(seed, octets)
            for start in range(0, len(content), 5000):
                room = staged.write(content[start : start + 5000])
                if room is not None:
                    await room
            await staged.commit()
            self._tell("acknowledged", staged.unique_id)

    async def _read(self) -> None:
        while True:
            await self._turn()
            name = self._random.choice(NAMES)
            try:
                maildrop = await self._spool.open_maildrop(name, 1)
            except MaildropInUse:
                continue
            unique_ids = (await maildrop.listing()).unique_ids
            chosen = [index for index in range(len(unique_ids)) if self._random.random() < 0.9]
            if chosen:
                self._tell("deleting", name, [unique_ids[index] for index in chosen])
                await maildrop.update([index + 1 for index in chosen])
                self._tell("deleted", name)
            maildrop.release()


def run(make: Callable[..., ISpool], directory: str, pipe: int, seed: int) -> None:
    """Never returns, but by being killed."""
    from twisted.internet import reactor

    random = Random(seed)
    files = Deadly(random.randrange(400) if random.random() < 0.5 else float("inf"))

    def tell(*what: Any) -> None:
        octets = pickle.dumps(what)
        view = memoryview(_LENGTH.pack(len(octets)) + octets)
        while view:
            view = view[os.write(pipe, view) :]

    async def work() -> None:
        spool = make(directory, reactor, lambda event: None, files)
        await spool.start()
        tell("contents", await look(spool))
        Load(spool, reactor, tell, random).begin()

    Deferred.fromCoroutine(work()).addErrback(lambda failure: tell("wrong", failure.getTraceback()))
    reactor.run(installSignalHandlers=False)


def fields_of(name: str) -> bytes:
    return f"Delivered-To: {name}\r\n".encode()


def content_of(seed: int, octets: int) -> bytes:
    line = b"..line %d\r\n" % seed
    return b"Subject: %d\r\n\r\n" % seed + line * (octets // len(line) + 1)


# ------------------------------------------------------------------------------------------------------- the one that kills


class Rounds:
    """What all processes were asked and have said."""

    def __init__(self, make: Callable[..., ISpool], directory: str, seed: int) -> None:
        self._make = make
        self._directory = directory
        self._random = Random(seed)
        self.ledger = Ledger(lambda: 0)
        for number, name in enumerate(NAMES):
            self.ledger.may_be_named(number, None, name)
        self.acknowledged = 0
        self.looked = 0

    def run(self) -> None:
        """One process, killed."""
        reading, writing = os.pipe()
        seed = self._random.getrandbits(32)
        child = os.fork()
        if child == 0:
            os.close(reading)
            try:
                run(self._make, self._directory, writing, seed)
            finally:
                os._exit(1)
        os.close(writing)
        octets = self._read(reading, lambda: os.kill(child, signal.SIGKILL))
        os.close(reading)
        os.waitpid(child, 0)
        for what, *arguments in _unpacked(octets):
            getattr(self, "_" + what)(*arguments)

    def _read(self, fd: int, kill: Callable[[], None]) -> bytes:
        """All that comes until the other end is gone, which is killed while it starts, or while it works."""
        octets, killed = bytearray(), False
        deadline = time.monotonic() + (self._random.uniform(0, 0.3) if self._random.random() < 0.2 else _STUCK_SECONDS)
        while True:
            left = deadline - time.monotonic()
            if left <= 0 and not killed:
                kill()
                killed = True
            if killed or select.select([fd], [], [], left)[0]:
                more = os.read(fd, 1 << 20)
                if not more:
                    return bytes(octets)
                if not octets:
                    deadline = min(deadline, time.monotonic() + self._random.uniform(0, _LONGEST_SECONDS))
                octets += more

    # -- what a process may say

    def _wrong(self, why: str) -> None:
        raise Wrong(why)

    def _contents(self, contents: Any) -> None:
        wrong = broken(self.ledger.now, contents)
        if wrong:
            raise Wrong("\n".join(wrong))
        settle(self.ledger, contents)
        self.ledger = _still_of_interest(self.ledger.now)
        for number, name in enumerate(NAMES):
            if name not in contents:
                self.ledger.may_be_named(number, None, name)
        self.looked += 1

    def _staged(self, unique_id: str, names: list[str], seed: int, octets: int) -> None:
        content = content_of(seed, octets)
        measure = Measure()
        measure.feed(content)
        maildrops = {NAMES.index(name): fields_of(name) for name in names}
        self.ledger.staged(Message(unique_id, content, measure.octets, maildrops))

    def _acknowledged(self, unique_id: str) -> None:
        self.acknowledged += 1
        self.ledger.answered(unique_id, Said.YES)

    def _deleting(self, name: str, unique_ids: list[str]) -> None:
        self.ledger.deleting(NAMES.index(name), unique_ids)

    def _deleted(self, name: str) -> None:
        self.ledger.deleted(NAMES.index(name), Said.YES)


def _still_of_interest(promises: Promises) -> Ledger:
    """Without messages that were refused or are deleted everywhere: found again, they would be nobody's."""
    ledger = Ledger(lambda: 0)
    gone = {
        number: set().union(*(deletion.unique_ids for deletion in maildrop.deletions if deletion.said is Said.YES))
        for number, maildrop in promises.maildrops.items()
    }
    for message in promises.messages.values():
        if message.said is Said.YES and any(message.unique_id not in gone[number] for number in message.maildrops):
            ledger.now.messages[message.unique_id] = message
    ledger.now.maildrops.update(promises.maildrops)
    for number, maildrop in promises.maildrops.items():
        known = frozenset(gone[number] & ledger.now.messages.keys())
        maildrop.deletions = [Deletion(known, Said.YES)] if known else []
    return ledger


def _unpacked(octets: bytes) -> Any:
    """What was told whole."""
    at = 0
    while at + _LENGTH.size <= len(octets):
        (length,) = _LENGTH.unpack_from(octets, at)
        at += _LENGTH.size + length
        if at <= len(octets):
            yield pickle.loads(octets[at - length : at])


def main(kind: str, directory: str, rounds: str, seed: str) -> None:
    from tests.spool.explorer.kinds import KINDS

    work = Rounds(KINDS[kind].make, directory, int(seed))
    for number in range(int(rounds)):
        try:
            work.run()
        except Wrong as wrong:
            sys.exit(f"round {number} of seed {seed}: {wrong}")
    print(work.looked, work.acknowledged)


if __name__ == "__main__":
    main(*sys.argv[1:])
