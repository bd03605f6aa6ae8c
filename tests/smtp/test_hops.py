"""Received fields are counted in the header section and nowhere else, however it is cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailhost.smtp.hops import Hops

HEADERS = [
    (b"", 0),
    (b"Received: x\r\n", 1),
    (b"Received: x\r\n\r\n", 1),
    (b"RECEIVED:x\r\nreceived:\r\nReCeIvEd:\tx\r\n", 3),
    (b"Received: from a\r\n\tby b;\r\n Received: folded\r\nSubject: x\r\n", 1),
    (b"X-Received: x\r\nReceived-SPF: pass\r\nSubject: Received: x\r\n", 0),
    (b"\r\nReceived: in the body\r\n", 0),
    (b"Received: 1\r\n\r\nReceived: in the body\r\n\r\nReceived: x\r\n", 1),
    (b"Subject: x\r\nReceived: 1\r\nX: y\r\nReceived: 2\r\n\r\nx\r\n", 2),
    (b"Received\r\nReceived:\r\n:\r\n", 1),
]


def counted(octets: bytes, cut: int | None = None) -> int:
    hops = Hops()
    for block in (octets[:cut], octets[cut:]) if cut is not None else (octets,):
        if not hops.ended:
            hops.feed(block)
    return hops.count


@pytest.mark.parametrize(("octets", "count"), HEADERS)
def test_every_split(octets: bytes, count: int) -> None:
    """In any case, at the start of a line, before the empty line, once each, wherever content is cut into two."""
    assert counted(octets) == count
    for cut in range(len(octets) + 1):
        assert counted(octets, cut) == count, cut


@pytest.mark.parametrize(("octets", "count"), HEADERS)
def test_octet_by_octet(octets: bytes, count: int) -> None:
    """Blocks may be of one octet."""
    hops = Hops()
    for octet in octets:
        if not hops.ended:
            hops.feed(bytes([octet]))
    assert hops.count == count


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from([b"\r\n", b"Received:", b"received: x", b"Re", b"ceived:", b" ", b"x"]), max_size=30),
    st.integers(1, 13),
)
def test_as_by_the_book(words: list[bytes], size: int) -> None:
    """The same as taking lines one by one to the first empty one."""
    octets = b"".join(words)
    lines = (octets.split(b"\r\n\r\n")[0] if not octets.startswith(b"\r\n") else b"").split(b"\r\n")
    hops = Hops()
    for start in range(0, len(octets), size):
        if not hops.ended:
            hops.feed(octets[start : start + size])
    assert hops.count == sum(line.lower().startswith(b"received:") for line in lines)


def test_a_header_without_end_costs_no_memory() -> None:
    """What is kept between blocks is shorter than one field's name."""
    hops = Hops()
    for _ in range(100):
        hops.feed(b"Received: x\r\n" * 1000)
    assert hops.count == 100_000
    assert len(hops._tail) < 20
