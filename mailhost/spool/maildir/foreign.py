"""
What is known of messages that other programs delivered: `mailhost.index` in their Maildir.

    mailhost maildir index 1\\n
    <octets of the plain form> <unique-id> <base>\\n      for each message

A Maildir's file is never changed once it is in new/, so its size is found out once.  A unique-id stays what it was when it was first
shown, also when Dovecot gives the message a UID later.  Lines are appended and synced; a torn one at the end says nothing.  Who holds the
maildrop reads and writes this; when it is lost it is made anew.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from mailhost.spool.files import Files
from mailhost.spool.log.writer import is_full
from mailhost.spool.maildir import names
from mailhost.spool.maildir.contents import octets_of
from mailhost.spool.maildir.uidlist import read_uidlist

_HEADER = b"mailhost maildir index 1\n"
# Lines of messages that are gone are thrown away when there are more of them than this, and than of those that are there.
_DEAD_LINES = 1000


class Facts(NamedTuple):
    octets: int
    unique_id: str


class ForeignMessages:
    """Of one Maildir, in a thread of whoever holds it."""

    def __init__(self, files: Files, path: str) -> None:
        self._files = files
        self._path = path
        self._index = os.path.join(path, "mailhost.index")
        self._end = 0  # of what is whole in it
        self._known = self._read()

    def facts(self, wanted: Mapping[str, str], others: Collection[str]) -> Mapping[str, Facts]:
        """
        @param wanted: bases, and names below the Maildir.
        @param others: bases of which nothing is asked now, and nothing is to be forgotten.
        @return: by base; what is gone already is not in it.
        """
        new = [(base, name) for base, name in wanted.items() if base not in self._known]
        try:
            if new:
                self._append(self._found_out(new))
            if len(self._known) > 2 * (len(wanted) + len(others)) + _DEAD_LINES:
                self._keep({*wanted, *others})
        except (
            OSError
        ) as error:  # nobody needs room on the disk to collect mail from it; it is found out again next time
            if not is_full(error):
                raise
        return self._known

    def _found_out(self, messages: Iterable[tuple[str, str]]) -> Mapping[str, Facts]:
        dovecots = self._dovecots()
        found = {}
        for base, name in messages:
            sizes = names.sizes_of(base)
            try:
                octets = octets_of(self._files, os.path.join(self._path, name), sizes.with_crlf)
            except FileNotFoundError:
                continue
            unique_id = names.our_unique_id(base) or dovecots.get(base) or names.foreign_unique_id(base)
            found[base] = Facts(octets, unique_id)
        self._known.update(found)
        return found

    def _dovecots(self) -> dict[str, str]:
        path = os.path.join(self._path, "dovecot-uidlist")
        return read_uidlist(self._all_of(path)) if self._files.exists(path) else {}

    def _all_of(self, path: str) -> bytes:
        fd = self._files.open(path)
        try:
            return self._files.read(fd, self._files.size(fd), 0)
        finally:
            self._files.close(fd)

    # -- the file

    def _read(self) -> dict[str, Facts]:
        if not self._files.exists(self._index):
            return {}
        octets = self._all_of(self._index)
        if not octets.startswith(_HEADER):
            return {}
        self._end = octets.rfind(b"\n") + 1
        known = {}
        for line in octets[len(_HEADER) : self._end].decode("utf-8", "surrogateescape").split("\n"):
            parts = line.split(" ", 2)
            if len(parts) == 3 and parts[0].isdecimal():
                known[parts[2]] = Facts(int(parts[0]), parts[1])
        return known

    def _append(self, found: Mapping[str, Facts]) -> None:
        if self._end == 0:
            self._rewrite()
            return
        fd = self._files.open(self._index, writable=True)
        try:
            lines = _lines(found)
            self._files.write(fd, [lines], self._end)
            self._end += len(lines)
            self._files.truncate(fd, self._end)
            self._files.sync(fd)
        finally:
            self._files.close(fd)

    def _keep(self, bases: set[str]) -> None:
        self._known = {base: facts for base, facts in self._known.items() if base in bases}
        self._rewrite()

    def _rewrite(self) -> None:
        new = self._index + ".new"
        if self._files.exists(new):
            self._files.unlink(new)
        octets = _HEADER + _lines(self._known)
        fd = self._files.create(new)
        try:
            self._files.write(fd, [octets], 0)
            self._files.sync(fd)
        finally:
            self._files.close(fd)
        self._files.rename(new, self._index)
        self._files.sync_directory(self._path)
        self._end = len(octets)


def _lines(facts: Mapping[str, Facts]) -> bytes:
    lines = (f"{octets} {unique_id} {base}\n" for base, (octets, unique_id) in facts.items() if "\n" not in base)
    return "".join(lines).encode("utf-8", "surrogateescape")
