"""
The replies to LIST and UIDL without argument: one line for each message that is not marked as deleted (RFC 1939 5, 7).

A maildrop of 100,000 messages has megabytes of them, and clients ask at every login.  So they are made in one piece, and kept with
the listing, which is the same for every session until the maildrop changes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from mailhost.interfaces import Listing
from mailhost.pop3.replies import END


def scan_listings(listing: Listing, deleted: Collection[int]) -> bytes:
    """LIST: message-number and octets."""
    return _kept("pop3.LIST", _scan_listings, listing, deleted)


def unique_id_listings(listing: Listing, deleted: Collection[int]) -> bytes:
    """UIDL: message-number and unique-id."""
    return _kept("pop3.UIDL", _unique_id_listings, listing, deleted)


def _kept(
    name: str, make: Callable[[Listing, Collection[int]], bytes], listing: Listing, deleted: Collection[int]
) -> bytes:
    """Marks are one session's own: what is made with them is not kept."""
    if deleted:
        return make(listing, deleted)
    kept: bytes | None = listing.derived.get(name)
    if kept is None:
        kept = listing.derived[name] = make(listing, deleted)
    return kept


def _scan_listings(listing: Listing, deleted: Collection[int]) -> bytes:
    lines = [b"%d %d\r\n" % line for line in enumerate(listing.octets, 1) if line[0] not in deleted]
    return b"".join([b"+OK %d messages\r\n" % len(lines), *lines, END])


def _unique_id_listings(listing: Listing, deleted: Collection[int]) -> bytes:
    lines = [
        f"{number} {unique_id}\r\n" for number, unique_id in enumerate(listing.unique_ids, 1) if number not in deleted
    ]
    return b"".join([b"+OK unique-ids follow\r\n", "".join(lines).encode("ascii"), END])
