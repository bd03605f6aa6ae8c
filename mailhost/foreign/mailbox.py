"""
An IMailboxPOP3 made of an IMaildrop: our mail out, behind twisted.mail.pop3's own POP3 class.

That class wants most answers at once, so the listing is read before there is a mailbox.  It makes CRLF of LF and doubles dots block by
block, and overlooks what stands where two blocks meet; the file that it reads here is cut with regard to that.

What cannot be had with that class: it answers QUIT with +OK before the disk has, unless removal fails at once; UIDL lists messages
that were marked as deleted; a damaged message looks like one with a wrong number; a dot that begins a message (never one of ours,
which begin with Return-Path) is lost; TOP ends early at a line of more than 16 KiB, and may lose a dot where 16 KiB of lines all begin
with one.
"""

from __future__ import annotations

from tempfile import SpooledTemporaryFile
from typing import IO, overload

from twisted.internet.defer import Deferred
from twisted.mail.interfaces import IMailboxPOP3
from twisted.mail.pop3 import POP3Error
from twisted.python.failure import Failure
from zope.interface import implementer

from mailhost.events import Bug, Observer, unobserved
from mailhost.interfaces import IContent, IMaildrop, Listing
from mailhost.octets import CRLF, Undoubler
from mailhost.refusal import Refusal

_BLOCK = 128 * 1024
# What is held in memory of a message that is being sent.
_IN_MEMORY = 1024 * 1024


class IReleasedMailbox(IMailboxPOP3):
    """A mailbox that has to be let go of."""

    def release() -> None:
        """For a realm to give the portal as the logout.  It waits for a `sync` that is under way."""


async def maildrop_to_twisted(maildrop: IMaildrop, *, observer: Observer = unobserved) -> IReleasedMailbox:
    """
    @param maildrop: from now on the mailbox's, which releases it.
    """
    return _Mailbox(maildrop, await maildrop.listing(), observer)


@implementer(IReleasedMailbox)
class _Mailbox:
    # What POP3 says of EXPIRE and LOGIN-DELAY when its factory leaves them to the user's mailbox.
    messageExpiration = "NEVER"
    loginDelay = 0

    def __init__(self, maildrop: IMaildrop, listing: Listing, observer: Observer) -> None:
        self._maildrop = maildrop
        self._octets = listing.octets
        self._unique_ids = listing.unique_ids
        self._observer = observer
        self._deleted: set[int] = set()
        self._syncing: Deferred[None] | None = None

    @overload
    def listMessages(self) -> list[int]: ...

    @overload
    def listMessages(self, i: int) -> int: ...

    def listMessages(self, i: int | None = None) -> int | list[int]:
        if i is None:
            return [0 if index in self._deleted else octets for index, octets in enumerate(self._octets)]
        return 0 if self._there(i) in self._deleted else self._octets[i]

    def getUidl(self, index: int) -> bytes:
        return self._unique_ids[self._there(index)].encode("ascii")

    def getMessage(self, index: int) -> Deferred[IO[bytes]]:
        return Deferred.fromCoroutine(self._file(self._undeleted(index)))

    def deleteMessage(self, index: int) -> None:
        self._deleted.add(self._undeleted(index))

    def undeleteMessages(self) -> None:
        self._deleted.clear()

    def sync(self) -> Deferred[None]:
        """
        @return: for those who wait for it; POP3 does not.
        @raise POP3Error: it is known at once that nothing was removed.  POP3 makes an -ERR of this one.
        """
        self._syncing = Deferred.fromCoroutine(self._update())
        if self._syncing.called and isinstance(self._syncing.result, Failure):
            why = self._syncing.result.value
            self._syncing.addErrback(lambda _: None)
            raise POP3Error(b"[SYS/TEMP] nothing was deleted") from why
        return self._syncing

    async def _update(self) -> None:
        await self._maildrop.update({index + 1 for index in self._deleted})

    def release(self) -> None:
        if self._syncing is None:
            self._maildrop.release()
        else:
            self._syncing.addBoth(self._release_after)

    def _release_after(self, result: object) -> object:
        self._maildrop.release()
        return result

    async def _file(self, index: int) -> IO[bytes]:
        """@raise ValueError: the only exception that POP3 answers; after any other the client would wait for ever."""
        try:
            return await _lf_file(await self._maildrop.content(index + 1))
        except Refusal as refusal:
            raise ValueError() from refusal
        except Exception as error:
            self._observer(Bug("getMessage", error))
            raise ValueError() from error

    def _there(self, index: int) -> int:
        # No text in these: POP3 joins an exception's arguments as octets.
        if not 0 <= index < len(self._octets):
            raise ValueError()
        return index

    def _undeleted(self, index: int) -> int:
        if self._there(index) in self._deleted:
            raise ValueError()
        return index


async def _lf_file(content: IContent) -> IO[bytes]:
    """A whole message, read and verified, as the file that POP3 expects."""
    file = _LFFile(_IN_MEMORY)
    undoubler = Undoubler()
    offset, cr = 0, b""
    while offset < content.wire_octets:
        block = await content.read(offset, _BLOCK)
        offset += len(block)
        plain = cr + undoubler.feed(block)
        cr = b"\r" if plain.endswith(b"\r") else b""
        file.write(plain.removesuffix(b"\r").replace(CRLF, b"\n"))
    file.seek(0)
    return file


class _LFFile(SpooledTemporaryFile[bytes]):
    """
    A message with LF line ends, whose `read` cuts blocks where POP3, which treats each by itself, comes out right.

    A line end and a dot behind it are never parted, or the dot would not be doubled; nor are two line ends, or TOP would overlook
    the end of the header section.
    """

    def read(self, size: int = -1, /) -> bytes:
        block = super().read(size)
        if len(block) != size:
            return block
        kept = _kept(block)
        self.seek(kept - size, 1)
        return block[:kept]


def _kept(block: bytes) -> int:
    """How much of a full block to give now: up to the end of a line, its line end excluded."""
    end = len(block)
    while (end := block.rfind(b"\n", 0, end)) > 0:
        # TOP keeps the half line for its next block, so one that begins with a dot is not for it either.
        if block[block.rfind(b"\n", 0, end) + 1] not in b"\n.":
            return end
    # For RETR any line end will do that no other stands before.
    return len(block.rstrip(b"\n")) or max(len(block) - 1, 1)
