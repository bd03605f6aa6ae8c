"""
Names of messages in a Maildir (https://cr.yp.to/proto/maildir.html, and Maildir++ for the sizes).

    1763768056.M123456P4711R0123456789.mx.example.test,S=1234,W=1234:2,S
    `- unique name -------------------------------- '`- sizes -----'`- info
    `- base --------------------------------------------------'

The base is a message's for life; other programs move it from new/ to cur/ and change what follows the colon.  `S` is the file's size,
`W` what it would be with CRLF line ends.  Our own files have CRLF line ends as they are.

The unique-id of a message of ours is made of its time and of `R`, which names its writer: it looks as the log spool's do.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import socket
import time
from typing import NamedTuple

_HOST_OCTETS = 64

_UNIQUE_ID = re.compile(r"[!-~]{1,70}")
_OURS = re.compile(r"([0-9]{1,12})\.M([0-9]{6})P[0-9]+R([0-9a-f]{10})\.[^,:/]+(?:,S=([0-9]{1,18}))?(?:,.*)?")
_TIME = re.compile(r"([0-9]{1,12})(?:\.M([0-9]{1,6})(?![0-9]))?")
_SIZE = re.compile(r",S=([0-9]{1,18})(?=,|$)")
_WITH_CRLF = re.compile(r",W=([0-9]{1,18})(?=,|$)")


class UniqueNames:
    """Of the messages of one process: none comes twice, and they sort by time."""

    def __init__(self, host: str | None = None) -> None:
        self.writer = secrets.token_hex(5)
        """What distinguishes this writer's names from all others'."""
        self._end = f"P{os.getpid()}R{self.writer}.{safe_host(host or socket.gethostname())}"
        self._last = 0

    def next(self) -> tuple[str, str]:
        """@return: the unique-id, and the unique name."""
        now = time.time_ns() // 1000
        if now <= self._last:  # the clock stood, or was set back
            now = self._last + 1
        self._last = now
        return f"{now:014x}{self.writer}", f"{now // 1_000_000}.M{now % 1_000_000:06d}{self._end}"


def safe_host(host: str) -> str:
    """What may stand in a file's name: the specification's way for "/" and ":", and nothing else that a unique-id may not have."""
    host = host.replace("/", "\\057").replace(":", "\\072")
    return re.sub(r"[^!-~]|,", "_", host)[:_HOST_OCTETS] or "localhost"


def with_sizes(unique: str, octets: int, *, all_crlf: bool) -> str:
    """
    The base of a message of ours.

    @param octets: of the file.
    @param all_crlf: no LF stands alone in it; else the size with CRLF is left for others to find out.
    """
    return f"{unique},S={octets},W={octets}" if all_crlf else f"{unique},S={octets}"


def base_of(name: str) -> str:
    return name.partition(":")[0]


def time_of(base: str) -> int:
    """In microseconds since 1970, as the name says; 0 where it says nothing."""
    match = _TIME.match(base)
    if match is None:
        return 0
    seconds, micro = match.groups()
    return int(seconds) * 1_000_000 + int(micro or 0)


class Sizes(NamedTuple):
    """What a base says."""

    octets: int | None
    """Of the file."""
    with_crlf: int | None


def sizes_of(base: str) -> Sizes:
    octets, with_crlf = _SIZE.search(base), _WITH_CRLF.search(base)
    return Sizes(int(octets[1]) if octets else None, int(with_crlf[1]) if with_crlf else None)


class Ours(NamedTuple):
    """What the base of a message says that this program delivered."""

    time: int
    """In microseconds since 1970."""
    octets: int | None
    """None where another program took the size from the name."""
    unique_id: str


def ours(base: str) -> Ours | None:
    """None for other programs' messages."""
    match = _OURS.fullmatch(base)
    if match is None:
        return None
    seconds, micro, writer, octets = match.groups()
    time = int(seconds) * 1_000_000 + int(micro)
    return Ours(time, None if octets is None else int(octets), f"{time:014x}{writer}")


def our_octets(base: str) -> int | None:
    """The size that this program gave a message's file; None where that cannot be told, and for other programs' messages."""
    found = ours(base)
    return found and found.octets


def our_unique_id(base: str) -> str | None:
    """None for other programs' messages."""
    found = ours(base)
    return found and found.unique_id


def foreign_unique_id(base: str) -> str:
    """The base itself, as Courier and Dovecot's `%f` have it, or a hash of one that cannot be a unique-id."""
    return base if _UNIQUE_ID.fullmatch(base) else hashed_unique_id(base)


def hashed_unique_id(base: str) -> str:
    return hashlib.sha256(base.encode("utf-8", "surrogateescape")).hexdigest()
