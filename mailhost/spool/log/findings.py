"""What can be found to be wrong with a spool."""

from __future__ import annotations

from typing import NamedTuple


class Damage(NamedTuple):
    """A stretch of a segment that cannot be read."""

    segment: str
    start: int
    stop: int
    quarantined: bool
    """A copy of it is in quarantine, and no maildrop misses what was in it: `repair` has been here."""


class Lost(NamedTuple):
    """A message that a maildrop should have, and no good record of it is left."""

    maildrop: str
    """Its name, or its id when it has none."""
    id: int
    unique_id: str
    time: int
    octets: int
    segment: str
    offset: int
    length: int
    """Of the record."""


class Forgotten(NamedTuple):
    """A deletion that only the index knows: without a record of it the message would come back with a new index."""

    maildrop: int
    unique_id: str
    time: int
    deleted: int


class Unstated(NamedTuple):
    """A maildrop's name, or its removal, that only the index knows."""

    maildrop: int
    name: str | None
    named: int
    removed: bool


class Report:
    """What was found.  The lists are empty in a spool that is as it should be."""

    def __init__(self) -> None:
        self.segments = self.octets = self.records = self.messages = 0
        self.waiting = 0
        """Good records that the index has not reached: of a host that ended without a stop.  The next start takes them over."""
        self.torn = 0
        """Octets of groups that a crash cut short; the next start cuts them off."""
        self.damaged: list[Damage] = []
        self.lost: list[Lost] = []
        self.forgotten: list[Forgotten] = []
        self.unstated: list[Unstated] = []
        self.disagreements: list[str] = []
        """Between index and segments, where the segments are good: a new index puts them right."""

    @property
    def needs_repair(self) -> bool:
        damaged = any(not damage.quarantined for damage in self.damaged)
        return damaged or bool(self.lost or self.forgotten or self.unstated)

    @property
    def is_good(self) -> bool:
        return not self.needs_repair and not self.disagreements
