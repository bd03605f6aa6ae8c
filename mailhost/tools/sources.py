"""
Mail of other programs, as an import sees it: one value per message, its content read when it is wanted.

Unique ids are found, or derived from what never changes about a message, so that a second import of the same mail knows it again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

from mailhost.envelope import NULL_REVERSE_PATH, Path
from mailhost.spool.maildir import names
from mailhost.spool.maildir.uidlist import read_uidlist
from mailhost.tools.main import Failed

BLOCK_OCTETS = 256 * 1024


class Incoming(NamedTuple):
    """A message to be imported."""

    unique_id: str
    time: int
    """When it was delivered, microseconds since 1970."""
    octets: int
    """About: for a progress bar."""
    blocks: Callable[[], Iterator[bytes]]
    """Its content, plain form, with LF or CRLF line ends."""
    flags: str = ""
    """Letters as in a Maildir's names."""
    reverse_path: Path = NULL_REVERSE_PATH


def is_maildir(path: str) -> bool:
    return all(os.path.isdir(os.path.join(path, name)) for name in ("new", "cur"))


def read_maildir(path: str) -> list[Incoming]:
    """
    All messages, oldest first.  Where Dovecot has left a `dovecot-uidlist`, unique ids are the UIDLs that its clients know.

    @raise Failed: it cannot be read.
    """
    try:
        uidls = _uidls(os.path.join(path, "dovecot-uidlist"))
        found = {}
        for folder in ("new", "cur"):
            for entry in os.scandir(os.path.join(path, folder)):
                if entry.is_file() and not entry.name.startswith("."):
                    found[names.base_of(entry.name)] = _of_file(entry, uidls)
    except OSError as error:
        raise Failed(f"{error.filename}: {error.strerror}") from None
    return sorted(found.values(), key=lambda message: (message.time, message.unique_id))


def folders_of(path: str) -> list[str]:
    """Maildir++ folders below a Maildir: mailboxes of their own, of which POP3 knows nothing."""
    return sorted(entry.name for entry in os.scandir(path) if entry.name.startswith(".") and is_maildir(entry.path))


def _uidls(path: str) -> dict[str, str]:
    try:
        with open(path, "rb") as file:
            return read_uidlist(file.read())
    except FileNotFoundError:
        return {}


def _of_file(entry: os.DirEntry[str], uidls: dict[str, str]) -> Incoming:
    base, _, info = entry.name.partition(":")
    status = entry.stat()
    unique_id = uidls.get(base) or names.our_unique_id(base) or names.foreign_unique_id(base)
    # Dovecot keeps a message's date as the file's; a copy that lost it still has the time of delivery in its name.
    times = [status.st_mtime_ns // 1000, names.time_of(base)]
    path = entry.path
    return Incoming(
        unique_id,
        min(time for time in times if time > 0),
        status.st_size,
        lambda: _blocks(path),
        info.removeprefix("2,") if info.startswith("2,") else "",
    )


def _blocks(path: str) -> Iterator[bytes]:
    """Of a file that may have got another name meanwhile: other programs move messages and change their flags."""
    with open(_where(path), "rb") as file:
        while block := file.read(BLOCK_OCTETS):
            yield block


def _where(path: str) -> str:
    if os.path.exists(path):
        return path
    base = names.base_of(os.path.basename(path))
    maildir = os.path.dirname(os.path.dirname(path))
    for folder in ("cur", "new"):
        for name in os.listdir(os.path.join(maildir, folder)):
            if names.base_of(name) == base:
                return os.path.join(maildir, folder, name)
    return path
