"""How many hosts a message has passed, by its Received fields (RFC 5321 6.3)."""

from __future__ import annotations

_FIELD = b"\r\nreceived:"
_EMPTY_LINE = b"\r\n\r\n"


class Hops:
    """
    Counts them in content as it passes, block by block, up to the end of the header section.

    A message that goes in circles comes by here each time and gets our own field, so it is enough to know the one way in which we
    and nearly all others write it: no space before the colon.
    """

    __slots__ = ("_tail", "count", "ended")

    def __init__(self) -> None:
        self.count = 0
        self.ended = False
        """No more will be counted: the body has begun."""
        self._tail = b"\r\n"  # what could begin a field or the empty line in the blocks before

    def feed(self, octets: bytes) -> None:
        seen = self._tail + octets
        end = seen.find(_EMPTY_LINE)
        if end >= 0:
            self.ended = True
            seen = seen[:end]
        self.count += seen.lower().count(_FIELD)
        self._tail = seen[1 - len(_FIELD) :]
