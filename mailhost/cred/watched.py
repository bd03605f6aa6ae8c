"""
A small file that people edit while the server runs: what it means, read again when it has changed.

Every look at the disk, a stat too, happens in a thread.  Those who need the file as it is now wait for a look that began after they
asked; all who ask while one is under way share the next.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

T = TypeVar("T")

InThread = Callable[..., "Deferred[Any]"]
"""Calls a function with arguments in another thread, as `twisted.internet.threads.deferToThread` does."""

# Looks that are due at once, in one second; a flood of questions beyond that is answered by a look at most this old.
_LOOKS_A_SECOND = 20
_FLOOD_SECONDS = 0.05

# For those who need not know at once.
_SOON_SECONDS = 1.0

# A file system's clock ticks: a change this soon after another may leave the times as they were.
_TICK_NANOSECONDS = 50_000_000

_Signature = tuple[int, ...]


class WatchedFile(Generic[T]):
    """
    `value` is what the file meant when it was last read whole and right.

    When it cannot be read or is wrong, `value` stays, and `trouble` says why until it is right again.
    """

    def __init__(
        self, path: str, parse: Callable[[bytes], T], in_thread: InThread, seconds: Callable[[], float]
    ) -> None:
        """
        Reads the file at once, in this thread: whoever starts with a wrong file should not start.

        @param parse: called in a thread; raises ValueError for a file that is wrong.
        @param seconds: a clock that is never set back.
        @raise OSError: it cannot be read.
        @raise ValueError: of `parse`.
        """
        self.path = path
        self.in_thread = in_thread
        self.changed: Callable[[], None] = lambda: None
        self.troubled: Callable[[Exception], None] = lambda error: None
        self.trouble: Exception | None = None
        self._parse = parse
        self._seconds = seconds
        self._waiting: list[Deferred[None]] = []
        self._looking = False
        self._looked_at = self._second = seconds()
        self._looks = 0
        self._signature: _Signature | None
        self._signature, self.mode, self.value = _read(path, parse)

    def look_is_due(self) -> bool:
        """Whether an answer has to wait for a look.  Always true but in a flood of questions, where a very new one does."""
        now = self._seconds()
        if now - self._second >= 1:
            self._second, self._looks = now, 0
        self._looks += 1
        return self._looks <= _LOOKS_A_SECOND or now - self._looked_at > _FLOOD_SECONDS

    def look_soon(self) -> None:
        """Look in the background, once a second at most."""
        if self._seconds() - self._looked_at >= _SOON_SECONDS:
            self.look()

    def look(self) -> Deferred[None]:
        """Fires after a look that began after this call; never fails."""
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        if not self._looking:
            self._look()
        return waiting

    def _look(self) -> None:
        served, self._waiting = self._waiting, []
        self._looking = True
        self._looked_at = self._seconds()
        look = maybeDeferred(self.in_thread, _read_if_changed, self.path, self._parse, self._signature, self.value)
        look.addCallbacks(self._read_again, self._could_not)
        look.addBoth(self._looked, served)

    def _looked(self, result: Failure | None, served: list[Deferred[None]]) -> None:
        self._looking = False
        for waiting in served:
            waiting.callback(None)
        if self._waiting and not self._looking:
            self._look()

    def _read_again(self, read: tuple[_Signature | None, int, T] | None) -> None:
        if read is None:
            return
        self._signature, self.mode, value = read
        self.trouble = None
        if value is not self.value:
            self.value = value
            self.changed()

    def _could_not(self, failure: Failure) -> None:
        """Said once, not at each look; a bug of ours is a trouble like any other here, since the old value still serves."""
        error = failure.value
        before, self.trouble = self.trouble, error if isinstance(error, Exception) else Exception(error)
        self._signature = None
        if str(before) != str(self.trouble):
            self.troubled(self.trouble)


def _read_if_changed(
    path: str, parse: Callable[[bytes], T], signature: _Signature | None, value: T
) -> tuple[_Signature | None, int, T] | None:
    if signature is not None and _signature(os.stat(path)) == signature:
        return None
    signature, mode, read = _read(path, parse)
    # Compared here, where a large file holds up nobody: the same value, the very object, means that nothing changed.
    return signature, mode, value if read == value else read


def _read(path: str, parse: Callable[[bytes], T]) -> tuple[_Signature | None, int, T]:
    """What the file is like, its mode, and what it means; no signature while a change could still go unseen."""
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        content = file.read()
    is_young = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) < _TICK_NANOSECONDS
    return None if is_young else _signature(status), status.st_mode, parse(content)


def _signature(status: os.stat_result) -> _Signature:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
