"""
A maildrop visited on terms: LOGIN-DELAY (RFC 2449 6.5), and what EXPIRE (6.7) has to know of it.

What one visit must tell the next stands in the maildrop's notes, as JSON: when the last login was, and where messages expire from
their first retrieval, when that was.  Times are microseconds since 1970.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from mailhost.interfaces import IContent, IMaildrop, IVisit, Listing
from mailhost.limits import Terms
from mailhost.refusal import LoginTooSoon, Refusal

_SECOND = 1_000_000


class Notes:
    """What visits leave to each other."""

    def __init__(self, last_login: int = 0, retrieved: dict[str, int] | None = None) -> None:
        self.last_login = last_login
        self.retrieved = {} if retrieved is None else retrieved
        """By unique-id."""

    @classmethod
    def parse(cls, octets: bytes) -> Notes:
        """Octets that are no notes are taken for none: they only delay and date."""
        try:
            found: dict[str, Any] = json.loads(octets)
            return cls(int(found["login"]), dict(found["retrieved"]))
        except (ValueError, KeyError, TypeError):
            return cls()

    def __bytes__(self) -> bytes:
        return json.dumps({"login": self.last_login, "retrieved": self.retrieved}, separators=(",", ":")).encode()


async def begin(maildrop: IMaildrop, terms: Terms, *, from_retrieval: bool, now: int) -> IMaildrop:
    """
    Count a login on an open maildrop, and give the maildrop as the login may use it.

    @param from_retrieval: messages expire so long after their first retrieval, not after their arrival.
    @param now: microseconds since 1970.
    @raise LoginTooSoon: the maildrop is still open.
    """
    if terms == Terms():
        return maildrop
    notes = Notes()
    dating = from_retrieval and terms.expire_days is not None
    if terms.login_delay_seconds or dating:
        notes = Notes.parse(await maildrop.notes())
    if terms.login_delay_seconds:
        # A clock that was set back must not lock anybody out.
        if 0 <= now - notes.last_login < terms.login_delay_seconds * _SECOND:
            raise LoginTooSoon
        notes.last_login = now
        await _keep(maildrop, notes)
    return Visit(maildrop, terms, notes if dating else None, now)


async def _keep(maildrop: IMaildrop, notes: Notes) -> None:
    try:
        await maildrop.keep_notes(bytes(notes))
    except Refusal:
        pass  # on a full disk above all, people must be able to empty their maildrops


@implementer(IVisit)
class Visit:
    """Another maildrop, and the terms it is visited on."""

    def __init__(self, maildrop: IMaildrop, terms: Terms, notes: Notes | None, now: int) -> None:
        """@param notes: to date first retrievals in; None where nobody asks for them."""
        self._maildrop = maildrop
        self._notes = notes
        self._now = now
        self._dated = False
        self._released = False
        self.terms = terms
        self.totals = maildrop.totals

    def listing(self) -> Awaitable[Listing]:
        return self._maildrop.listing()

    def content(self, number: int) -> Awaitable[IContent]:
        return self._maildrop.content(number)

    def times(self) -> Awaitable[Sequence[int]]:
        return self._maildrop.times()

    def notes(self) -> Awaitable[bytes]:
        return self._maildrop.notes()

    def keep_notes(self, notes: bytes) -> Awaitable[None]:
        return self._maildrop.keep_notes(notes)

    def update(self, deleted: Collection[int]) -> Awaitable[None]:
        return self._maildrop.update(deleted)

    def when_wanted(self, ask: Callable[[], None]) -> None:
        self._maildrop.when_wanted(ask)

    def retrieved(self, unique_id: str) -> None:
        if self._notes is not None and unique_id not in self._notes.retrieved:
            self._notes.retrieved[unique_id] = self._now
            self._dated = True

    def release(self) -> None:
        if self._released:
            return
        self._released = True
        if self._notes is None or not self._dated:
            self._maildrop.release()
            return
        keeping = Deferred.fromCoroutine(_keep(self._maildrop, self._notes))
        keeping.addBoth(lambda _: self._maildrop.release())
