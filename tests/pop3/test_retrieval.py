"""Where TOP ends, whatever the blocks."""

from __future__ import annotations

import itertools

from hypothesis import example, given, settings
from hypothesis import strategies as st

from mailhost.octets import CRLF, Measure
from mailhost.pop3.retrieval import Top


def top_of(wire: bytes, lines: int, cuts: list[int]) -> bytes:
    """What passes of a message that comes in blocks cut so."""
    measure = Measure()
    measure.feed(wire)
    top = Top(measure.header_octets, lines)
    places = [0, *sorted(cut % (len(wire) + 1) for cut in cuts), len(wire)]
    blocks = [wire[start:end] for start, end in itertools.pairwise(places)]
    return b"".join(top.passing(block) for block in blocks)


def by_lines(wire: bytes, lines: int) -> bytes:
    """The same by its definition: header, empty line, so many lines (RFC 1939 7)."""
    whole = wire.split(CRLF)
    assert whole.pop() == b""
    header = whole.index(b"") + 1 if b"" in whole else len(whole)
    return b"".join(line + CRLF for line in whole[: header + lines])


class TestTop:
    @settings(max_examples=200, deadline=None)
    @given(
        lines=st.lists(
            st.sampled_from([b"", b"a", b"..", b"\rb", b"b\r", b"\r\r", b"c\nd", b"\n", b"e" * 9]), max_size=9
        ),
        count=st.integers(0, 10),
        cuts=st.lists(st.integers(0, 99), max_size=9),
    )
    @example(lines=[b"", b"a", b"\nb", b"c"], count=2, cuts=[4])
    def test_is_what_its_definition_says(self, lines: list[bytes], count: int, cuts: list[int]) -> None:
        """A bare CR or LF, in content that is older than our strictness, is no line's end."""
        wire = b"".join(line + CRLF for line in lines)
        assert top_of(wire, count, cuts) == by_lines(wire, count)

    def test_nothing_is_read_after_its_end(self) -> None:
        """So that who reads the blocks can stop."""
        top = Top(5, 2)
        assert top.passing(b"a\r") == b"a\r"
        assert top.passing(b"\n\r\nb\r\r") == b"\n\r\nb\r\r"
        assert top.passing(b"\nc\n") == b"\nc\n"
        assert not top.ended
        assert top.passing(b"\r\nd\r\n") == b"\r\n"
        assert top.ended

    def test_no_lines(self) -> None:
        """TOP n 0 ends with the empty line."""
        top = Top(2, 0)
        assert top.passing(b"\r\nbody\r\n") == b"\r\n"
        assert top.ended
