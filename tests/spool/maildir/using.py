"""Short ways to use a Maildir spool in tests, and to make what other programs leave in Maildirs."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from mailhost.envelope import NO_PARAMETERS, NULL_REVERSE_PATH, Client, Copy, Envelope, Path
from mailhost.events import Event
from mailhost.interfaces import IContent, IMaildrop, ISpool
from mailhost.spool.maildir.spool import MaildirSpool

ANN = "ann@example.test"
BOB = "bob@example.test"
ENVELOPE = Envelope(
    Client("s1", "192.0.2.1", 40000, "mx", "smtp"), NULL_REVERSE_PATH, NO_PARAMETERS, (Path("ann", "example.test"),)
)


def message(subject: str, lines: int = 1) -> bytes:
    return b"Subject: %s\r\n\r\n" % subject.encode() + b"..a line with a dot before it\r\n" * lines


async def deliver(spool: ISpool, content: bytes, names: Sequence[str] = (ANN,)) -> str:
    """@return: the unique-id."""
    staged = await spool.stage(ENVELOPE, [Copy(name, b"Delivered-To: %s\r\n" % name.encode()) for name in names])
    for start in range(0, len(content), 100_000):
        room = staged.write(content[start : start + 100_000])
        if room is not None:
            await room
    return (await staged.commit()).unique_id


async def read_all(content: IContent, size: int = 100_000) -> bytes:
    octets = b""
    while block := await content.read(len(octets), size):
        octets += block
    return octets


async def contents(spool: ISpool, name: str = ANN) -> list[bytes]:
    """What is in a maildrop, each message without the field that is the maildrop's own."""
    maildrop = await spool.open_maildrop(name, 1)
    try:
        return [await content_of(maildrop, number + 1) for number in range(maildrop.totals.messages)]
    finally:
        maildrop.release()


async def content_of(maildrop: IMaildrop, number: int) -> bytes:
    octets = await read_all(await maildrop.content(number))
    return octets.split(b"\r\n", 1)[1] if octets.startswith(b"Delivered-To: ") else octets


async def unique_ids(spool: ISpool, name: str = ANN) -> list[str]:
    maildrop = await spool.open_maildrop(name, 1)
    try:
        return list((await maildrop.listing()).unique_ids)
    finally:
        maildrop.release()


async def delete(spool: ISpool, numbers: Sequence[int], name: str = ANN) -> None:
    maildrop = await spool.open_maildrop(name, 1)
    try:
        await maildrop.update(numbers)
    finally:
        maildrop.release()


class MaildirSpoolTestCase(TestCase):
    """Makes directories and spools, and stops and removes them."""

    timeout = 30

    def setUp(self) -> None:
        self.events: list[Event] = []

    def new_directory(self) -> str:
        """The name of one that is not there yet."""
        parent = tempfile.mkdtemp(prefix="spool-")
        self.addCleanup(shutil.rmtree, parent)
        return parent + "/spool"

    def spool(self, directory: str, **options: Any) -> MaildirSpool:
        return MaildirSpool(directory, reactor=reactor, observer=self.events.append, **options)

    async def started(self, directory: str, **options: Any) -> MaildirSpool:
        spool = self.spool(directory, **options)
        await spool.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(spool.stop()))
        return spool

    def maildir(self, directory: str, name: str = ANN) -> str:
        """The Maildir of a maildrop, made as another program makes one."""
        local_part, _, domain = name.partition("@")
        path = os.path.join(directory, domain, local_part)
        for part in "tmp", "new", "cur":
            os.makedirs(os.path.join(path, part), exist_ok=True)
        return path

    def put(self, path: str, octets: bytes) -> None:
        with open(path, "wb") as file:
            file.write(octets)

    def octets_in(self, path: str) -> bytes:
        with open(path, "rb") as file:
            return file.read()
