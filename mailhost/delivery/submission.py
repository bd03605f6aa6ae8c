"""
What a submitted message must have and its author's program may have left out: Date and Message-ID (RFC 6409 8.2, 8.3; RFC 5322 3.6).

They are put in front of the header section, where they are right whatever the section looks like, also when there is none.  For that
it is held until its end is known, and can be no longer than a limit; nothing else about the content is touched.
"""

from __future__ import annotations

import re

from twisted.internet.defer import Deferred
from zope.interface import implementer

from mailhost.envelope import Outcome
from mailhost.interfaces import IStagedMessage
from mailhost.octets import CRLF
from mailhost.refusal import MessageTooLarge

_EMPTY_LINE = b"\r\n\r\n"
# RFC 5322 4.5: old programs leave space before the colon.
_DATE = re.compile(rb"^date[ \t]*:", re.IGNORECASE | re.MULTILINE)
_MESSAGE_ID = re.compile(rb"^message-id[ \t]*:", re.IGNORECASE | re.MULTILINE)
# What ends the section: a line that is neither a field nor what continues one, the empty line among them (RFC 5322 2.1, 2.2).
_NO_FIELD = re.compile(rb"^(?![!-9;-~]++[ \t]*+:|[ \t])", re.MULTILINE)
_NO_ATOM = re.compile(r"[^A-Za-z0-9!#$%&'*+/=?^_`{|}~-]")


@implementer(IStagedMessage)
class CompletedMessage:
    """A staged message that gets what its header section lacks."""

    def __init__(self, staged: IStagedMessage, *, date: str, hostname: str, header_octets: int) -> None:
        """
        @param date: now, as RFC 5322 3.3 has it.
        @param hostname: on the right side of the Message-ID; on its left side is the unique-id.
        @param header_octets: a section that is longer refuses the message.
        """
        self.unique_id = staged.unique_id
        self._staged = staged
        self._date = date
        self._hostname = hostname
        self._most_octets = header_octets
        self._held = bytearray()
        self._through = False
        self._too_large = False

    def write(self, octets: bytes) -> Deferred[None] | None:
        if self._through:
            return self._staged.write(octets)
        if self._too_large:
            return None
        held = self._held
        searched = max(0, len(held) + 1 - len(_EMPTY_LINE))
        held += octets
        if held.find(_EMPTY_LINE, searched) >= 0 or held.startswith(CRLF):
            return self._pass_on()
        if len(held) > self._most_octets:
            self._too_large = True
            held.clear()
        return None

    async def commit(self) -> Outcome:
        """@raise MessageTooLarge: the header section was; or as the spool does."""
        if self._too_large:
            self._staged.abort()
            raise MessageTooLarge(f"the header section's limit is {self._most_octets} octets")
        if not self._through:
            room = self._pass_on()
            if room is not None:
                await room
        return await self._staged.commit()

    def abort(self) -> None:
        self._staged.abort()

    def _pass_on(self) -> Deferred[None] | None:
        """What was held, behind what it lacks."""
        held, self._held = bytes(self._held), bytearray()
        self._through = True
        return self._staged.write(self._missing(held) + held)

    def _missing(self, octets: bytes) -> bytes:
        end = _NO_FIELD.search(octets)
        section = octets[: end.start()] if end is not None else octets
        fields = ""
        if not _DATE.search(section):
            fields += f"Date: {self._date}\r\n"
        if not _MESSAGE_ID.search(section):
            fields += f"Message-ID: <{_NO_ATOM.sub('-', self.unique_id)}@{self._hostname}>\r\n"
        return fields.encode("ascii")
