"""
Where things are in a spool's directory, and whether we may use it at all.

    VERSION         "mailhost log spool 1"
    segments/       <id>.seg
    staging/        <id>: large messages on their way in
    index.sqlite3   derived; may be deleted with -wal and -shm while no host runs
    locks/          one file per maildrop id, `catalogue` for whoever changes names, `compaction`; never unlinked
                    `requests` is memory that all processes share, see `requests`
    reserve         holds room for a full disk, see `room`
    retention       what the clocks said last, see `retention`
    quarantine/     what was cut off or fenced, for a person to look at
"""

from __future__ import annotations

import os
import re

from mailhost.refusal import SpoolUnavailable
from mailhost.spool.files import Files

_VERSION = b"mailhost log spool 1\n"
_SEGMENT = re.compile(r"[0-9a-f]{16}\.seg").fullmatch
# What makes a directory no less empty.
_HARMLESS = re.compile(r"lost\+found|\..*|VERSION\.new").fullmatch

# flock() and mmap() over a network hold between the processes of one machine at best, and a sync may only reach another's memory.
_NETWORK = frozenset(
    (
        *(
            "nfs",
            "nfs4",
            "cifs",
            "smb3",
            "smbfs",
            "9p",
            "virtiofs",
            "afs",
            "ceph",
            "lustre",
            "glusterfs",
            "gpfs",
            "ocfs2",
            "gfs2",
        ),
        *("fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.s3fs", "fuse.davfs2", "fuse.rclone", "fuse.gcsfuse"),
    )
)


class Layout:
    """The paths of one spool."""

    def __init__(self, files: Files, root: str) -> None:
        self._files = files
        self.root = os.path.abspath(root)
        self.segments = os.path.join(self.root, "segments")
        self.staging = os.path.join(self.root, "staging")
        self.locks = os.path.join(self.root, "locks")
        self.quarantine = os.path.join(self.root, "quarantine")
        self.index = os.path.join(self.root, "index.sqlite3")
        self.reserve = os.path.join(self.root, "reserve")
        self.retention = os.path.join(self.root, "retention")
        self._version = os.path.join(self.root, "VERSION")

    def lock_start(self) -> int:
        """Wait until nobody else is starting on this directory, which is made if need be.  Closing the descriptor ends it."""
        if why := self._no_place():
            raise unusable(why)
        self._files.make_directory(self.root)
        fd = self._files.open(self.root)
        self._files.lock(fd, wait=True)
        return fd

    def try_lock_start(self) -> int | None:
        """The same without waiting.  @return: None while somebody else is starting."""
        fd = self._files.open(self.root)
        if self._files.lock(fd):
            return fd
        self._files.close(fd)
        return None

    def prepare(self) -> None:
        """
        Make what is missing, durably.  Called by whoever holds `lock_start`.

        @raise SpoolUnavailable: this directory cannot hold a spool of ours; its cause is one line for the operator.
        """
        files = self._files
        kind = files.file_system(self.root)
        if kind in _NETWORK:
            raise unusable(
                f"{self.root} is on a network file system ({kind}), which keeps no promise about locks and syncs"
            )
        if not files.exists(self._version):
            files.sync_directory(os.path.dirname(self.root))  # the spool's own name
        self._check_version()
        files.sync_directory(self.root)  # before anything else is in it: without VERSION it would be taken for no spool
        for directory in (self.segments, self.staging, self.locks, self.quarantine):
            files.make_directory(directory)
        files.sync_directory(self.root)

    def obstacle(self) -> str | None:
        """What ends a start here, as one line for the operator; None when nothing does that can be seen.  Nothing is changed."""
        if why := self._no_place():
            return why
        return self._foreign() if self._files.exists(self.root) else None

    def _no_place(self) -> str | None:
        files, parent = self._files, os.path.dirname(self.root)
        if "\0" in self.root:
            return f"{self.root!r} is no path: it has a NUL in it"
        if not files.exists(self.root):
            return (
                None if files.is_directory(parent) else f"{self.root} cannot be made: make the directory {parent} first"
            )
        return None if files.is_directory(self.root) else f"{self.root} is no directory: move it away, or name another"

    def _foreign(self) -> str | None:
        """Why this directory is none of ours, if so."""
        found = self._version_found()
        if found:
            return (
                None if found == _VERSION else f"{self._version} says {found!r}: this program knows {_VERSION!r} only"
            )
        others = [name for name in self._files.names(self.root) if not _HARMLESS(name)]
        if found is None and others:
            return f"{self.root} is no spool: it has no VERSION, but {min(others)!r}; name an empty directory, or a new one"
        return None

    def _version_found(self) -> bytes | None:
        """Empty where a crash left it so; None when there is none."""
        if not self._files.exists(self._version):
            return None
        fd = self._files.open(self._version)
        try:
            return self._files.read(fd, 100, 0)
        finally:
            self._files.close(fd)

    def _check_version(self) -> None:
        if why := self._foreign():
            raise unusable(why)
        if not self._version_found():
            self.write_version()

    def write_version(self) -> None:
        """
        What makes this directory a spool.

        By a rename, since a crash must not leave half a VERSION that the next start would refuse.
        """
        files, new = self._files, self._version + ".new"
        if files.exists(new):
            files.unlink(new)
        fd = files.create(new)
        try:
            files.write(fd, [_VERSION], 0)
            files.sync(fd)
        finally:
            files.close(fd)
        files.rename(new, self._version)

    def segment(self, id: int) -> str:
        return os.path.join(self.segments, f"{id:016x}.seg")

    def segment_ids(self) -> list[int]:
        """Of all segments there are; other files are left alone."""
        return [int(name[:16], 16) for name in self._files.names(self.segments) if _SEGMENT(name)]

    def strangers(self) -> list[str]:
        """Paths of what is where segments are, and is none."""
        return [os.path.join(self.segments, name) for name in self._files.names(self.segments) if not _SEGMENT(name)]

    def staged(self, id: int) -> str:
        return os.path.join(self.staging, f"{id:016x}")

    def maildrop_lock(self, id: int) -> str:
        return os.path.join(self.locks, f"{id:016x}")

    @property
    def catalogue_lock(self) -> str:
        return os.path.join(self.locks, "catalogue")

    @property
    def compaction_lock(self) -> str:
        """Whoever has it may take segments away, and whoever needs them all to stay takes it too."""
        return os.path.join(self.locks, "compaction")

    @property
    def requests(self) -> str:
        return os.path.join(self.locks, "requests")

    def quarantined(self, id: int, start: int, why: str) -> str:
        return os.path.join(self.quarantine, f"{id:016x}-{start}.{why}")


def unusable(why: str) -> SpoolUnavailable:
    return SpoolUnavailable(cause=why)
