"""
Every number that bounds what a client can ask for, with the reason for its default, and how much a maildrop may hold.

`[limits]` and `[quota]` in the configuration set them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one listener's sessions.  Octets are octets, `*_seconds` are seconds."""

    # -- what a message may be
    message_octets: int = 50 * 1024 * 1024
    # RFC 5321 4.5.3.1.8 wants at least 100.
    recipients: int = 1000
    # Received fields: RFC 5321 6.3 wants at least 100 before a message is taken to go in circles.
    received: int = 100
    # The header section of a submitted message, which is held until it is known what it lacks.
    header_octets: int = 256 * 1024

    # -- what a session may be
    # RFC 5321 4.5.3.1.4 wants 512 and every extension adds some; 4,096 holds them all.
    command_line_octets: int = 4096
    # RFC 4954 4 asks for 12,288 in an AUTH exchange.
    auth_line_octets: int = 12288
    # Syntax, sequence and failed logins; never our own 4xx.
    errors: int = 20
    # Held while a step is under way; above it reading pauses.  Content is handed on in blocks and never counts for long.
    unread_octets: int = 128 * 1024

    # -- how many
    connections: int = 20_000
    connections_per_host: int = 1_000

    # -- how long a silent client is waited for, by phase (RFC 5321 4.5.3.2, as the server's side; RFC 1939 3: ten minutes)
    command_seconds: float = 300.0
    content_seconds: float = 180.0
    login_seconds: float = 60.0
    pop3_idle_seconds: float = 600.0
    # A client that does not read: so long without any progress in what we send.
    write_seconds: float = 300.0
    # A close that the client does not take becomes an abort.
    close_seconds: float = 10.0

    # -- how long our own parts may take; all under the five minutes in which no client gives up (RFC 5321 4.5.3.2.6: ten)
    lookup_seconds: float = 60.0
    commit_seconds: float = 240.0
    # A second session of one maildrop waits so long for the first to end.
    maildrop_wait_seconds: float = 5.0
    # A session so long without any progress gives the maildrop up to a second one.
    takeover_seconds: float = 60.0

    # -- the end
    drain_seconds: float = 30.0


_QUOTA = re.compile(r"(?:([0-9]{1,15}|-)/)?(?:([0-9]{1,15})([KMGT]?)|-)", re.ASCII)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class Quota(NamedTuple):
    """How much one maildrop may hold; None is as much as comes."""

    messages: int | None = None
    octets: int | None = None

    @classmethod
    def parse(cls, text: str) -> Quota:
        """
        As operators write it: `5G` for octets, `10000/5G` for messages and octets, and `-` for whichever has no limit.

        @raise ValueError: in words for the operator.
        """
        found = _QUOTA.fullmatch(text)
        if found is None:
            raise ValueError(f'"{text}" is not a quota such as 5G, 10000/5G or -')
        messages, octets, unit = found.groups()
        return cls(
            int(messages) if messages not in (None, "-") else None,
            int(octets) * _UNITS[unit] if octets is not None else None,
        )
