"""
Content on its way from DATA to the end of data (RFC 5321 4.1.1.4): block by block, in wire form, as it comes.

However bad or large it turns out, it is read to its true end, CRLF.CRLF: whoever stopped earlier would take what is left of a
message for commands.  That is also why a bare CR or LF ends nothing and makes the message refused: a host that took LF.LF for the
end, and one that did not, would see different messages in the same octets (SMTP smuggling, CVE-2023-51764).
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from mailhost.interfaces import IStagedMessage
from mailhost.limits import Limits
from mailhost.octets import EndFinder, Measure
from mailhost.refusal import Loop, MessageTooLarge, Refusal
from mailhost.smtp.hops import Hops


class BareLineEnd(Refusal):
    """Content with a CR or LF by itself."""


class Content:
    """One message's content.  From the moment it is refused nothing of it is kept, and its staged message is gone."""

    __slots__ = ("_finder", "_hops", "_limits", "_measure", "refusal", "staged")

    def __init__(self, staged: IStagedMessage, limits: Limits) -> None:
        """
        @param limits: `message_octets` of the plain form, and `received`.
        """
        self.staged = staged
        self.refusal: Refusal | None = None
        """Why it will not be taken, once that is known."""
        self._limits = limits
        self._finder = EndFinder()
        self._measure = Measure()
        self._hops: Hops | None = None

    @property
    def rest(self) -> bytes | None:
        """What followed the end of data; None before that."""
        return self._finder.rest

    @property
    def octets(self) -> int:
        """Of the plain form, so far."""
        return self._measure.octets

    def feed(self, block: bytes) -> Deferred[None] | None:
        """
        @param block: of octets as the client sent them.
        @return: None to go on at once, or what to wait for before the next block.
        """
        octets = self._finder.feed(block)
        if self._finder.bare:
            self.refuse(BareLineEnd())
        if self.refusal is not None or not octets:
            return None
        measure, limits = self._measure, self._limits
        measure.feed(octets)
        if measure.octets > limits.message_octets:
            self.refuse(MessageTooLarge(f"the limit is {limits.message_octets} octets"))
            return None
        # One that has ended with no more lines than it may have Received fields needs no look: most come whole and are like that.
        if self._finder.line_ends > limits.received or self._finder.rest is None:
            self._count_hops(octets)
        return self.staged.write(octets) if self.refusal is None else None

    def _count_hops(self, octets: bytes) -> None:
        if self._hops is None:
            self._hops = Hops()
        if not self._hops.ended:
            self._hops.feed(octets)
            if self._hops.count > self._limits.received:
                self.refuse(Loop())

    def refuse(self, why: Refusal) -> None:
        """Let go of what was staged; the rest is thrown away as it comes."""
        if self.refusal is None:
            self.refusal = why
            self.staged.abort()

    def abort(self) -> None:
        """The client will never end it."""
        if self.refusal is None:
            self.staged.abort()
