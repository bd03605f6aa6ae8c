"""
Octets as mail has them: lines, the end of content, doubled dots.

Nothing here knows a protocol or a transport.  Everything takes blocks that were cut anywhere and works on whole blocks: no line of
content is ever looked at by itself.
"""

from __future__ import annotations

from mailhost.refusal import Refusal

CRLF = b"\r\n"
END_OF_CONTENT = b"\r\n.\r\n"


class LineTooLong(Refusal):
    """A line had more octets than it may; it was read to its end and thrown away."""


class BareLineFeed(Refusal):
    """A line ended in LF without CR before it (RFC 5321 2.3.8 allows CRLF only)."""


class Unread:
    """
    Octets that arrived and were not taken yet.

    What is appended is kept as it came; a block that arrives at an empty buffer is given out again without a copy.
    """

    __slots__ = ("_blocks", "_skipping", "_start", "octets")

    def __init__(self) -> None:
        self._blocks: list[bytes] = []
        self._start = 0  # of what is not taken in the first block
        self._skipping = False  # in the middle of a line that is too long
        self.octets = 0

    def __len__(self) -> int:
        return self.octets

    def append(self, octets: bytes) -> None:
        self._blocks.append(octets)
        self.octets += len(octets)

    def put_back(self, octets: bytes) -> None:
        """Let these be the next to be taken."""
        if octets:
            self._blocks = [octets + self.take()] if self.octets else [octets]
            self._start = 0
            self.octets = len(self._blocks[0])

    def clear(self) -> None:
        self._blocks.clear()
        self._start = self.octets = 0
        self._skipping = False

    def take(self) -> bytes:
        """All of it."""
        blocks = self._blocks
        if not blocks:
            return b""
        if self._start:
            blocks[0] = blocks[0][self._start :]
        octets = blocks[0] if len(blocks) == 1 else b"".join(blocks)
        blocks.clear()
        self._start = self.octets = 0
        return octets

    def take_at_most(self, count: int) -> bytes:
        """The next octets, at most so many, as far as they are there; for BDAT's counted chunks."""
        octets = self.take()
        self.put_back(octets[count:])
        return octets[:count]

    def take_line(self, longest: int) -> bytes | None:
        """
        The next line without its CRLF, or None while it is not whole.

        @param longest: octets that a line may have, CRLF included.
        @raise LineTooLong: once, when the end of such a line has been reached.  Until then its octets are dropped as they come.
        @raise BareLineFeed: the line has been taken.
        """
        blocks = self._blocks
        if not blocks:
            return None
        if len(blocks) > 1:
            blocks[:] = [self._joined()]
        block, start = blocks[0], self._start
        end = block.find(b"\n", start)
        if end < 0:
            if len(block) - start >= longest or self._skipping:
                self.clear()
                self._skipping = True
            return None
        line = block[start : end - 1] if end > start else b""
        bare = end == start or block[end - 1] != 0x0D
        self.octets -= end + 1 - start
        if self.octets:
            self._start = end + 1
        else:
            blocks.clear()
            self._start = 0
        if self._skipping or end + 1 - start > longest:
            self._skipping = False
            raise LineTooLong
        if bare:
            raise BareLineFeed
        return line

    def _joined(self) -> bytes:
        self._blocks[0] = self._blocks[0][self._start :]
        self._start = 0
        return b"".join(self._blocks)


class EndFinder:
    """
    Finds the end of DATA's content (RFC 5321 4.1.1.4) and sees bare CRs and LFs on the way.

    Only CRLF.CRLF ends content; the CRLF that ended the DATA command counts as the first one.  The last octets of a block are held
    back as long as they could begin the end, so that a CR or a dot at a block's edge is judged together with what follows it.
    """

    __slots__ = ("_held", "_virtual", "bare", "line_ends", "rest")

    def __init__(self) -> None:
        self._held = CRLF
        self._virtual = 2  # octets at the start of `_held` that are no content
        self.bare = False
        """A CR without LF or a LF without CR has been seen."""
        self.line_ends = 0
        """CRLFs so far, the DATA command's among them."""
        self.rest: bytes | None = None
        """What followed the end, once it was found."""

    def feed(self, block: bytes) -> bytes:
        """
        @return: content in wire form that is known to be content; after the end it ends in CRLF, or is empty.
        """
        octets = self._held + block
        end = octets.find(END_OF_CONTENT)
        if end >= 0:
            self.rest = octets[end + 5 :]
            self._held = b""
            octets = octets[: end + 2]
        else:
            self._held = _start_of_end(octets)
            if self._held:
                octets = octets[: -len(self._held)]
        pairs = octets.count(CRLF)
        if octets.count(b"\n") != pairs or octets.count(b"\r") != pairs:
            self.bare = True
        self.line_ends += pairs
        if self._virtual and octets:
            octets = octets[self._virtual :]
            self._virtual = 0
        return octets


def _start_of_end(octets: bytes) -> bytes:
    """The longest tail that the end of content could begin with."""
    for length in (4, 3, 2, 1):
        if octets.endswith(END_OF_CONTENT[:length]):
            return END_OF_CONTENT[:length]
    return b""


class Measure:
    """
    Counts content in wire form as it passes.

    A dot at the start of a line is taken off by whoever reads the wire form (RFC 5321 4.5.2), whether the sender had doubled it or
    not; so each counts in `dots` and not in `octets`.
    """

    __slots__ = ("_header_end", "_tail", "dots", "wire_octets")

    def __init__(self) -> None:
        self.wire_octets = 0
        self.dots = 0
        self._header_end = -1
        self._tail = CRLF  # the last octets before the next block: the content stands at the start of a line

    def feed(self, block: bytes) -> None:
        seen = self._tail + block
        self.dots += seen.count(b"\r\n.")
        if self._header_end < 0:
            empty_line = seen.find(b"\r\n\r\n")
            if empty_line >= 0:
                self._header_end = self.wire_octets - len(self._tail) + empty_line + 4
        self.wire_octets += len(block)
        # Up to three octets of an empty line can lie before the next block.  A CRLF. is counted in the block its dot is in, so
        # a tail that holds one whole must not be seen again: then less is kept.
        tail = seen[-3:]
        self._tail = tail if tail[:3] != b"\r\n." else b"."

    @property
    def octets(self) -> int:
        """Of the plain form."""
        return self.wire_octets - self.dots

    @property
    def header_octets(self) -> int:
        """Of the header section in wire form with the empty line behind it; all there is while no empty line was seen."""
        return self._header_end if self._header_end >= 0 else self.wire_octets


class Doubler:
    """Plain form, CRLF line ends, to wire form: a dot more at the start of each line that begins with one."""

    __slots__ = ("_tail",)

    def __init__(self) -> None:
        self._tail = CRLF

    def feed(self, block: bytes) -> bytes:
        tail = self._tail
        seen = tail + block
        self._tail = seen[-2:]
        if b"\r\n." not in seen:
            return block
        return seen.replace(b"\r\n.", b"\r\n..")[len(tail) :]

    def end(self) -> bytes:
        """What is missing at the end: wire form ends in CRLF."""
        return b"" if self._tail == CRLF else CRLF


class Undoubler:
    """Wire form to plain form: a dot less at the start of each line that begins with one."""

    __slots__ = ("_tail",)

    def __init__(self) -> None:
        self._tail = CRLF

    def feed(self, block: bytes) -> bytes:
        tail = self._tail
        seen = tail + block
        self._tail = seen[-2:]
        if b"\r\n." not in seen:
            return block
        # A dot that was taken off must not hide that the next octet no longer stands at the start of a line.
        return seen.replace(b"\r\n.", b"\r\n")[len(tail) :]


class LineEnds:
    """Text with LF, CRLF or CR line ends to CRLF ones; text that has them already passes as it is."""

    __slots__ = ("_after_cr", "_ended")

    def __init__(self) -> None:
        self._after_cr = False
        self._ended = True

    def feed(self, block: bytes) -> bytes:
        if not block:
            return b""
        if self._after_cr and block[:1] == b"\n":
            block = block[1:]  # the CR before it has already become CRLF
            if not block:
                self._after_cr = False
                return b""
        self._after_cr = block[-1:] == b"\r"
        pairs = block.count(CRLF)
        if block.count(b"\n") != pairs or block.count(b"\r") != pairs:
            block = block.replace(CRLF, b"\n").replace(b"\r", b"\n").replace(b"\n", CRLF)
        self._ended = block[-2:] == CRLF
        return block

    def end(self) -> bytes:
        """What is missing at the end."""
        return b"" if self._ended else CRLF
