"""
How long deleted mail is held back, by a clock that can be wrong.

What was deleted is held for some time of the wall clock.  When that has jumped by more than a day, against the clock that runs since the
machine was started or against what it said before the machine was last stopped, all that is held might seem to be old enough to go.
So nothing goes then until the wall clock has been steady for a day.
"""

from __future__ import annotations

import json
import time
from typing import NamedTuple

from mailhost.events import Notice, Observer, Trouble
from mailhost.spool.files import Files
from mailhost.spool.log.holdings import NOTHING_HELD
from mailhost.spool.log.layout import Layout

_DAY_SECONDS = 86_400.0
_BOOT = "/proc/sys/kernel/random/boot_id"


class Reading(NamedTuple):
    """What the clocks say, in seconds."""

    wall: float
    """Since 1970."""
    running: float
    """Since the machine was started, its sleep counted."""
    boot: str
    """Names this start of the machine."""


def read_clocks() -> Reading:
    try:
        with open(_BOOT, encoding="ascii") as file:
            boot = file.read().strip()
    except OSError:
        boot = ""
    return Reading(time.time(), time.clock_gettime(time.CLOCK_BOOTTIME), boot)


class Watch(NamedTuple):
    """What is remembered from one look at the clocks to the next."""

    last: Reading
    waiting_seconds: float = 0.0
    """For so long the wall clock has to be steady yet."""

    def after(self, now: Reading) -> tuple[Watch, float]:
        """@return: what is to be remembered, and by how many seconds the wall clock has jumped."""
        passed = now.running - self.last.running if now.boot == self.last.boot else 0.0
        jump = now.wall - self.last.wall - passed
        if abs(jump) > _DAY_SECONDS:
            return Watch(now, _DAY_SECONDS), jump
        return Watch(now, max(0.0, self.waiting_seconds - passed)), 0.0


class Retention:
    """In a thread, by one at a time."""

    def __init__(self, files: Files, layout: Layout, keep_seconds: float, tell: Observer) -> None:
        """
        @param keep_seconds: for so long deleted mail is held back.
        @param tell: takes events in any thread.
        """
        self._files = files
        self._path = layout.retention
        self._keep_seconds = keep_seconds
        self._tell = tell

    def since(self, now: Reading) -> int:
        """
        @return: what was deleted later is held back; microseconds since 1970.
        @raise OSError: the clocks' last state cannot be read or written.
        """
        if not self._keep_seconds:
            return NOTHING_HELD
        before = self._read()
        watch, jump = (Watch(now), 0.0) if before is None else before.after(now)
        self._write(watch)
        if jump:
            days = f"{jump / _DAY_SECONDS:.1f}"
            self._tell(
                Trouble(
                    f"the wall clock has jumped by {days} days: no deleted mail goes before it was steady for a day"
                )
            )
        elif before is not None and before.waiting_seconds and not watch.waiting_seconds:
            self._tell(
                Notice("the wall clock was steady for a day: deleted mail is given up again when its time has come")
            )
        return 0 if watch.waiting_seconds else int((now.wall - self._keep_seconds) * 1e6)

    def _read(self) -> Watch | None:
        try:
            fd = self._files.open(self._path)
        except FileNotFoundError:
            return None
        try:
            found = json.loads(self._files.read(fd, 1000, 0))
            return Watch(Reading(*found["last"]), found["waiting_seconds"])
        except (ValueError, KeyError, TypeError):  # a crash in the making of the first one
            return None
        finally:
            self._files.close(fd)

    def _write(self, watch: Watch) -> None:
        new = self._path + ".new"
        if self._files.exists(new):
            self._files.unlink(new)
        fd = self._files.create(new)
        try:
            self._files.write(fd, [json.dumps(watch._asdict()).encode()], 0)
            self._files.sync(fd)
        finally:
            self._files.close(fd)
        self._files.rename(new, self._path)
