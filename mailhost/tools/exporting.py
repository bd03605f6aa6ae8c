"""
Gives a maildrop's mail to other programs: as a Maildir, or as an mbox file.

It is read beside whoever holds the maildrop, from a snapshot: what is delivered meanwhile is not in it.  What is written has another
name until it is whole.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

from mailhost.envelope import Path
from mailhost.interfaces import Listing
from mailhost.octets import Undoubler
from mailhost.refusal import ContentDamaged, SpoolUnavailable
from mailhost.spool.log.inspection import Progress
from mailhost.spool.log.maildrop import LogMaildrop
from mailhost.spool.log.spool import LogSpool
from mailhost.spool.maildir.forms import PlainForm
from mailhost.spool.maildir.names import with_sizes
from mailhost.tools import mbox
from mailhost.tools.main import Failed

_BLOCK_OCTETS = 256 * 1024
_TRIES = 20


class Exported(NamedTuple):
    written: int
    damaged: list[str]
    """Unique ids of messages that could not be read back as they were stored, and were left out."""


class Outgoing(NamedTuple):
    """One message of a snapshot."""

    number: int
    unique_id: str
    time: int
    """Microseconds since 1970."""
    octets: int
    content: Any
    """Its content, with the record's metadata."""

    @property
    def flags(self) -> str:
        flags: str = self.content.metadata.get("flags", "")
        return flags

    @property
    def reverse_path(self) -> Path:
        return Path(*self.content.metadata["reverse_path"])

    async def blocks(self) -> AsyncIterator[bytes]:
        """In wire form.  @raise ContentDamaged: also late."""
        at = 0
        while block := await self.content.read(at, _BLOCK_OCTETS):
            yield block
            at += len(block)


class Snapshot:
    """A maildrop's messages, one after the other."""

    def __init__(self, spool: LogSpool, name: str) -> None:
        self._spool = spool
        self._name = name
        self.damaged: list[str] = []

    async def messages(self, progress: Progress) -> AsyncIterator[Outgoing]:
        """
        Called while segments are pinned, so that what is deleted and compacted meanwhile stays readable.

        @raise NoSuchMaildrop: there is none.
        """
        maildrop, listing, times = await self._read()
        done, total = 0, sum(listing.octets)
        for index, (unique_id, octets) in enumerate(zip(listing.unique_ids, listing.octets)):
            try:
                content = await maildrop.content(index + 1)
            except ContentDamaged:
                self.damaged.append(unique_id)
            else:
                yield Outgoing(index + 1, unique_id, times[index], octets, content)
            done += octets
            progress(done, total)

    async def _read(self) -> tuple[LogMaildrop, Listing, Sequence[int]]:
        for _ in range(_TRIES):
            maildrop = await self._spool.snapshot(self._name)
            try:
                return maildrop, await maildrop.listing(), await maildrop.times()
            except SpoolUnavailable as error:  # somebody has deleted a message in between
                changing = error
        raise changing


async def to_maildir(spool: LogSpool, name: str, path: str, progress: Progress) -> Exported:
    """
    A new Maildir, with a `dovecot-uidlist`, so that Dovecot goes on with the unique ids that clients know.

    Line ends are CRLF, as they are stored; programs that read Maildirs take both.

    @param path: of what is not there yet.
    """
    with _whole(path) as partial:
        for folder in ("", "tmp", "new", "cur"):
            os.mkdir(os.path.join(partial, folder), mode=0o700)
        writer = _MaildirWriter(partial)
        snapshot = Snapshot(spool, name)
        async for message in snapshot.messages(progress):
            try:
                await writer.write(message)
            except ContentDamaged:
                snapshot.damaged.append(message.unique_id)
        writer.write_uidlist()
    return Exported(writer.written, snapshot.damaged)


class _MaildirWriter:
    def __init__(self, path: str) -> None:
        self._path = path
        self._lines: list[str] = []

    @property
    def written(self) -> int:
        return len(self._lines)

    async def write(self, message: Outgoing) -> None:
        seconds, micro = divmod(message.time, 1_000_000)
        unique = f"{seconds}.M{micro:06d}Q{message.number}.{secrets.token_hex(4)}"
        temporary = os.path.join(self._path, "tmp", unique)
        form = PlainForm()
        try:
            with _new_file(temporary) as file:
                async for block in message.blocks():
                    file.write(form.feed(block))
        except ContentDamaged:
            os.unlink(temporary)
            raise
        os.utime(temporary, (seconds, seconds))
        base = with_sizes(unique, form.octets, all_crlf=form.all_crlf)
        # What nobody has flagged is new mail.
        place = f"cur/{base}:2,{message.flags}" if message.flags else f"new/{base}"
        os.rename(temporary, os.path.join(self._path, place))
        self._lines.append(f"{len(self._lines) + 1} P{message.unique_id} :{base}\n")

    def write_uidlist(self) -> None:
        """Version 3: a UID for each message, and its unique id as the UIDL."""
        header = f"3 V{int(time.time())} N{len(self._lines) + 1} G{secrets.token_hex(16)}\n"
        with _new_file(os.path.join(self._path, "dovecot-uidlist")) as file:
            file.write((header + "".join(self._lines)).encode())


async def to_mbox(spool: LogSpool, name: str, path: str, progress: Progress) -> Exported:
    """
    A new mbox file, of the kind whose quoting can be undone exactly (mboxrd).  Line ends are LF.

    @param path: of what is not there yet.
    """
    with _whole(path) as partial, _new_file(partial) as file:
        writer = _MboxWriter(file)
        snapshot = Snapshot(spool, name)
        async for message in snapshot.messages(progress):
            try:
                await writer.write(message)
            except ContentDamaged:
                snapshot.damaged.append(message.unique_id)
    return Exported(writer.written, snapshot.damaged)


class _MboxWriter:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.written = 0

    async def write(self, message: Outgoing) -> None:
        """@raise ContentDamaged: nothing of it is left in the file."""
        start = self._file.tell()
        self._file.write(mbox.beginning(message.reverse_path.mailbox, message.time))
        quoting, undoubler = mbox.Quoting(), Undoubler()
        try:
            async for block in message.blocks():
                self._file.write(quoting.feed(undoubler.feed(block)))
        except ContentDamaged:
            self._file.seek(start)
            self._file.truncate()
            raise
        self._file.write(quoting.end())
        self.written += 1


@contextmanager
def _whole(path: str) -> Iterator[str]:
    """Gives the name that something new has until it is whole; when that fails nothing is left of it."""
    if os.path.lexists(path):
        raise Failed(f"{path} is there already; an export overwrites nothing")
    partial = f"{path}.partial-{secrets.token_hex(4)}"
    try:
        yield partial
        os.rename(partial, path)
    except OSError as error:
        raise Failed(f"{error.filename or path}: {error.strerror}") from None
    finally:
        _remove(partial)


def _remove(path: str) -> None:
    if os.path.isdir(path):
        shutil.rmtree(path)
    elif os.path.exists(path):
        os.unlink(path)


def _new_file(path: str) -> BinaryIO:
    return open(path, "xb")
