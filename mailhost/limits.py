"""
Every number that bounds what a client can ask for, with the reason for its default, how much a maildrop may hold, and on what terms.

`[limits]`, `[quota]` and `[pop3]` in the configuration set them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
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


OwnTerms = Mapping[str, int | None]
"""What an account or a domain says itself: fields of `Terms` by name."""

_TERMS = {"login_delay": "login_delay_seconds", "expire": "expire_days"}


class Terms(NamedTuple):
    """On what terms an account uses its maildrop by POP3."""

    login_delay_seconds: int = 0
    """From one login to the next (RFC 2449 6.5)."""
    expire_days: int | None = None
    """So long messages are kept (RFC 2449 6.7); None is for ever."""

    def but(self, own: OwnTerms) -> Terms:
        """These, but for what an account or a domain says itself."""
        return Terms(**{**self._asdict(), **own})

    @staticmethod
    def own(fields: Mapping[str, str]) -> OwnTerms:
        """
        What of an account's fields are terms: `login_delay` in seconds, `expire` in days or `never`.

        @raise ValueError: in words for the operator.
        """
        own: dict[str, int | None] = {}
        for key, name in _TERMS.items():
            text = fields.get(key)
            if text == "never" and key == "expire":
                own[name] = None
            elif text is not None:
                if not re.fullmatch("[0-9]{1,9}", text) or (key == "expire" and not int(text)):
                    raise ValueError(f'{key} is "{text}", which is no number of {name.rpartition("_")[2]}')
                own[name] = int(text)
        return own


class Offered(NamedTuple):
    """What a server can say of its terms before a login (RFC 2449 6.5, 6.7)."""

    terms: Terms = Terms()
    """The longest delay and the shortest keeping."""
    delay_varies: bool = False
    expire_varies: bool = False

    @classmethod
    def of(cls, every: Collection[Terms]) -> Offered:
        """@param every: all that are in use, at least one."""
        delays = {terms.login_delay_seconds for terms in every}
        expiries = {terms.expire_days for terms in every}
        shortest = min((days for days in expiries if days is not None), default=None)
        return cls(Terms(max(delays), shortest), len(delays) > 1, len(expiries) > 1)
