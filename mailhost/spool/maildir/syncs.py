"""Many syncs: one after the other on a quick disk, several at once on a slow one, which can then do them together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from mailhost.spool.files import Files

# A thread's turn costs about a tenth of this; quicker syncs gain nothing by it.
_SLOW_SECONDS = 0.002
_AT_ONCE = 16


class Syncs:
    """Used by one thread at a time."""

    def __init__(self, files: Files, seconds: Callable[[], float]) -> None:
        """@param seconds: a clock, for any thread."""
        self._files = files
        self._seconds = seconds
        self._pool: ThreadPoolExecutor | None = None

    def files(self, paths: Iterable[str]) -> dict[str, OSError]:
        """@return: what failed, and why; all others are durable."""
        return self._all(self._file, paths)

    def directories(self, paths: Iterable[str]) -> dict[str, OSError]:
        """The same for the names in directories."""
        return self._all(self._directory, paths)

    def stop(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def _file(self, path: str) -> None:
        fd = self._files.open(path)
        try:
            self._files.sync(fd)
        finally:
            self._files.close(fd)

    def _directory(self, path: str) -> None:
        self._files.sync_directory(path)

    def _all(self, sync: Callable[[str], None], paths: Iterable[str]) -> dict[str, OSError]:
        found: list[tuple[str, OSError | None]] = []
        left = list(paths)
        while left:
            before = self._seconds()
            path = left.pop(0)
            found.append((path, _error(sync, path)))
            if len(left) > 1 and self._seconds() - before > _SLOW_SECONDS:
                found += self._at_once(sync, left)
                break
        return {path: error for path, error in found if error is not None}

    def _at_once(self, sync: Callable[[str], None], paths: list[str]) -> list[tuple[str, OSError | None]]:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_AT_ONCE, "spool sync")
        return list(zip(paths, self._pool.map(lambda path: _error(sync, path), paths)))


def _error(sync: Callable[[str], None], path: str) -> OSError | None:
    try:
        sync(path)
    except OSError as error:
        return error
    return None
