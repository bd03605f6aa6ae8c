"""
What was asked of a spool and what it has said to it: the measure of what must be found after a crash.

A `Ledger` is written while a workload runs, each entry with the number of operations the disk had done by then.  `Ledger.at` says what
was promised when the power failed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from enum import Enum


class Said(Enum):
    """The answer to a request, so far."""

    NOTHING = "not answered"
    YES = "acknowledged"
    NO = "refused"


@dataclass
class Message:
    unique_id: str
    content: bytes
    """In wire form, without the fields of each maildrop."""
    octets: int
    """Of the plain form."""
    maildrops: dict[int, bytes]
    """Those it was staged for, and what fields each has before the content."""
    said: Said = Said.NOTHING


@dataclass
class Maildrop:
    """One maildrop, whatever its name is or was."""

    names: set[str | None]
    """Those it may have, one of them; None when it may be that there is no such maildrop."""
    deletions: list[Deletion] = field(default_factory=list)


@dataclass
class Deletion:
    unique_ids: frozenset[str]
    said: Said = Said.NOTHING


@dataclass
class Promises:
    messages: dict[str, Message] = field(default_factory=dict)
    """By unique id."""
    maildrops: dict[int, Maildrop] = field(default_factory=dict)
    """By a number that never changes."""

    def is_deleting(self, number: int, unique_id: str) -> bool:
        """Whether anybody has asked to delete this message there."""
        return any(unique_id in deletion.unique_ids for deletion in self.maildrops[number].deletions)


class Ledger:
    """Entries are functions that change promises, in the order in which they were made."""

    def __init__(self, position: Callable[[], int]) -> None:
        """@param position: how many operations the disk has done."""
        self._position = position
        self._entries: list[tuple[int, Callable[[Promises], None]]] = []
        self.now = Promises()

    def note(self, entry: Callable[[Promises], None]) -> None:
        self._entries.append((self._position(), entry))
        entry(self.now)

    def at(self, position: int) -> Promises:
        """What had been said when so many operations were done."""
        promises = Promises()
        for when, entry in self._entries:
            if when <= position:
                entry(promises)
        return promises

    def moments(self) -> set[int]:
        """Where promises changed."""
        return {when for when, _ in self._entries}

    # -- entries

    def staged(self, message: Message) -> None:
        self.note(lambda promises: promises.messages.update({message.unique_id: copy.deepcopy(message)}))

    def answered(self, unique_id: str, said: Said) -> None:
        def answer(promises: Promises) -> None:
            promises.messages[unique_id].said = said
            if said is Said.YES:  # its maildrops are there too
                for number in promises.messages[unique_id].maildrops:
                    promises.maildrops[number].names.discard(None)

        self.note(answer)

    def may_be_named(self, number: int, *names: str | None) -> None:
        def name(promises: Promises) -> None:
            promises.maildrops.setdefault(number, Maildrop(set())).names = set(names)

        self.note(name)

    def deleting(self, number: int, unique_ids: Collection[str]) -> None:
        self.note(lambda promises: promises.maildrops[number].deletions.append(Deletion(frozenset(unique_ids))))

    def deleted(self, number: int, said: Said) -> None:
        def answer(promises: Promises) -> None:
            promises.maildrops[number].deletions[-1].said = said

        self.note(answer)
