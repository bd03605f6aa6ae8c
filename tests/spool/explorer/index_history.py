"""All the states that an SQLite index has been in: after a crash it may be any of those that were committed before, or gone."""

from __future__ import annotations

import os
import sqlite3


class IndexHistory:
    """Looks at an index before every operation of a disk, and keeps what is new."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._states: list[tuple[int, bytes | None]] = [(0, None)]
        self._connection: sqlite3.Connection | None = None
        self._version = -1

    def look(self, position: int) -> None:
        """@param position: how many operations the disk has done."""
        if not os.path.exists(self.path):
            self._keep(position, None)
            return
        if self._connection is None:
            self._connection = sqlite3.connect(self.path, isolation_level=None)
            self._version = -1
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        if version != self._version:
            self._version = version
            self._keep(position, self._connection.serialize())

    def _keep(self, position: int, state: bytes | None) -> None:
        if self._states[-1][1] != state:
            self._states.append((position, state))

    def close(self) -> None:
        """Before the file is taken away."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def until(self, position: int) -> list[bytes | None]:
        """Each once, the latest first, and that there is none last."""
        states = [state for when, state in self._states if when <= position and state is not None]
        return [*dict.fromkeys(reversed(states)), None]
