"""
`recent:` before a login name: the messages of the last 30 days only, for one more device on a maildrop that holds years.

The others are not there for such a session: not in STAT, LIST and UIDL, and its numbers leave them out.  Unique-ids are the same as
for everybody, and DELE means what it always does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence

from zope.interface import implementer

from mailhost.envelope import Totals
from mailhost.interfaces import IContent, IMaildrop, Listing
from mailhost.refusal import NoSuchMessage

# No account's name can begin with it: a colon ends names.
PREFIX = b"recent:"
SECONDS = 30 * 86_400.0


async def recent(maildrop: IMaildrop, since: int) -> IMaildrop:
    """@param since: microseconds since 1970.  What was delivered when nobody knows is shown."""
    times, listing = await maildrop.times(), await maildrop.listing()
    return Recent(maildrop, listing, times, [index for index, time in enumerate(times) if not time or time >= since])


@implementer(IMaildrop)
class Recent:
    """Some of another maildrop's messages."""

    def __init__(self, maildrop: IMaildrop, listing: Listing, times: Sequence[int], indexes: Sequence[int]) -> None:
        """@param indexes: 0-based, ascending, of those that are shown."""
        self._maildrop = maildrop
        self._indexes = indexes
        self._times = [times[index] for index in indexes]
        self._listing = Listing(
            [listing.octets[index] for index in indexes], [listing.unique_ids[index] for index in indexes]
        )
        self.totals = Totals(len(indexes), sum(self._listing.octets))

    def _number(self, number: int) -> int:
        """As the whole maildrop has it."""
        if not 1 <= number <= len(self._indexes):
            raise NoSuchMessage
        return self._indexes[number - 1] + 1

    async def listing(self) -> Listing:
        return self._listing

    async def content(self, number: int) -> IContent:
        return await self._maildrop.content(self._number(number))

    async def update(self, deleted: Collection[int]) -> None:
        await self._maildrop.update([self._number(number) for number in deleted])

    async def times(self) -> Sequence[int]:
        return self._times

    def notes(self) -> Awaitable[bytes]:
        return self._maildrop.notes()

    def keep_notes(self, notes: bytes) -> Awaitable[None]:
        return self._maildrop.keep_notes(notes)

    def when_wanted(self, ask: Callable[[], None]) -> None:
        self._maildrop.when_wanted(ask)

    def release(self) -> None:
        self._maildrop.release()
