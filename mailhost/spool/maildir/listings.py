"""
Listings, read from the names in new/ and cur/.

One that was read is kept, and serves again while neither directory has changed.  A file system's clock is coarse: of a directory that
changed in the last two seconds before it was read, a change right after it may bear the same time; such a reading is not trusted.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from mailhost.envelope import Totals
from mailhost.interfaces import Listing
from mailhost.spool.files import Files
from mailhost.spool.maildir import names
from mailhost.spool.maildir.catalogue import Maildrop
from mailhost.spool.maildir.deletions import finish, present
from mailhost.spool.maildir.foreign import ForeignMessages
from mailhost.spool.maildir.leftovers import remove_leftovers_in_tmp

# The coarsest that any file system's times are: FAT's.
_COARSEST_NANOSECONDS = 2_000_000_000
_READINGS = 5

Stamp = tuple[int, int]
"""When new/ and cur/ changed last, in nanoseconds."""


class Message(NamedTuple):
    """As it is listed: these sort by the time in the name, then by the name."""

    time: int
    base: str
    name: str
    """Below the Maildir: `new/...` or `cur/...`."""
    octets: int
    unique_id: str


class MaildirListing(Listing):
    """A listing that knows its files."""

    __slots__ = ("id", "messages", "stamp", "totals", "trusted")

    def __init__(self, id: int, messages: Sequence[Message], stamp: Stamp, *, trusted: bool) -> None:
        octets = [message.octets for message in messages]
        super().__init__(octets, [message.unique_id for message in messages])
        self.id = id
        self.messages = messages
        self.stamp = stamp
        self.trusted = trusted
        self.totals = Totals(len(messages), sum(octets))

    def by_name(self) -> dict[str, Message]:
        return {message.name: message for message in self.messages}


class Listings:
    """What is kept is bounded by messages in all; the listing used last is always kept."""

    def __init__(self, files: Files, now: Callable[[], int] = time.time_ns, kept_messages: int = 300_000) -> None:
        """@param now: nanoseconds since 1970, by the clock that the file system uses."""
        self._files = files
        self._now = now
        self._kept_messages = kept_messages
        self._kept: OrderedDict[int, MaildirListing] = OrderedDict()
        self._messages = 0

    # -- in the reactor's thread

    def keep(self, listing: MaildirListing) -> None:
        self._forget(listing.id)
        self._kept[listing.id] = listing
        self._messages += len(listing.messages)
        while self._messages > self._kept_messages and len(self._kept) > 1:
            self._forget(next(iter(self._kept)))

    def _forget(self, id: int) -> None:
        listing = self._kept.pop(id, None)
        if listing is not None:
            self._messages -= len(listing.messages)

    def clear(self) -> None:
        self._kept.clear()
        self._messages = 0

    # -- in a thread

    def totals(self, path: str, id: int | None) -> Totals:
        """
        What a Maildir that anybody may hold has now: by what names say, as far as they do.

        @raise FileNotFoundError: there is none.
        """
        kept = None if id is None else self._kept.get(id)
        if kept is not None and kept.trusted and kept.stamp == self._stamp(path)[0]:
            return kept.totals
        found = _by_base(present(self._files, path))
        known = {message.base: message.octets for message in kept.messages} if kept is not None else {}
        octets = 0
        for base, name in found.items():
            if base in known:
                octets += known[base]
            else:
                sizes = names.sizes_of(base)
                octets += sizes.with_crlf or sizes.octets or self._octets_in(os.path.join(path, name))
        return Totals(len(found), octets)

    def _octets_in(self, path: str) -> int:
        try:
            fd = self._files.open(path)
        except FileNotFoundError:
            return 0
        try:
            return self._files.size(fd)
        finally:
            self._files.close(fd)

    # -- in a thread, by whoever holds the maildrop

    def read(self, maildrop: Maildrop) -> MaildirListing:
        finish(self._files, maildrop.path)
        kept = self._kept.get(maildrop.id)
        stamp, trusted = self._stamp(maildrop.path)
        if kept is not None and kept.trusted and kept.stamp == stamp:
            return kept
        remove_leftovers_in_tmp(self._files, maildrop.path, self._now())
        for _ in range(_READINGS):
            found = present(self._files, maildrop.path)
            after, still = self._stamp(maildrop.path)
            if after == stamp:
                break
            stamp, trusted = after, still  # a name that changed while it was read may not have been seen at all
        else:
            trusted = False
        messages = self._messages_of(maildrop.path, found, kept)
        return MaildirListing(maildrop.id, messages, stamp, trusted=trusted)

    def _stamp(self, path: str) -> tuple[Stamp, bool]:
        """@return: the stamp, and whether a change from now on would change it."""
        now = self._now()
        new, cur = (self._files.modified(os.path.join(path, part)) for part in ("new", "cur"))
        return (new, cur), now - max(new, cur) > _COARSEST_NANOSECONDS

    def _messages_of(self, path: str, found: Sequence[str], kept: MaildirListing | None) -> list[Message]:
        """What is known by its name is taken as it is; the rest is looked at, which is little when little has changed."""
        known = kept.by_name() if kept is not None else {}
        new = _by_base(name for name in found if name not in known)
        messages = [known[name] for name in found if name in known]
        if new:
            messages = [message for message in messages if message.base not in new]
            messages += self._new_messages(path, new, known.values(), messages)
        messages.sort()
        return _told_apart(messages)

    def _new_messages(
        self, path: str, new: Mapping[str, str], before: Iterable[Message], others: Iterable[Message]
    ) -> list[Message]:
        """
        @param new: bases, and names that were not seen before.
        @param before: what was listed; some of it may have another name now.
        @param others: what is listed now beside these.
        """
        moved = {message.base: message for message in before if message.base in new}
        messages, foreign = [], {}
        for base, name in new.items():
            message = moved.get(base) or _ours(base, name)
            if message is None:
                foreign[base] = name
            else:
                messages.append(message._replace(name=name))
        if foreign:
            bases = [message.base for message in (*others, *messages) if names.our_octets(message.base) is None]
            messages += self._foreign(path, foreign, bases)
        return messages

    def _foreign(self, path: str, found: Mapping[str, str], others: Sequence[str]) -> list[Message]:
        """
        @param found: bases and names of those of which nothing is known here.
        @param others: bases of the other programs' messages that are listed already.
        """
        facts = ForeignMessages(self._files, path).facts(found, others)
        return [Message(names.time_of(base), base, name, *facts[base]) for base, name in found.items() if base in facts]


def _by_base(found: Iterable[str]) -> dict[str, str]:
    """Each message once: one that was moved while the directories were read is in cur/ by now."""
    return {names.base_of(name[4:]): name for name in found}


def _ours(base: str, name: str) -> Message | None:
    ours = names.ours(base)
    if ours is None or ours.octets is None:
        return None
    return Message(ours.time, base, name, ours.octets, ours.unique_id)


def _told_apart(messages: list[Message]) -> list[Message]:
    """Two messages never show one unique-id: somebody may have copied a file under another name."""
    if len({message.unique_id for message in messages}) == len(messages):
        return messages
    seen: set[str] = set()
    apart = []
    for message in messages:
        if message.unique_id in seen:
            message = message._replace(unique_id=names.hashed_unique_id(message.base))
        seen.add(message.unique_id)
        apart.append(message)
    return apart
