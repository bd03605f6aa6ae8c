"""Listings, read when asked for and kept while their maildrop's count of changes stands."""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Sequence

from mailhost.envelope import Totals
from mailhost.interfaces import Listing
from mailhost.refusal import SpoolUnavailable
from mailhost.spool.log.index import Index, Place, Snapshot
from mailhost.spool.log.threads import Threads


class Places:
    """Where the messages of a listing are, in its order, and their times."""

    __slots__ = ("lengths", "offsets", "segments", "times")

    def __init__(self, rows: Sequence[tuple[int, int, int, int]]) -> None:
        """@param rows: (segment, offset, length of the record, time)."""
        columns = tuple(zip(*rows)) or ((), (), (), ())
        self.segments = array("q", columns[0])
        self.offsets = array("q", columns[1])
        self.lengths = array("q", columns[2])
        self.times = array("q", columns[3])

    def at(self, index: int) -> Place:
        return Place(self.segments[index], self.offsets[index], self.lengths[index])


class LogListing(Listing):
    """A listing that knows where it was read from."""

    __slots__ = ("maildrop", "places", "snapshot")

    def __init__(self, octets: Sequence[int], unique_ids: Sequence[str], maildrop: int, snapshot: Snapshot) -> None:
        super().__init__(octets, unique_ids)
        self.maildrop = maildrop
        self.snapshot = snapshot
        self.places: Places | None = None


class Listings:
    """Lives in the reactor's thread.  What is kept is bounded by messages in all; the listing used last is always kept."""

    def __init__(self, index: Index, threads: Threads, kept_messages: int = 300_000) -> None:
        self._index = index
        self._threads = threads
        self._kept_messages = kept_messages
        self._kept: OrderedDict[int, LogListing] = OrderedDict()
        self._messages = 0

    async def read(self, maildrop: int, snapshot: Snapshot, totals: Totals) -> LogListing:
        """
        @raise SpoolUnavailable: the index was changed beneath this snapshot, by recovery of what another process left; a new
            session sees the maildrop as it is.
        """
        kept = self._kept.get(maildrop)
        if kept is not None and kept.snapshot == snapshot:
            self._kept.move_to_end(maildrop)
            return kept
        octets, unique_ids = await self._threads.run(self._index.listing, maildrop, snapshot)
        if len(octets) != totals.messages:
            raise SpoolUnavailable(cause=f"maildrop {maildrop:016x} changed beneath an open session")
        listing = LogListing(octets, unique_ids, maildrop, snapshot)
        self._keep(listing)
        return listing

    def _keep(self, listing: LogListing) -> None:
        self._forget(listing.maildrop)
        self._kept[listing.maildrop] = listing
        self._messages += len(listing.octets)
        while self._messages > self._kept_messages and len(self._kept) > 1:
            self._forget(next(iter(self._kept)))

    def _forget(self, maildrop: int) -> None:
        listing = self._kept.pop(maildrop, None)
        if listing is not None:
            self._messages -= len(listing.octets)

    async def places(self, listing: LogListing) -> Places:
        """@raise SpoolUnavailable: as `read`."""
        if listing.places is None:
            places = await self._threads.run(self._read_places, listing)
            if len(places.times) != len(listing.octets):
                raise SpoolUnavailable(cause=f"maildrop {listing.maildrop:016x} changed beneath an open session")
            listing.places = places
        return listing.places

    async def places_again(self, listing: LogListing) -> Places:
        """When segments have been replaced since they were read."""
        listing.places = None
        return await self.places(listing)

    def _read_places(self, listing: LogListing) -> Places:
        return Places(self._index.places(listing.maildrop, listing.snapshot))

    def clear(self) -> None:
        self._kept.clear()
        self._messages = 0
