"""
The names of maildrops, and which Maildir each has.

A maildrop's id is drawn when its Maildir is made, or first seen, and stands in `mailhost.lock`: who gets an old name gets a new id
with it.  It is written once the directories above are durable, so who finds an id need not sync them again.

Names are renamed and removed under flock() on `.mailhost/lock`, which deliveries share.  Its first octets count such changes; all
processes map them, so that what is remembered here is checked without a system call.
"""

from __future__ import annotations

import json
import mmap
import os
import secrets
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from mailhost.refusal import MaildropInUse, NoSuchMaildrop
from mailhost.spool.files import Files
from mailhost.spool.maildir.layout import Layout

_COUNT = struct.Struct("<Q")
_ID_OCTETS = 16


class Maildrop(NamedTuple):
    """A maildrop as it was found: its path is right until a name changes."""

    id: int
    path: str


def lock_path(path: str) -> str:
    return os.path.join(path, "mailhost.lock")


class Catalogue:
    """Called in threads, but where it says otherwise."""

    def __init__(self, files: Files, layout: Layout) -> None:
        self._files = files
        self._layout = layout
        self._map: mmap.mmap | None = None
        self._known: dict[str, Maildrop] = {}
        self._paths: dict[int, str] = {}
        self._seen = -1

    def open(self) -> None:
        fd = self._files.open_lock(self._layout.root.lock)
        try:
            if self._files.size(fd) < _COUNT.size:
                self._files.truncate(fd, _COUNT.size)
            self._map = self._files.map(fd, _COUNT.size)
        finally:
            self._files.close(fd)
        self._seen = -1

    def close(self) -> None:
        self._known.clear()
        self._paths.clear()
        if self._map is not None:
            self._map.close()
            self._map = None

    # -- in the reactor's thread

    @property
    def changes(self) -> int:
        """A count that moves whenever a name ceases to mean what it meant, in whatever process; -1 while the spool is stopped."""
        if self._map is None:
            return -1
        count: int = _COUNT.unpack_from(self._map)[0]
        return count

    def known(self, name: str) -> Maildrop | None:
        """The maildrop of this name, if that can be told at once."""
        changes = self.changes
        if changes != self._seen:
            self._known.clear()
            self._seen = changes
        return self._known.get(name)

    def remember(self, name: str, maildrop: Maildrop, changes: int) -> None:
        """@param changes: the count before it was looked up."""
        if changes == self.changes == self._seen:
            self._known[name] = maildrop
        self._paths[maildrop.id] = maildrop.path

    def forget(self, name: str) -> None:
        """Something is wrong with it: look again next time."""
        self._known.pop(name, None)

    def maildrop_lock(self, id: int) -> str:
        """For `Locks`: the file that an open session locks."""
        return lock_path(self._paths[id])

    # -- looking

    def find(self, name: str) -> Maildrop | None:
        """None also for a Maildir that another program made and we have not used yet, and for what is left of one."""
        path = self._layout.path(name)
        id = self.id_at(path)
        return Maildrop(id, path) if id is not None and self._files.exists(os.path.join(path, "new")) else None

    def exists(self, name: str) -> bool:
        return self._files.exists(os.path.join(self._layout.path(name), "cur"))

    def id_at(self, path: str) -> int | None:
        """Of the Maildir at a path, if it has one."""
        try:
            fd = self._files.open(lock_path(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            octets = self._files.read(fd, _ID_OCTETS, 0)
        finally:
            self._files.close(fd)
        try:
            return int(octets, 16) if len(octets) == _ID_OCTETS else None
        except ValueError:
            return None

    def is_still(self, name: str, maildrop: Maildrop) -> bool:
        """Whether the name means this maildrop.  Certain only while the lock is held."""
        return self._layout.path(name) == maildrop.path and self.id_at(maildrop.path) == maildrop.id

    # -- changing

    @contextmanager
    def shared(self) -> Iterator[None]:
        """No name changes meanwhile."""
        fd = self._files.open_lock(self._layout.root.lock)
        try:
            self._files.lock_shared(fd)
            yield
        finally:
            self._files.close(fd)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody delivers, and nobody else changes a name."""
        fd = self._files.open_lock(self._layout.root.lock)
        try:
            self._files.lock(fd, wait=True)
            yield
        finally:
            self._files.close(fd)

    def find_or_make(self, name: str) -> Maildrop:
        """The maildrop of this name, made durably if there is none."""
        with self._alone():
            return self.find(name) or self._make(name)

    def _make(self, name: str) -> Maildrop:
        files, path = self._files, self._layout.path(name)
        above = self._layout.parents(path)
        for directory in (*above[1:], path, *(os.path.join(path, part) for part in ("tmp", "new", "cur"))):
            files.make_directory(directory)
        if self._layout.names_needed(name):
            self._state_names(path, [name])
        for directory in (path, *reversed(above)):
            files.sync_directory(directory)
        id = secrets.randbits(63)
        self._state_id(path, id)
        files.fault_point("catalogue.synced")
        return Maildrop(id, path)

    def _state_id(self, path: str, id: int) -> None:
        """By a rename: what a crash leaves of a file that was not synced could be read as another maildrop's id."""
        files, new = self._files, lock_path(path) + ".new"
        if files.exists(new):
            files.unlink(new)
        fd = files.create(new)
        try:
            files.write(fd, [b"%016x" % id], 0)
            files.sync(fd)
        finally:
            files.close(fd)
        files.rename(new, lock_path(path))

    def _state_names(self, path: str, names: list[str]) -> None:
        """By a rename, so that there are always names to be read."""
        files, stated = self._files, os.path.join(path, "mailhost.name")
        new = stated + ".new"
        if files.exists(new):
            files.unlink(new)
        fd = files.create(new)
        try:
            files.write(fd, [json.dumps(names).encode()], 0)
            files.sync(fd)
        finally:
            files.close(fd)
        files.rename(new, stated)
        files.sync_directory(path)

    def rename(self, old: str, maildrop: Maildrop, new: str) -> None:
        """By whoever holds the maildrop.  @raise MaildropInUse: the new name is taken."""
        files, path = self._files, self._layout.path(new)
        with self._alone():
            if not self.is_still(old, maildrop):
                raise NoSuchMaildrop
            if files.exists(path):
                raise MaildropInUse(cause=f"there is a maildrop {new}")
            above = self._layout.parents(path)
            for directory in above[1:]:
                files.make_directory(directory)
            if self._layout.names_needed(new):
                self._state_names(maildrop.path, [old, new])
            self._move(maildrop, path, above)

    def remove(self, name: str, maildrop: Maildrop) -> str:
        """By whoever holds the maildrop.  @return: the directory that is left to be taken apart."""
        removed = os.path.join(self._layout.root.removed, f"{maildrop.id:016x}-{secrets.token_hex(4)}")
        with self._alone():
            if not self.is_still(name, maildrop):
                raise NoSuchMaildrop
            self._move(maildrop, removed, [self._layout.root.removed])
        return removed

    def _move(self, maildrop: Maildrop, path: str, above: list[str]) -> None:
        """The new entry is made durable before the old one is, in that order: a crash must not lose both."""
        assert self._map is not None
        _COUNT.pack_into(self._map, 0, self.changes + 1)
        self._files.rename(maildrop.path, path)
        for directory in (*reversed(above), os.path.dirname(maildrop.path)):
            self._files.sync_directory(directory)
        self._files.fault_point("catalogue.synced")
        self._paths[maildrop.id] = path
