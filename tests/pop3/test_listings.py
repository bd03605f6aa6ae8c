"""The whole replies to LIST and UIDL."""

from __future__ import annotations

from mailhost.interfaces import Listing
from mailhost.pop3 import listings


def listing() -> Listing:
    return Listing([10, 2000, 3], ["a", "}~!", "c" * 70])


class TestListings:
    def test_lines(self) -> None:
        """Message-numbers count from one."""
        assert listings.scan_listings(listing(), ()) == b"+OK 3 messages\r\n1 10\r\n2 2000\r\n3 3\r\n.\r\n"
        said = listings.unique_id_listings(listing(), ())
        assert said == b"+OK unique-ids follow\r\n1 a\r\n2 }~!\r\n3 " + b"c" * 70 + b"\r\n.\r\n"

    def test_of_nothing(self) -> None:
        """An empty maildrop has an empty list."""
        assert listings.scan_listings(Listing([], []), ()) == b"+OK 0 messages\r\n.\r\n"
        assert listings.unique_id_listings(Listing([], []), ()) == b"+OK unique-ids follow\r\n.\r\n"

    def test_marked_messages_are_absent_and_the_others_keep_their_numbers(self) -> None:
        """RFC 1939 5."""
        assert listings.scan_listings(listing(), {2}) == b"+OK 2 messages\r\n1 10\r\n3 3\r\n.\r\n"
        assert b"\r\n2 " not in listings.unique_id_listings(listing(), {2})

    def test_made_once(self) -> None:
        """Kept with the listing for every session that sees it."""
        kept = listing()
        assert listings.scan_listings(kept, ()) is listings.scan_listings(kept, set())
        assert listings.unique_id_listings(kept, ()) is listings.unique_id_listings(kept, set())

    def test_one_sessions_marks_are_not_anothers(self) -> None:
        """What is made with marks is not kept, and what is kept is not given where there are marks."""
        kept = listing()
        for make in (listings.scan_listings, listings.unique_id_listings):
            marked = make(kept, {1})
            assert make(kept, ()) == make(listing(), ())
            assert make(kept, {1}) == marked != make(kept, ())
