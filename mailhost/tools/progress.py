"""A bar for a person who waits; nothing for scripts."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_CELLS = 30
_EVERY_SECONDS = 0.1


class Bar:
    """
    Shows how far long work has come, on a terminal only, so that logs and pipes stay clean.

    An instance is called with what is done and what there is in all, in any unit; use it in a `with`, which ends the line.
    """

    def __init__(self, what: str, to: TextIO | None = None) -> None:
        self._what = what
        self._to = to or sys.stderr
        self._visible = self._to.isatty()
        self._began = time.monotonic()
        self._drawn = 0.0

    def __enter__(self) -> Bar:
        return self

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if not self._visible or (now - self._drawn < _EVERY_SECONDS and done < total):
            return
        self._drawn = now
        share = min(done / total, 1.0) if total else 1.0
        cells = int(share * _CELLS)
        bar = "#" * cells + "." * (_CELLS - cells)
        self._to.write(f"\r{self._what} [{bar}] {share:4.0%}{self._left(share, now)}\x1b[K")
        self._to.flush()

    def _left(self, share: float, now: float) -> str:
        spent = now - self._began
        if share >= 1.0 or share <= 0.0 or spent < 1.0:
            return ""
        left = round(spent / share - spent)
        return f"  {left // 60}:{left % 60:02} left"

    def __exit__(self, *_: object) -> None:
        if self._drawn:
            self._to.write("\n")
            self._to.flush()
