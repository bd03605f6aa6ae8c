"""
Removing messages from a Maildir: all or none, whatever happens.

One message goes by one rename, to `mailhost.removed`, from where it can be put back as long as that is not durable.  For several an
intent is made durable first, `mailhost.deleting`, in the form that `staged` describes, with the bases that are to go: from then on they
are gone, since whoever opens the maildrop finishes it before anything else.  Bases, and not names, since other programs may move a
message or change its flags meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Collection

from mailhost.events import Observer, Trouble
from mailhost.spool.files import Files
from mailhost.spool.maildir.names import base_of
from mailhost.spool.maildir.staged import pack_intent, read_intent

_PARTS = ("new", "cur")


def remove(files: Files, path: str, names: Collection[str], tell: Observer) -> None:
    """
    Durably, in a thread of whoever holds the maildrop.

    @param names: below the Maildir, as they were seen last.
    @param tell: takes events in any thread.
    @raise OSError: nothing was removed.
    """
    if len(names) == 1:
        for name in names:
            _remove_one(files, path, name)
    else:
        _remove_several(files, path, names, tell)
    files.fault_point("quit.synced")


def _remove_one(files: Files, path: str, name: str) -> None:
    there, removed = _there(files, path, name), os.path.join(path, "mailhost.removed")
    if there is None:
        return
    files.rename(there, removed)
    files.fault_point("quit.written")
    try:
        files.sync_directory(os.path.dirname(there))
    except OSError:
        files.rename(removed, there)
        files.sync_directory(os.path.dirname(there))  # the name may have been taken out durably
        raise
    try:
        files.unlink(removed)
    except OSError:  # it is not in the maildrop any more; the next to be removed takes its place
        pass


def _there(files: Files, path: str, name: str) -> str | None:
    """Where a message is by now, None if another program has removed it."""
    if files.exists(os.path.join(path, name)):
        return os.path.join(path, name)
    base = base_of(name[4:])
    found = next((name for name in present(files, path) if base_of(name[4:]) == base), None)
    return None if found is None else os.path.join(path, found)


def _remove_several(files: Files, path: str, names: Collection[str], tell: Observer) -> None:
    _state(files, path, names)
    files.fault_point("quit.written")
    try:
        _unlink(files, path, names)
        _sync_parts(files, path)
        files.unlink(_intent(path))
    except OSError as error:
        tell(
            Trouble(
                f"what was deleted from {path} is gone for its owner, but its files could not be removed yet", error
            )
        )


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


def present(files: Files, path: str) -> list[str]:
    """
    The names of all messages, below the Maildir: `new/<name>`, `cur/<name>`.

    new/ comes first, so that what is moved meanwhile is seen twice rather than not at all.
    """
    new, cur = (files.names(os.path.join(path, part)) for part in _PARTS)
    return [*(f"new/{name}" for name in new if name[0] != "."), *(f"cur/{name}" for name in cur if name[0] != ".")]


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
        for name in present(files, path):
            if base_of(name[4:]) in moved:
                files.unlink(os.path.join(path, name))


def _sync_parts(files: Files, path: str) -> None:
    for part in _PARTS:
        files.sync_directory(os.path.join(path, part))
