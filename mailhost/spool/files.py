"""
The one door: every operation on a spool's files goes through `Files`.

A test gives a subclass that records what was written and synced, fails an operation, or ends the process at a fault point.  Errors are
`OSError` throughout; what they mean for a message is decided by the spool.  SQLite opens its own files: an index is derived from what
passed here, and may be lost.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Sequence

_DIRECTORY_MODE = 0o2770  # setgid: what the service and an operator's tools make belongs to one group
_FILE_MODE = 0o660
_AT_ONCE = getattr(os, "RWF_NOWAIT", 0)
_IOV_MAX = max(os.sysconf("SC_IOV_MAX"), 16)
_MOUNTS = "/proc/self/mountinfo"


class Files:
    """
    The operating system's files.  Stateless; called from any thread.

    Fault points are the instants at which a crash matters, by the same names in every spool:
    `content.written` all of a message is with the spool, `group.written`, `group.synced`, `index.committed`, `segment.created`,
    `segment.entered` its directory entry is synced, `large.synced`, `large.renamed`, `quit.written`, `quit.synced`,
    `catalogue.synced`, `intent.synced`, `group.renamed`, `fence.synced`, `tail.cut`, `index.rebuilt`.
    """

    def fault_point(self, name: str) -> None:
        """The spool has come to this instant.  Nothing happens here; a test's subclass may end the process or raise."""

    # -- directories

    def make_directory(self, path: str) -> None:
        """One that exists is left as it is."""
        try:
            os.mkdir(path)
        except FileExistsError:
            return
        os.chmod(path, _DIRECTORY_MODE)  # mkdir's own mode is cut by the umask and never sets the group bit

    def names(self, directory: str) -> list[str]:
        """In no order."""
        return os.listdir(directory)

    def sync_directory(self, path: str) -> None:
        """Make the names in it durable."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def rename(self, old: str, new: str) -> None:
        os.rename(old, new)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def is_directory(self, path: str) -> bool:
        return os.path.isdir(path)

    def is_at(self, fd: int, path: str) -> bool:
        """Whether the open file is still the one that has this name."""
        try:
            return os.path.samestat(os.fstat(fd), os.stat(path))
        except FileNotFoundError:
            return False

    # -- files

    def create(self, path: str) -> int:
        """A new file, for reading and writing.  @raise FileExistsError: there is one."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE)
        os.fchmod(fd, _FILE_MODE)
        return fd

    def open(self, path: str, *, writable: bool = False) -> int:
        return os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)

    def open_lock(self, path: str) -> int:
        """The file to lock, made when it is not there."""
        try:
            return os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
            os.fchmod(fd, _FILE_MODE)
            return fd

    def close(self, fd: int) -> None:
        os.close(fd)

    def size(self, fd: int) -> int:
        return os.fstat(fd).st_size

    def write(self, fd: int, buffers: Sequence[bytes], offset: int) -> None:
        """
        All of them, one behind the other, from this offset.

        @raise OSError: also ENOSPC for a short write, which the system reports by a number; nothing is known of what was written.
        """
        for first in range(0, len(buffers), _IOV_MAX):
            part = buffers[first : first + _IOV_MAX]
            octets = sum(map(len, part))
            if os.pwritev(fd, part, offset) != octets:
                raise OSError(errno.ENOSPC, "short write")
            offset += octets

    def read(self, fd: int, count: int, offset: int) -> bytes:
        """So many octets, fewer only at the end of the file.  May wait for the disk."""
        octets = os.pread(fd, count, offset)
        while len(octets) < count:  # a single call gives at most 2 GiB, and a signal may cut it short
            more = os.pread(fd, count - len(octets), offset + len(octets))
            if not more:
                break
            octets += more
        return octets

    def read_at_once(self, fd: int, count: int, offset: int) -> bytes:
        """What of it is in the page cache, from its start: never waits for the disk.  Empty also where the system cannot tell."""
        if not _AT_ONCE:
            return b""
        buffer = bytearray(count)
        try:
            octets = os.preadv(fd, [buffer], offset, _AT_ONCE)
        except (
            OSError
        ):  # EAGAIN: not in memory; EOPNOTSUPP: not on this file system.  A true error comes again from `read`.
            return b""
        return bytes(buffer) if octets == count else bytes(memoryview(buffer)[:octets])

    def sync(self, fd: int) -> None:
        """Make the file's octets and its length durable.  After an error they may be lost, whatever a second call says."""
        os.fdatasync(fd)

    def truncate(self, fd: int, octets: int) -> None:
        os.ftruncate(fd, octets)

    def lock(self, fd: int, *, wait: bool = False) -> bool:
        """Take flock() exclusively; it lasts until the file is closed.  @return: false when somebody else has it."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True

    def map(self, fd: int, octets: int) -> mmap.mmap:
        """The start of a file as memory that all who map it share.  Never synced."""
        return mmap.mmap(fd, octets)

    # -- file systems

    def free_octets(self, path: str) -> int:
        """What an ordinary user may still write there."""
        of = os.statvfs(path)
        return of.f_bavail * of.f_frsize

    def file_system(self, path: str) -> str:
        """The type of the file system that holds a path, as the kernel names it (`ext4`, `nfs4`); empty where it cannot be told."""
        device = os.stat(path).st_dev
        wanted = f"{os.major(device)}:{os.minor(device)}"
        try:
            with open(_MOUNTS, encoding="utf-8", errors="replace") as mounts:
                for line in mounts:
                    before, _, after = line.partition(" - ")
                    if before.split()[2] == wanted:
                        return after.split()[0]
        except OSError:
            return ""
        return ""

    # -- what a Maildir needs beside

    def modified(self, path: str) -> int:
        """When a file, or the names in a directory, changed last: nanoseconds since 1970."""
        return os.stat(path).st_mtime_ns

    def remove_directory(self, path: str) -> None:
        """An empty one."""
        os.rmdir(path)

    def lock_shared(self, fd: int) -> None:
        """Wait until nobody has flock() exclusively, and keep it so until the file is closed."""
        fcntl.flock(fd, fcntl.LOCK_SH)
