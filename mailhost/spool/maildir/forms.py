"""
A message's form in its file, and on the wire.

A file holds the plain form: dots are not doubled.  In ours every line end is as it was sent; in other programs' files a LF may stand
for CRLF, and the last line may lack its end.
"""

from __future__ import annotations

from copy import deepcopy

from mailhost.octets import CRLF, Doubler, Measure, Undoubler


class PlainForm:
    """Wire form to what is written to a file, and what its name must say."""

    __slots__ = ("_after_cr", "_undoubler", "all_crlf", "octets")

    def __init__(self) -> None:
        self._undoubler = Undoubler()
        self._after_cr = False
        self.octets = 0
        self.all_crlf = True
        """No LF stood alone so far."""

    def feed(self, block: bytes) -> bytes:
        plain = self._undoubler.feed(block)
        self.octets += len(plain)
        ends = plain.count(CRLF) + (self._after_cr and plain[:1] == b"\n")
        if plain.count(b"\n") != ends:
            self.all_crlf = False
        if plain:
            self._after_cr = plain[-1:] == b"\r"
        return plain


class CRLFs:
    """A CR before each LF that has none.  A CR that stands alone is left alone: other programs count it so too."""

    __slots__ = ("_after_cr",)

    def __init__(self) -> None:
        self._after_cr = False

    def feed(self, block: bytes) -> bytes:
        if not block:
            return block
        seen = b"\r" + block if self._after_cr else block
        skipped = len(seen) - len(block)
        self._after_cr = block[-1:] == b"\r"
        if seen.count(b"\n") == seen.count(CRLF):
            return block
        return seen.replace(CRLF, b"\n").replace(b"\n", CRLF)[skipped:]


class WireForm:
    """What a file holds to wire form.  Nothing is ever taken away, so equal sizes mean equal octets."""

    __slots__ = ("_crlfs", "_doubler")

    def __init__(self, *, ours: bool) -> None:
        """@param ours: the file's line ends are to be left as they are."""
        self._crlfs = None if ours else CRLFs()
        self._doubler = Doubler()

    def feed(self, block: bytes) -> bytes:
        if self._crlfs is not None:
            block = self._crlfs.feed(block)
        return self._doubler.feed(block)

    def end(self) -> bytes:
        """What is missing at the end: wire form ends in CRLF."""
        return self._doubler.end()

    def copy(self) -> WireForm:
        """Another one, which goes on from here."""
        return deepcopy(self)


def measured(wire: bytes) -> Measure:
    measure = Measure()
    measure.feed(wire)
    return measure
