"""
The plain values that travel between the parts: paths, the client, the envelope.

Nothing here does I/O or knows a protocol's wording.  All are named tuples: made once per command, compared by value, never changed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

# RFC 5321 4.1.2: a local part that is a Dot-string needs no quotes; RFC 6531 3.3 adds everything beyond ASCII to atext.
_DOT_STRING = re.compile(r"[\w!#$%&'*+/=?^`{|}~\x80-\U0010ffff-]+(\.[\w!#$%&'*+/=?^`{|}~\x80-\U0010ffff-]+)*")

Parameters = Mapping[str, str | None]
"""ESMTP parameters of MAIL or RCPT (RFC 5321 4.1.2): upper-case keyword to value as sent, None where it had no "="."""

NO_PARAMETERS: Parameters = {}


class Path(NamedTuple):
    """
    A reverse-path or forward-path (RFC 5321 4.1.2), its source route already dropped.

    `local_part` is the unquoted text: `a b`, not `"a b"`.  `domain` is as the client wrote it, an address literal with its
    brackets; empty only in the null reverse-path and in `<postmaster>`.
    """

    local_part: str
    domain: str

    @property
    def mailbox(self) -> str:
        """What stands between the angle brackets: quoted where it must be; empty for the null reverse-path."""
        local_part, domain = self
        if not local_part and not domain:
            return ""
        if not _DOT_STRING.fullmatch(local_part):
            local_part = '"' + local_part.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return f"{local_part}@{domain}" if domain else local_part

    def __str__(self) -> str:
        return f"<{self.mailbox}>"


NULL_REVERSE_PATH = Path("", "")


class TLS(NamedTuple):
    """What protects a connection: for Received fields, the log and policy."""

    version: str
    """As TLS itself names it: `TLSv1.3`."""
    cipher: str
    bits: int


class Client(NamedTuple):
    """
    Who is at the other end, as far as it is known now; the `mind` of every login.

    A session replaces its client when it learns more (EHLO, TLS, login), so a value that was handed on never changes.
    """

    session: str
    """Names this session in every log line and in refusals: letters and digits, unique in one host's life."""
    host: str
    """The peer's IP address as text, `::1` without brackets; empty for a UNIX socket."""
    port: int
    listener: str
    """Which listener took the connection, as the configuration names it."""
    protocol: str
    """`smtp`, `submission`, `lmtp` or `pop3`."""
    tls: TLS | None = None
    helo: str = ""
    """The argument of EHLO, HELO or LHLO as the client gave it; empty before that and in POP3."""
    extended: bool = False
    """True after EHLO or LHLO, false after HELO."""
    account: bytes | None = None
    """The avatar id after a login that was not anonymous."""


class Envelope(NamedTuple):
    """All that came with a message beside its content (RFC 5321 2.3.1)."""

    client: Client
    reverse_path: Path
    parameters: Parameters
    forward_paths: tuple[Path, ...]
    """Those that were accepted, in the order of their RCPT commands, doubles included."""
    forward_parameters: tuple[Parameters, ...] = ()
    """One for each forward-path; empty when none had any."""


class Copy(NamedTuple):
    """What one maildrop gets of a message: the shared content behind header fields of its own."""

    maildrop: str
    """A maildrop's name: lower-case `user@domain` for accounts; the spool takes it as any text."""
    fields: bytes
    """Whole header fields (Return-Path, Delivered-To) in wire form, each ending in CRLF; sent before the shared content."""


class Outcome(NamedTuple):
    """What became of a message that was committed."""

    unique_id: str
    refused: Mapping[int, Exception] = {}
    """
    Forward-paths that got nothing though others did: 0-based place in `Envelope.forward_paths`, to why.

    Only LMTP can say this to its client; where it cannot be said nothing of the kind may happen.
    """


class Totals(NamedTuple):
    """What POP3's STAT says (RFC 1939 5)."""

    messages: int
    octets: int
    """The plain form's, as RFC 1939 counts: CRLF line ends, dots not doubled."""
