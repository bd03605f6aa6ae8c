"""
Removing messages from a Maildir: all or none, whatever happens.

One message goes by one unlink.  For several an intent is made durable first, `mailhost.deleting` in the Maildir, in the form that
`staged` describes, with the bases that are to go: from then on they are gone, since whoever opens the maildrop finishes it before
anything else.  Bases, and not names, since other programs may move a message or change its flags meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator

from mailhost.spool.files import Files
from mailhost.spool.maildir.names import base_of
from mailhost.spool.maildir.staged import pack_intent, read_intent

_PARTS = ("new", "cur")


def remove(files: Files, path: str, names: Collection[str]) -> None:
    """
    Durably, in a thread of whoever holds the maildrop.

    @param names: below the Maildir, as they were seen last.
    @raise OSError: nothing was removed.
    """
    if len(names) == 1:
        _unlink(files, path, names)
        files.fault_point("quit.written")
        _sync_parts(files, path)
    else:
        _state(files, path, names)
        files.fault_point("quit.written")
        _unlink(files, path, names)
        _sync_parts(files, path)
        files.unlink(_intent(path))
    files.fault_point("quit.synced")


def finish(files: Files, path: str) -> None:
    """Remove what a session was removing when it was cut off.  @raise OSError: it cannot be, and the maildrop must not be shown."""
    intent = _intent(path)
    if not files.exists(intent):
        return
    found = read_intent(files, intent)
    if found:
        bases = set(found[0])
        _unlink(files, path, [name for name in present(files, path) if base_of(name[4:]) in bases])
        _sync_parts(files, path)
    files.unlink(intent)
    files.sync_directory(path)


def present(files: Files, path: str) -> Iterator[str]:
    """
    The names of all messages, below the Maildir: `new/<name>`, `cur/<name>`.

    new/ comes first, so that what is moved meanwhile is seen twice rather than not at all.
    """
    for part in _PARTS:
        for name in files.names(os.path.join(path, part)):
            if not name.startswith("."):
                yield f"{part}/{name}"


def _intent(path: str) -> str:
    return os.path.join(path, "mailhost.deleting")


def _state(files: Files, path: str, names: Collection[str]) -> None:
    intent = _intent(path)
    try:
        fd = files.create(intent)
        try:
            files.write(fd, [pack_intent([[base_of(name[4:]) for name in names]])], 0)
            files.sync(fd)
        finally:
            files.close(fd)
        files.sync_directory(path)
    except OSError:
        _withdraw(files, path)
        raise


def _withdraw(files: Files, path: str) -> None:
    """It may be durable although its sync failed; then it must not be acted upon later."""
    intent = _intent(path)
    if files.exists(intent):
        files.unlink(intent)
        files.sync_directory(path)


def _unlink(files: Files, path: str, names: Collection[str]) -> None:
    moved = set()
    for name in names:
        try:
            files.unlink(os.path.join(path, name))
        except FileNotFoundError:
            moved.add(base_of(name[4:]))
    if moved:
        for name in list(present(files, path)):
            if base_of(name[4:]) in moved:
                files.unlink(os.path.join(path, name))


def _sync_parts(files: Files, path: str) -> None:
    for part in _PARTS:
        files.sync_directory(os.path.join(path, part))
