"""
What happened, as values: one for each message and each session.

Sessions and the spool call an `Observer`; only `service.observers` turns events into log lines and numbers.  An event never holds a
password or a message's content.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from mailhost.envelope import Client, Path


class MessageAccepted(NamedTuple):
    """A message is durable and its 250 is on its way."""

    client: Client
    unique_id: str
    reverse_path: Path
    forward_paths: tuple[Path, ...]
    octets: int
    """Of the content as received, plain form."""
    seconds: float
    """From MAIL to the commit's outcome."""


class MessageRefused(NamedTuple):
    """A transaction, a forward-path or a message was refused."""

    client: Client
    stage: str
    """The command, or `content`."""
    reverse_path: Path | None
    forward_path: Path | None
    reply: str
    """What the client was told: code, status and text."""
    cause: object = None
    """What the operator should know beside it."""


class MessageRetrieved(NamedTuple):
    """A whole message was sent to a POP3 client."""

    client: Client
    unique_id: str
    octets: int


class MessagesDeleted(NamedTuple):
    """A POP3 QUIT removed these, durably."""

    client: Client
    unique_ids: tuple[str, ...]


class LoggedIn(NamedTuple):
    client: Client


class LoginRefused(NamedTuple):
    client: Client
    account: bytes
    """As the client gave it: at most 255 octets of it."""
    why: str
    cause: object = None


class SessionEnded(NamedTuple):
    client: Client
    seconds: float
    why: str
    """`quit`, `lost`, `timeout`, `errors`, `draining`, ..."""
    messages: int
    """Accepted (SMTP) or retrieved (POP3)."""
    octets_in: int
    octets_out: int


class ConnectionRefused(NamedTuple):
    """A connection was turned away before it became a session."""

    host: str
    listener: str
    why: str


class Trouble(NamedTuple):
    """Something an operator should look at: a sync that failed, damage, a certificate that could not be loaded."""

    what: str
    cause: object = None


class Notice(NamedTuple):
    """Something an operator may want to know: a maildrop made, a segment taken over, accounts read again."""

    what: str


class Bug(NamedTuple):
    """An exception that is no refusal; the client was told to try again."""

    where: str
    failure: BaseException
    client: Client | None = None


Event = (
    MessageAccepted
    | MessageRefused
    | MessageRetrieved
    | MessagesDeleted
    | LoggedIn
    | LoginRefused
    | SessionEnded
    | ConnectionRefused
    | Trouble
    | Notice
    | Bug
)

Observer = Callable[[Event], None]
"""Called in the reactor's thread; must not raise and must not wait."""


def unobserved(event: Event) -> None:
    """The observer for those who want none."""
