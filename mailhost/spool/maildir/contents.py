"""
Messages read back from their files, as wire form.

Up to 256 KiB a message is read whole.  A larger one is read through once, to know what it will be on the wire, and again as it is
sent; its file stays open, so that it can be read to the end whatever other programs do with its name.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Awaitable
from typing import NamedTuple

from twisted.internet.defer import succeed
from zope.interface import implementer

from mailhost.interfaces import IContent
from mailhost.octets import Measure
from mailhost.refusal import ContentDamaged
from mailhost.spool.files import Files
from mailhost.spool.log.threads import Threads
from mailhost.spool.maildir.forms import WireForm

_WHOLE_OCTETS = 256 * 1024
_BLOCK_OCTETS = 256 * 1024


def read_content(files: Files, threads: Threads, path: str, our_octets: int | None) -> IContent:
    """
    In a thread.

    @param our_octets: the size that we gave the file; None for another program's.
    @raise FileNotFoundError: it has another name now, or is gone.
    @raise ContentDamaged: our file has not the size it had.
    """
    file = OpenFile(files, path)
    if our_octets is not None and file.octets != our_octets:
        raise ContentDamaged(cause=f"{path} has {file.octets} octets and had {our_octets}")
    form = WireForm(ours=our_octets is not None)
    if file.octets > _WHOLE_OCTETS:
        return StreamedContent(threads, file, form)
    octets = file.read(0, file.octets)
    return WholeContent(form.feed(octets) + form.end())


def octets_of(files: Files, path: str, with_crlf: int | None) -> int:
    """
    Of the plain form of another program's message, in a thread.

    @param with_crlf: what its name says; then only its end is looked at, which may lack its line end.
    """
    file = OpenFile(files, path)
    if with_crlf is not None:
        return with_crlf if file.octets == 0 or file.read(file.octets - 1, 1) == b"\n" else with_crlf + 2
    measure, form = Measure(), WireForm(ours=False)
    for offset in range(0, file.octets, _BLOCK_OCTETS):
        measure.feed(form.feed(file.read(offset, _BLOCK_OCTETS)))
    measure.feed(form.end())
    return measure.octets


class OpenFile:
    """Readable as long as somebody holds this, also after an unlink."""

    __slots__ = ("_fd", "_files", "_path", "octets")

    def __init__(self, files: Files, path: str) -> None:
        self._files = files
        self._path = path
        self._fd = files.open(path)
        self.octets = files.size(self._fd)

    def __del__(self) -> None:
        fd = getattr(self, "_fd", -1)
        if fd >= 0:
            self._files.close(fd)

    def read(self, offset: int, count: int) -> bytes:
        """So many octets, fewer only at the end that the file had when it was opened.  @raise ContentDamaged: it was cut off."""
        octets = self._files.read(self._fd, count, offset)
        return self._checked(octets, offset, count)

    def read_at_once(self, offset: int, count: int) -> bytes | None:
        """The same if it is in memory, else None."""
        count = min(count, self.octets - offset)
        octets = self._files.read_at_once(self._fd, count, offset)
        return octets if len(octets) == count else None

    def _checked(self, octets: bytes, offset: int, count: int) -> bytes:
        count = min(count, self.octets - offset)
        if len(octets) < count:
            raise ContentDamaged(cause=f"{self._path} ends at {offset + len(octets)} and had {self.octets} octets")
        return octets[:count]


@implementer(IContent)
class WholeContent:
    """A message that was read whole."""

    __slots__ = ("_octets", "header_octets", "octets", "wire_octets")

    def __init__(self, octets: bytes) -> None:
        measure = Measure()
        measure.feed(octets)
        self._octets = octets
        self.octets = measure.octets
        self.wire_octets = measure.wire_octets
        self.header_octets = measure.header_octets

    def read(self, offset: int, count: int) -> Awaitable[bytes]:
        return succeed(self._octets[offset : offset + count])


class _Step(NamedTuple):
    """A block of the file, and the state in which it is taken to wire form."""

    offset: int
    form: WireForm


@implementer(IContent)
class StreamedContent:
    """A message that is read as it is sent: any part of it, since every block's place on the wire is known."""

    def __init__(self, threads: Threads, file: OpenFile, form: WireForm) -> None:
        """In a thread: reads the file through."""
        self._threads = threads
        self._file = file
        self._starts: list[int] = []  # of each step, on the wire
        self._steps: list[_Step] = []
        self._last = (-1, b"")  # the step read last, and what it gave
        measure = Measure()
        for offset in range(0, file.octets, _BLOCK_OCTETS):
            self._starts.append(measure.wire_octets)
            self._steps.append(_Step(offset, form.copy()))
            measure.feed(form.feed(file.read(offset, _BLOCK_OCTETS)))
        self._end = form.end()
        measure.feed(self._end)
        self.octets = measure.octets
        self.wire_octets = measure.wire_octets
        self.header_octets = measure.header_octets

    async def read(self, offset: int, count: int) -> bytes:
        count = min(count, self.wire_octets - offset)
        if count <= 0:
            return b""
        if self.wire_octets == self._file.octets:  # nothing had to be added anywhere
            return await self._read_file(offset, count)
        number = bisect_right(self._starts, offset) - 1
        skipped = offset - self._starts[number]
        parts = []
        octets = 0
        while octets < skipped + count:
            parts.append(await self._block(number))
            octets += len(parts[-1])
            number += 1
        return b"".join(parts)[skipped : skipped + count]

    async def _block(self, number: int) -> bytes:
        last, wire = self._last
        if last != number:
            step = self._steps[number]
            block = await self._read_file(step.offset, _BLOCK_OCTETS)
            wire = step.form.copy().feed(block)
            if number + 1 == len(self._steps):
                wire += self._end
            self._last = (number, wire)
        return wire

    async def _read_file(self, offset: int, count: int) -> bytes:
        octets = self._file.read_at_once(offset, count)
        if octets is None:
            octets = await self._threads.run(self._file.read, offset, count)
        return octets
