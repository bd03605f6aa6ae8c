"""
A disk that can lose its power: everything done to it is taken down, operation by operation.

`Disk` is what the kernel shows to all processes; `SimulatedFiles` is one process's door to it.  What would be left of it after a power
failure is for `crashes` to say.  SQLite opens its own files, so whatever has `sqlite3` in its name is in the real directory of the
same path.
"""

from __future__ import annotations

import errno
import linecache
import mmap
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mailhost.spool.files import Files

ROOT = 0
"""The inode of the directory that the spool's own is made in."""


class Write(NamedTuple):
    inode: int
    offset: int
    octets: bytes


class Truncate(NamedTuple):
    inode: int
    octets: int


class Names(NamedTuple):
    """Names entered into a directory, or taken out of it, all at once."""

    inode: int
    changes: tuple[tuple[str, int | None], ...]
    requires: int = -1
    """The operation without which this one cannot have happened: a name moves to another directory before it leaves its own."""


class Move(NamedTuple):
    """A directory moved to another one, at once: no file system shows a directory twice."""

    inode: int
    """Of the directory that it moves to."""
    name: str
    source: int
    old_name: str
    target: int


class Sync(NamedTuple):
    inode: int
    failed: bool = False
    """Then what it was to make durable may be lost, whatever later syncs say."""


Operation = Write | Truncate | Names | Move | Sync


class Image(NamedTuple):
    """All that is on a disk, by inode."""

    files: dict[int, bytearray]
    directories: dict[int, dict[str, int]]
    modified: dict[int, int]
    """When each was changed last, in nanoseconds since 1970."""

    @classmethod
    def empty(cls) -> Image:
        return cls({}, {ROOT: {}}, {})

    def copy(self) -> Image:
        files = {inode: bytearray(octets) for inode, octets in self.files.items()}
        directories = {inode: dict(names) for inode, names in self.directories.items()}
        return Image(files, directories, dict(self.modified))

    def apply(self, operation: Operation, when: int) -> None:
        """The whole of it."""
        if not isinstance(operation, Sync):
            self.modified[operation.inode] = when
        match operation:
            case Write(inode, offset, octets):
                put(self.files[inode], offset, octets)
            case Truncate(inode, length):
                octets = self.files[inode]
                del octets[length:]
                octets.extend(bytes(length - len(octets)))
            case Names(inode, changes):
                for name, target in changes:
                    if target is None:
                        self.directories[inode].pop(name, None)
                    else:
                        self.directories[inode][name] = target
            case Move(inode, name, source, old_name, target):
                self.modified[source] = when
                self.directories[source].pop(old_name, None)
                self.directories[inode][name] = target

    def tree(self, inode: int = ROOT, path: str = "") -> dict[str, bytes | None]:
        """Path to a file's octets, or to None for a directory."""
        found: dict[str, bytes | None] = {}
        for name, target in self.directories[inode].items():
            at = f"{path}/{name}"
            if target in self.directories:
                found[at] = None
                found |= self.tree(target, at)
            else:
                found[at] = bytes(self.files[target])
        return found


def put(octets: bytearray, offset: int, more: bytes) -> None:
    """Write into a file, with zeros before it if it is not that long yet."""
    if offset > len(octets):
        octets.extend(bytes(offset - len(octets)))
    octets[offset : offset + len(more)] = more


class Disk:
    """What all processes see, and how it came to be."""

    def __init__(self, start: Image | None = None) -> None:
        """@param start: what is on it, durably; a directory and nothing in it if not given."""
        self.start = (start or Image.empty()).copy()
        self.now = self.start.copy()
        self.operations: list[Operation] = []
        self.times: list[int] = []
        """When each of them was done."""
        self.lock_files: set[int] = set()
        """Inodes of files that only carry locks: nothing rests on what is left of them."""
        self.locks: dict[int, dict[tuple[SimulatedFiles, int], bool]] = {}
        """Inode to process and descriptor of each holder, and whether it has it exclusively."""
        self.maps: dict[int, int] = {}
        self.before_operation: Callable[[int], None] = lambda position: None
        self._last_inode = max((ROOT, *self.now.files, *self.now.directories))

    def perform(self, operation: Operation) -> None:
        self.before_operation(len(self.operations))
        self.times.append(time.time_ns())
        self.operations.append(operation)
        self.now.apply(operation, self.times[-1])

    def new_file(self) -> int:
        self._last_inode += 1
        for image in (self.start, self.now):
            image.files[self._last_inode] = bytearray()
        return self._last_inode

    def new_directory(self) -> int:
        self._last_inode += 1
        for image in (self.start, self.now):
            image.directories[self._last_inode] = {}
        return self._last_inode

    def map(self, inode: int, octets: int) -> mmap.mmap:
        """Memory that all who map this file share; what is changed through it never gets to the disk."""
        if inode not in self.maps:
            fd = os.memfd_create("simulated")
            os.pwrite(fd, bytes(self.now.files[inode]).ljust(octets, b"\0"), 0)
            self.maps[inode] = fd
        return mmap.mmap(self.maps[inode], octets)

    def close(self) -> None:
        for fd in self.maps.values():
            os.close(fd)
        self.maps.clear()


class Killed(BaseException):
    """The process has ended at a fault point."""


class SimulatedFiles(Files):
    """One process's files.  Every operation of `Files` is here; a test sees to that."""

    def __init__(self, disk: Disk, base: str) -> None:
        """@param base: the path of the directory that the disk's root stands for."""
        self.disk = disk
        self.swallowed: set[str] = set()
        """Sites whose syncs do nothing, and say that all is well."""
        self.sites: set[str] = set()
        """Where syncs came from."""
        self.kill_at = ""
        """The fault point at which this process ends, or `sync`: before the next one."""
        self.is_dead = False
        self.before_renaming_index: Callable[[], None] = lambda: None
        self._base = base
        self._open: dict[int, int] = {}
        self._read_only: set[int] = set()
        self._last_fd = 1_000_000
        self.failures: list[tuple[str, int]] = []
        """Operations that fail when they are asked for next, and with what."""

    def fault_point(self, name: str) -> None:
        if name == self.kill_at:
            self.is_dead = True
        self._live()

    def _live(self) -> None:
        if self.is_dead:
            raise Killed

    def bury(self) -> None:
        """What the kernel does for a process that has ended."""
        self.is_dead = True
        self._open.clear()
        for holders in self.disk.locks.values():
            for holder in [holder for holder in holders if holder[0] is self]:
                del holders[holder]

    # -- failures

    def fail(self, operation: str, code: int = errno.EIO, times: int = 1) -> None:
        """@param operation: `write`, `sync`, `sync_directory`, `create`, `rename` or `truncate`; the next ones fail."""
        self.failures += [(operation, code)] * times

    def _maybe_fail(self, operation: str) -> None:
        self._live()
        for failure in self.failures:
            if failure[0] == operation:
                self.failures.remove(failure)
                raise OSError(failure[1], os.strerror(failure[1]))

    # -- paths

    def _find(self, path: str) -> int:
        inode = ROOT
        relative = os.path.relpath(path, self._base)
        assert not relative.startswith(".."), f"{path} is not on this disk"
        for name in relative.split("/") if relative != "." else ():
            if inode not in self.disk.now.directories:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            if name not in self.disk.now.directories[inode]:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            inode = self.disk.now.directories[inode][name]
        return inode

    def _place(self, path: str) -> tuple[int, str]:
        """@return: the directory, and the name in it."""
        return self._find(os.path.dirname(path)), os.path.basename(path)

    # -- directories

    def make_directory(self, path: str) -> None:
        self._live()
        if self.exists(path):
            return
        directory, name = self._place(path)
        self.disk.perform(Names(directory, ((name, self.disk.new_directory()),)))

    def names(self, directory: str) -> list[str]:
        self._live()
        real = os.listdir(directory) if os.path.isdir(directory) else []
        return [*self.disk.now.directories[self._find(directory)], *filter(is_sqlite, real)]

    def remove_directory(self, path: str) -> None:
        self._live()
        if self.disk.now.directories[self._find(path)]:
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)
        directory, name = self._place(path)
        self.disk.perform(Names(directory, ((name, None),)))

    def modified(self, path: str) -> int:
        self._live()
        return self.disk.now.modified.get(self._find(path), 0)

    def sync_directory(self, path: str) -> None:
        self._sync("sync_directory", self._find(path))

    def rename(self, old: str, new: str) -> None:
        if is_sqlite(old):
            self.before_renaming_index()
            return super().rename(old, new)
        self._maybe_fail("rename")
        inode = self._find(old)
        (source, old_name), (target, new_name) = self._place(old), self._place(new)
        if source == target:
            return self.disk.perform(Names(source, ((old_name, None), (new_name, inode))))
        if inode in self.disk.now.directories:
            return self.disk.perform(Move(target, new_name, source, old_name, inode))
        self.disk.perform(Names(target, ((new_name, inode),)))
        return self.disk.perform(Names(source, ((old_name, None),), len(self.disk.operations) - 1))

    def unlink(self, path: str) -> None:
        if is_sqlite(path):
            self.before_renaming_index()
            return super().unlink(path)
        self._live()
        if self._find(path) in self.disk.now.directories:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        directory, name = self._place(path)
        return self.disk.perform(Names(directory, ((name, None),)))

    def exists(self, path: str) -> bool:
        self._live()
        if is_sqlite(path):
            return super().exists(path)
        try:
            self._find(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def is_directory(self, path: str) -> bool:
        return self.exists(path) and self._find(path) in self.disk.now.directories

    def is_at(self, fd: int, path: str) -> bool:
        return self.exists(path) and self._find(path) == self._open[fd]

    # -- files

    def create(self, path: str) -> int:
        self._maybe_fail("create")
        if self.exists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        return self._opened(self._made(path))

    def _made(self, path: str) -> int:
        directory, name = self._place(path)
        inode = self.disk.new_file()
        self.disk.perform(Names(directory, ((name, inode),)))
        return inode

    def _opened(self, inode: int) -> int:
        self._last_fd += 1
        self._open[self._last_fd] = inode
        return self._last_fd

    def open(self, path: str, *, writable: bool = False) -> int:
        self._live()
        fd = self._opened(self._find(path))
        if not writable:
            self._read_only.add(fd)
        return fd

    def open_lock(self, path: str) -> int:
        self._live()
        if self.exists(path):
            return self._opened(self._find(path))
        inode = self._made(path)
        self.disk.lock_files.add(inode)
        return self._opened(inode)

    def close(self, fd: int) -> None:
        inode = self._open.pop(fd, -1)
        self.disk.locks.get(inode, {}).pop((self, fd), None)

    def size(self, fd: int) -> int:
        self._live()
        return len(self.disk.now.files[self._open[fd]])

    def _check_writable(self, fd: int, code: int) -> None:
        if fd in self._read_only:
            raise OSError(code, os.strerror(code))

    def write(self, fd: int, buffers: Sequence[bytes], offset: int) -> None:
        self._check_writable(fd, errno.EBADF)
        octets = b"".join(buffers)
        try:
            self._maybe_fail("write")
        except OSError:  # half of it has got there
            self.disk.perform(Write(self._open[fd], offset, octets[: len(octets) // 2]))
            raise
        self.disk.perform(Write(self._open[fd], offset, octets))

    def read(self, fd: int, count: int, offset: int) -> bytes:
        self._live()
        return bytes(self.disk.now.files[self._open[fd]][offset : offset + count])

    def read_at_once(self, fd: int, count: int, offset: int) -> bytes:
        return self.read(fd, count, offset)

    def sync(self, fd: int) -> None:
        self._sync("sync", self._open[fd])

    def _sync(self, operation: str, inode: int) -> None:
        self.fault_point(operation)
        try:
            self._maybe_fail(operation)
        except OSError:
            self.disk.perform(Sync(inode, failed=True))
            raise
        site = _site()
        self.sites.add(site)
        if site not in self.swallowed:
            self.disk.perform(Sync(inode))

    def truncate(self, fd: int, octets: int) -> None:
        self._check_writable(fd, errno.EINVAL)
        self._maybe_fail("truncate")
        self.disk.perform(Truncate(self._open[fd], octets))

    def lock(self, fd: int, *, wait: bool = False) -> bool:
        self._live()
        holders = self.disk.locks.setdefault(self._open[fd], {})
        is_free = not holders.keys() - {(self, fd)}
        assert is_free or not wait, "waits for a lock that nobody here will let go of"
        if is_free:
            holders[self, fd] = True
        return is_free

    def lock_shared(self, fd: int) -> None:
        self._live()
        holders = self.disk.locks.setdefault(self._open[fd], {})
        others = holders.keys() - {(self, fd)}
        assert not any(holders[other] for other in others), "waits for a lock that nobody here will let go of"
        holders[self, fd] = False

    def map(self, fd: int, octets: int) -> mmap.mmap:
        self._live()
        return self.disk.map(self._open[fd], octets)

    # -- file systems

    def free_octets(self, path: str) -> int:
        return 1 << 40

    def file_system(self, path: str) -> str:
        return "simulated"


def is_sqlite(path: str) -> bool:
    return "sqlite3" in os.path.basename(path)


def _site() -> str:
    """Where in the spool a sync is wanted: the nearest function that is not called `sync` itself, and its line."""
    frame = sys._getframe(3)
    while frame.f_code.co_name == "sync":
        assert frame.f_back is not None
        frame = frame.f_back
    code, file = frame.f_code, frame.f_code.co_filename
    line, *before = (
        linecache.getline(file, number).partition("#")[0].strip()
        for number in range(frame.f_lineno, code.co_firstlineno, -1)
    )
    which = before.count(line) + 1
    module = frame.f_globals["__name__"].rpartition(".")[2]
    return f"{module}.{code.co_qualname}: {line}" + (f" ({which})" if which > 1 else "")
