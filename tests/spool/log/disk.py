"""Disks for tests: one that knows what a power failure would leave, one that fails when told to."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

from mailhost.spool.files import Files


class RecordedDisk(Files):
    """
    The real file system, with a record of what is durable: a file's octets as they were at its last sync, a directory's names as
    they were at its own.  `leave` writes that down as the directory that a power failure would leave.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.swallowed: set[str] = set()
        """Sites whose syncs are left out: operation and function that asked for it."""
        self.sites: set[str] = set()
        """Where syncs came from."""
        self._octets: dict[int, bytes] = {}
        self._names: dict[str, dict[str, int]] = {}

    def create(self, path: str) -> int:
        fd = super().create(path)
        self._octets[os.fstat(fd).st_ino] = b""  # the number may have been another file's
        return fd

    def sync(self, fd: int) -> None:
        if not self._is_swallowed("sync"):
            super().sync(fd)
            self._octets[os.fstat(fd).st_ino] = os.pread(fd, os.fstat(fd).st_size, 0)

    def sync_directory(self, path: str) -> None:
        if not self._is_swallowed("sync_directory"):
            super().sync_directory(path)
            self._names[path] = {entry.name: entry.inode() for entry in os.scandir(path)}

    def _is_swallowed(self, operation: str) -> bool:
        frame = sys._getframe(2)
        while frame.f_code.co_name == "sync":
            assert frame.f_back is not None
            frame = frame.f_back
        site = f"{operation} by {frame.f_code.co_qualname}"
        self.sites.add(site)
        return site in self.swallowed

    def leave(self, into: str) -> None:
        """@param into: a directory that is not there yet."""
        self._leave(self.root, into)

    def _leave(self, path: str, into: str) -> None:
        os.makedirs(into)
        for name, inode in self._names.get(path, {}).items():
            found = os.path.join(path, name)
            if os.path.isdir(found):
                self._leave(found, os.path.join(into, name))
            elif "index.sqlite3" not in name:
                with open(os.path.join(into, name), "wb") as file:
                    file.write(self._octets.get(inode, b""))


class FailingDisk(Files):
    """Fails the next operation of a kind, as often as it was told to; a failed write has written half."""

    def __init__(self) -> None:
        self._failures: dict[str, list[int]] = {}
        self.truncations_fail = False

    def fail(self, operation: str, code: int = errno.EIO, times: int = 1) -> None:
        """@param operation: `write`, `sync`, `sync_directory`, `create`, `open`, `open_lock` or `rename`."""
        self._failures.setdefault(operation, []).extend([code] * times)

    def mend(self) -> None:
        """Nothing fails any more."""
        self._failures.clear()

    @property
    def has_failed(self) -> bool:
        """Whether everything that was to fail has failed."""
        return not any(self._failures.values())

    def _maybe_fail(self, operation: str) -> None:
        failures = self._failures.get(operation)
        if failures:
            code = failures.pop(0)
            raise OSError(code, os.strerror(code))

    def write(self, fd: int, buffers: Sequence[bytes], offset: int) -> None:
        if self._failures.get("write"):
            octets = b"".join(buffers)
            os.pwrite(fd, octets[: len(octets) // 2], offset)
        self._maybe_fail("write")
        super().write(fd, buffers, offset)

    def sync(self, fd: int) -> None:
        self._maybe_fail("sync")
        super().sync(fd)

    def sync_directory(self, path: str) -> None:
        self._maybe_fail("sync_directory")
        super().sync_directory(path)

    def create(self, path: str) -> int:
        self._maybe_fail("create")
        return super().create(path)

    def open(self, path: str, *, writable: bool = False) -> int:
        self._maybe_fail("open")
        return super().open(path, writable=writable)

    def open_lock(self, path: str) -> int:
        self._maybe_fail("open_lock")
        return super().open_lock(path)

    def rename(self, old: str, new: str) -> None:
        self._maybe_fail("rename")
        super().rename(old, new)

    def truncate(self, fd: int, octets: int) -> None:
        if self.truncations_fail:
            raise OSError(errno.EIO, "truncation failed")
        super().truncate(fd, octets)
