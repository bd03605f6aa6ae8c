"""Decides whether a sync is short enough to be done in the reactor's own turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

_SHORT_SECONDS = 0.001
_LONG_SECONDS = 0.020
_AWAY_SECONDS = 60.0
_REMEMBERED = 1000
_SLOW_ALLOWED = _REMEMBERED // 100
_TRIED = 20


class Pace:
    """
    In the turn while at most ten of the last 1,000 syncs took a millisecond or more; more than that, or one of 20 ms, end it for a
    minute.

    A thread has to wait for the interpreter's lock when its sync is done, so what it measures is too long under load, never too
    short: one short sync among its last twenty is reason enough to try the turn, where every one is counted.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        """@param seconds: a clock."""
        self._seconds = seconds
        self._recent: deque[bool] = deque(maxlen=_REMEMBERED)
        self._slow = 0
        self._tried: deque[float] = deque(maxlen=_TRIED)
        self._away_until = 0.0
        self.in_turn = False

    def took_in_turn(self, seconds: float) -> None:
        """A sync was done in the turn."""
        slow = seconds >= _SHORT_SECONDS
        recent = self._recent
        if len(recent) == _REMEMBERED:
            self._slow -= recent[0]
        recent.append(slow)
        self._slow += slow
        if slow and (seconds >= _LONG_SECONDS or self._slow > _SLOW_ALLOWED):
            self._go_away()

    def took_in_thread(self, seconds: float) -> None:
        """A sync was done by the committer's thread."""
        self._tried.append(seconds)
        now = self._seconds()
        if len(self._tried) == _TRIED and now >= self._away_until and min(self._tried) < _SHORT_SECONDS:
            self.in_turn = True

    def _go_away(self) -> None:
        self.in_turn = False
        self._away_until = self._seconds() + _AWAY_SECONDS
        self._recent.clear()
        self._tried.clear()
        self._slow = 0
