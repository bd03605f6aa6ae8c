"""Short ways to use a log spool in tests."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from mailhost.envelope import NO_PARAMETERS, NULL_REVERSE_PATH, Client, Copy, Envelope, Outcome, Path
from mailhost.events import Event
from mailhost.interfaces import IContent
from mailhost.spool.log.spool import LogSpool

ANN = "ann@example.test"
BOB = "bob@example.test"
ENVELOPE = Envelope(
    Client("s1", "192.0.2.1", 40000, "mx", "smtp"), NULL_REVERSE_PATH, NO_PARAMETERS, (Path("ann", "example.test"),)
)
FIELDS = b"Delivered-To: ann@example.test\r\n"


LINE = b"..a line with a dot before it\r\n"


def content_of(subject: str, octets: int = 0) -> bytes:
    """A message in wire form, at least so long, that says how many lines it has."""
    lines = octets // len(LINE) + 1
    return b"Lines: %d\r\nSubject: %s\r\n\r\n" % (lines, subject.encode()) + LINE * lines


def subject_of(octets: bytes) -> str:
    """Of what a maildrop gives out; all of its octets are checked."""
    subject = octets.partition(b"Subject: ")[2].partition(b"\r\n")[0].decode()
    lines = int(octets.partition(b"Lines: ")[2].partition(b"\r\n")[0])
    assert octets == FIELDS + content_of(subject, (lines - 1) * len(LINE))
    return subject


async def deliver(spool: LogSpool, subject: str, names: Sequence[str] = (ANN,), octets: int = 0) -> Outcome:
    staged = await spool.stage(ENVELOPE, [Copy(name, FIELDS) for name in names])
    content = content_of(subject, octets)
    for start in range(0, len(content), 100_000):
        room = staged.write(content[start : start + 100_000])
        if room is not None:
            await room
    return await staged.commit()


async def read_all(content: IContent) -> bytes:
    octets = b""
    while block := await content.read(len(octets), 262_144):
        octets += block
    return octets


async def contents(spool: LogSpool, name: str = ANN) -> list[bytes]:
    """What is in a maildrop, each message with its fields."""
    maildrop = await spool.open_maildrop(name, 1)
    try:
        return [await read_all(await maildrop.content(n + 1)) for n in range(maildrop.totals.messages)]
    finally:
        maildrop.release()


async def subjects(spool: LogSpool, name: str = ANN) -> list[str]:
    """The subjects in a maildrop, every message checked octet by octet."""
    return [subject_of(octets) for octets in await contents(spool, name)]


async def delete(spool: LogSpool, numbers: Sequence[int], name: str = ANN) -> None:
    maildrop = await spool.open_maildrop(name, 1)
    try:
        await maildrop.update(numbers)
    finally:
        maildrop.release()


class LogSpoolTestCase(TestCase):
    """Makes directories and spools, and stops and removes them."""

    timeout = 20

    def setUp(self) -> None:
        self.events: list[Event] = []

    def new_directory(self) -> str:
        """The name of one that is not there yet."""
        parent = tempfile.mkdtemp(prefix="spool-")
        self.addCleanup(shutil.rmtree, parent)
        return parent + "/spool"

    async def started(self, directory: str, **options: Any) -> LogSpool:
        spool = LogSpool(directory, reactor=reactor, observer=self.events.append, **options)
        await spool.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(spool.stop()))
        return spool

    def killed(self, directory: str) -> str:
        """@return: a copy of the directory: what a process leaves that is killed at this moment."""
        copy = self.new_directory()
        shutil.copytree(directory, copy)
        return copy

    async def subjects_in(self, directory: str, name: str = ANN) -> list[str]:
        """What a spool finds that starts on this directory."""
        spool = LogSpool(directory, reactor=reactor, observer=self.events.append)
        await spool.start()
        try:
            return await subjects(spool, name)
        finally:
            await spool.stop()
