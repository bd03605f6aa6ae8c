"""A message as a test looks at it: headers and parts by name, and the very octets that were sent."""

from __future__ import annotations

import email.policy
import re
from collections.abc import Callable, Sequence
from email.message import EmailMessage
from email.parser import BytesParser


class NothingArrived(AssertionError):
    """What a test waited for did not come; the text says what did."""


class ReceivedMessage(EmailMessage):
    """An `email.message.EmailMessage` that knows how it came."""

    octets = b""
    """The content as the client sent it, CRLF line ends and dots as the author wrote them; no trace field is added."""
    reverse_path = ""
    """The argument of MAIL, without angle brackets; empty for a bounce."""
    forward_path = ""
    """The argument of RCPT."""


def received(octets: bytes, reverse_path: str, forward_path: str) -> ReceivedMessage:
    """A message as a client sent it."""
    message = BytesParser(_class=ReceivedMessage, policy=email.policy.default).parsebytes(octets)
    assert isinstance(message, ReceivedMessage)
    message.octets = octets
    message.reverse_path = reverse_path
    message.forward_path = forward_path
    return message


def is_for(forward_path: str, address: str) -> bool:
    """
    Whether a message is for this inbox: case does not count.

    @param address: `user@domain`, or `user` alone for whatever domain.
    """
    mailbox = forward_path.lower()
    return address.lower() in ((mailbox,) if "@" in address else (mailbox.rpartition("@")[0], mailbox))


Wanted = str | re.Pattern[str] | Callable[[ReceivedMessage], object] | None
"""Which message: by its whole subject, by a part of it, or by what a function says of it; None is any."""


def first(messages: Sequence[ReceivedMessage], wanted: Wanted) -> ReceivedMessage | None:
    """The first of them that is wanted."""
    return next((message for message in messages if _is_wanted(message, wanted)), None)


def _is_wanted(message: ReceivedMessage, wanted: Wanted) -> bool:
    subject = str(message["Subject"] or "")
    if wanted is None:
        return True
    if isinstance(wanted, str):
        return subject == wanted
    if isinstance(wanted, re.Pattern):
        return wanted.search(subject) is not None
    return bool(wanted(message))


def nothing_arrived(address: str, wanted: str, seconds: float, there: Sequence[ReceivedMessage]) -> NothingArrived:
    """@param there: what did arrive for the address."""
    subjects = ", ".join(repr(str(message["Subject"])) for message in there) or "nothing"
    return NothingArrived(f"{wanted} for {address} in {seconds} seconds; there is: {subjects}")
