"""Unique ids: what POP3's UIDL shows (RFC 1939 7) and what names a message in logs and trace fields."""

from __future__ import annotations

import secrets
import time


class UniqueIds:
    """
    Each is 14 hexadecimal digits of a time in microseconds, and 10 that this process drew.

    The time never repeats within a process and the rest differs between processes, so none is ever used again; they sort by time.
    """

    def __init__(self) -> None:
        self._last = 0
        self._writer = secrets.token_hex(5)

    def next(self) -> tuple[int, str]:
        """@return: the time, in microseconds since 1970, and the unique id."""
        now = time.time_ns() // 1000
        if now <= self._last:  # the clock stood, or was set back
            now = self._last + 1
        self._last = now
        return now, f"{now:014x}{self._writer}"
