"""
Messages on their way in, in `.mailhost/staging/`, and what a crash left of them.

    <writer>.lock       flock()ed by its process for life
    <writer>.<n>        one maildrop's copy of a message, to be renamed into its new/
    <writer>.intent     what is being done for messages with several copies: all of it, or nothing

They stand here, and not in each Maildir's tmp/, since here one directory sync makes all of them durable, and recovery finds them
without a look into every maildrop.  Both are the same file system, or no rename could do.

An intent is a line of JSON behind its own checksum:

    mailhost intent 1 <crc32, 8 hexadecimal digits> [["<writer>.<n>", "example.test/ann/new/<name>"], ...]\\n

It is written once the copies and their names in staging/ are durable, so whoever finds it whole can finish.  One that is torn or empty
was never acted upon, or is settled.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Sequence
from zlib import crc32

from mailhost.events import Notice, Observer
from mailhost.spool.files import Files
from mailhost.spool.maildir.layout import Layout

_MAGIC = b"mailhost intent 1 "
_LOCK = ".lock"
_INTENT = ".intent"

Renames = Sequence[tuple[str, str]]
"""From a name in staging/ to a path below the root."""


def pack_intent(content: object) -> bytes:
    return _framed(json.dumps(content, separators=(",", ":")).encode())


def _framed(text: bytes) -> bytes:
    return b"%s%08x %s\n" % (_MAGIC, crc32(text), text)


def read_intent(files: Files, path: str) -> list[list[str]] | None:
    """What it says; None for one that is torn."""
    fd = files.open(path)
    try:
        octets = files.read(fd, files.size(fd), 0)
    finally:
        files.close(fd)
    text = octets[len(_MAGIC) + 9 : -1]
    if _framed(text) != octets:
        return None
    content: list[list[str]] = json.loads(text)
    return content


class Staged:
    """This process's files in staging/.  Called in threads; `path` in any."""

    def __init__(self, files: Files, layout: Layout, writer: str) -> None:
        self._files = files
        self._root = layout.root
        self._writer = writer
        self._fd = -1
        self._numbers = itertools.count(1)  # several threads take from it

    def open(self) -> None:
        """By whoever holds `Layout.lock_start`."""
        self._fd = self._files.open_lock(self._own(_LOCK))
        self._files.lock(self._fd)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        try:
            remove_leftovers(self._files, self._root.staging, self._writer)
        finally:
            self._files.close(fd)

    def path(self) -> str:
        """For one more copy."""
        return self._own(f".{next(self._numbers)}")

    def _own(self, end: str) -> str:
        return os.path.join(self._root.staging, self._writer + end)

    def state(self, renames: Renames) -> None:
        """
        Make durable that the copies are in staging/, and then what will be done with them.

        @param renames: by whole paths.
        """
        files, intent = self._files, self._own(_INTENT)
        relative = [(os.path.basename(old), os.path.relpath(new, self._root.path)) for old, new in renames]
        fd = files.open(intent, writable=True) if files.exists(intent) else files.create(intent)
        try:
            files.sync_directory(self._root.staging)
            files.write(fd, [pack_intent(relative)], 0)
            files.sync(fd)
        finally:
            files.close(fd)
        files.fault_point("intent.synced")

    def settle(self) -> None:
        """What was stated is done, and durable in its places; it must not be done again, so that it left staging/ is made durable."""
        self._files.sync_directory(self._root.staging)
        self._empty(durably=False)

    def withdraw(self) -> None:
        """What was stated must not be done, or no more of it, whatever happens from now on."""
        if self._files.exists(self._own(_INTENT)):
            self._empty(durably=True)

    def _empty(self, *, durably: bool) -> None:
        fd = self._files.open(self._own(_INTENT), writable=True)
        try:
            self._files.truncate(fd, 0)
            if durably:
                self._files.sync(fd)
        finally:
            self._files.close(fd)


def recover(files: Files, layout: Layout, tell: Observer) -> None:
    """Finish or forget what processes left that are no more.  By whoever holds `Layout.lock_start`."""
    staging = layout.root.staging
    names = files.names(staging)
    writers = {name.partition(".")[0] for name in names}
    for writer in sorted(writers):
        fd = files.open_lock(os.path.join(staging, writer + _LOCK))
        try:
            if files.lock(fd):
                _finish(files, layout, writer, tell)
                remove_leftovers(files, staging, writer)
        finally:
            files.close(fd)


def _finish(files: Files, layout: Layout, writer: str, tell: Observer) -> None:
    intent = os.path.join(layout.root.staging, writer + _INTENT)
    if not files.exists(intent):
        return
    renames = read_intent(files, intent)
    if not renames:
        return
    directories = set()
    for old, new in renames:
        staged, path = os.path.join(layout.root.staging, old), os.path.join(layout.root.path, new)
        directory = os.path.dirname(path)
        if files.exists(staged) and files.exists(directory):
            if files.exists(path):  # a rename of which only one half was durable
                files.unlink(staged)
            else:
                files.rename(staged, path)
            directories.add(directory)
    for directory in sorted(directories):
        files.sync_directory(directory)
    files.sync_directory(layout.root.staging)
    if directories:
        tell(Notice(f"finished putting messages into {len(directories)} maildrops, which a crash had interrupted"))


def remove_leftovers(files: Files, staging: str, writer: str) -> None:
    """Copies first, then the intent that may name them, then the lock."""
    left = [name for name in files.names(staging) if name.partition(".")[0] == writer]
    ends = {writer + _INTENT: 1, writer + _LOCK: 2}
    for name in sorted(left, key=lambda name: ends.get(name, 0)):
        files.unlink(os.path.join(staging, name))
