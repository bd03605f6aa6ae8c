"""Content on its way out: whole blocks, and where TOP ends."""

from __future__ import annotations

from mailhost.interfaces import IContent
from mailhost.octets import CRLF
from mailhost.refusal import ContentDamaged

BLOCK_OCTETS = 256 * 1024
"""What is held at most.  A message that is not longer leaves in one piece; whether it is damaged is known before."""


async def read(content: IContent, offset: int, count: int) -> bytes:
    """Exactly `count` octets.  @raise ContentDamaged: also when there are fewer, which must never look like a message's end."""
    octets = await content.read(offset, count)
    if len(octets) != count:
        raise ContentDamaged(cause=f"{len(octets)} octets at {offset} where {count} must be")
    return octets


class Top:
    """Lets the header section pass, the empty line, and so many lines of the body (RFC 1939 7); blocks may be cut anywhere."""

    __slots__ = ("_after_cr", "_header_octets", "_lines")

    def __init__(self, header_octets: int, lines: int) -> None:
        """
        @param header_octets: of the header section, its empty line included.
        """
        self._header_octets = header_octets
        self._lines = lines
        self._after_cr = False  # the body's last octet was a CR: a LF that comes next ends a line

    @property
    def ended(self) -> bool:
        """Nothing more will pass."""
        return not self._header_octets and not self._lines

    def passing(self, block: bytes) -> bytes:
        """What passes of the next block."""
        header = block[: self._header_octets]
        self._header_octets -= len(header)
        if len(header) == len(block):
            return block
        if not self._lines:
            return header
        return header + self._body(block[len(header) :])

    def _body(self, block: bytes) -> bytes:
        if self._after_cr and block[:1] == b"\n":
            self._lines -= 1
            self._after_cr = False
            return b"\n" + (self._body(block[1:]) if self._lines else b"")
        ends = block.count(CRLF)
        if ends < self._lines:
            self._lines -= ends
            self._after_cr = block[-1:] == b"\r"
            return block
        rest = block.split(CRLF, self._lines)[-1]
        self._lines = 0
        return block[: len(block) - len(rest)]
