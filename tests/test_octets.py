"""Lines, the end of content and dots, whatever the cuts between blocks."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailhost.octets import (
    BareLineFeed,
    Doubler,
    EndFinder,
    LineEnds,
    LineTooLong,
    Measure,
    Undoubler,
    Unread,
)

# Texts made of the octets that matter, so that every edge is met often.
tricky = st.text(alphabet="\r\n.a", max_size=24).map(str.encode)
crlf_text = st.lists(st.sampled_from([b"", b".", b"..", b"a", b".a", b"a.", b"..a"]), max_size=8).map(
    lambda lines: b"".join(line + b"\r\n" for line in lines)
)
cuts = st.lists(st.integers(0, 30), max_size=6)


def cut(octets: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(octets), *(min(place, len(octets)) for place in places)})
    return [octets[a:b] for a, b in itertools.pairwise(edges)]


def plainly_undoubled(wire: bytes) -> bytes:
    return b"".join(line[1:] if line.startswith(b".") else line for line in wire.splitlines(keepends=True))


class TestUnread:
    @pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
    def test_lines_come_whole_whatever_the_blocks(self, size: int) -> None:
        """A line is given when its CRLF is there, without it."""
        unread, lines = Unread(), []
        text = b"EHLO a\r\n\r\nMAIL FROM:<>\r\nQU"
        for start in range(0, len(text), size):
            unread.append(text[start : start + size])
            while (line := unread.take_line(100)) is not None:
                lines.append(line)
        assert lines == [b"EHLO a", b"", b"MAIL FROM:<>"]
        assert unread.take() == b"QU"
        assert len(unread) == 0

    @pytest.mark.parametrize("size", [1, 7, 1000])
    def test_a_line_that_is_too_long_is_dropped_and_told_once(self, size: int) -> None:
        """Its octets are not kept, and the next line is whole again."""
        unread, told, lines = Unread(), 0, []
        text = b"x" * 50 + b"\r\nNOOP\r\n"
        for start in range(0, len(text), size):
            unread.append(text[start : start + size])
            while True:
                try:
                    line = unread.take_line(20)
                except LineTooLong:
                    told += 1
                    continue
                if line is None:
                    break
                lines.append(line)
            assert len(unread) <= max(20, size)
        assert (told, lines) == (1, [b"NOOP"])

    def test_a_line_of_the_longest_length_is_taken(self) -> None:
        """The limit counts the CRLF."""
        unread = Unread()
        unread.append(b"x" * 18 + b"\r\n" + b"x" * 19 + b"\r\n")
        assert unread.take_line(20) == b"x" * 18
        with pytest.raises(LineTooLong):
            unread.take_line(20)

    @pytest.mark.parametrize("text", [b"\n", b"NOOP\n", b"a\rb\n"])
    def test_a_bare_lf_is_no_line_end(self, text: bytes) -> None:
        """The line is taken, and said to be wrong."""
        unread = Unread()
        unread.append(text + b"NOOP\r\n")
        with pytest.raises(BareLineFeed):
            unread.take_line(100)
        assert unread.take_line(100) == b"NOOP"

    def test_what_is_put_back_comes_first(self) -> None:
        """Nothing is lost or swapped."""
        unread = Unread()
        unread.append(b"one\r\ntwo")
        assert unread.take_line(100) == b"one"
        unread.put_back(b"zero\r\n")
        assert unread.take_at_most(4) == b"zero"
        assert unread.take() == b"\r\ntwo"

    def test_a_block_is_given_out_without_a_copy(self) -> None:
        """Content in large blocks costs no copy here."""
        unread, block = Unread(), bytes(70000)
        unread.append(block)
        assert unread.take() is block


class TestEndFinder:
    @given(tricky, cuts)
    def test_the_end_is_found_where_it_is(self, text: bytes, places: list[int]) -> None:
        """The same for all cuts: content before the first CRLF.CRLF, the rest untouched behind it."""
        whole = b"\r\n" + text + b"\r\n.\r\nREST"
        end = whole.find(b"\r\n.\r\n")
        finder, content, rest = EndFinder(), b"", b""
        for block in cut(text + b"\r\n.\r\nREST", places):
            if finder.rest is not None:
                rest += block
                continue
            content += finder.feed(block)
            rest = finder.rest or b""
        assert content == whole[2 : end + 2]
        assert rest == whole[end + 5 :]
        body = whole[: end + 2]
        assert finder.bare == (len(body.replace(b"\r\n", b"").translate(None, b".a")) > 0)
        assert finder.line_ends == body.count(b"\r\n")

    @pytest.mark.parametrize(
        "text", [b"a\n.\n", b"a\n.\r\n", b"a\r\n.\n", b"a\r.\r", b"a\r\n.\r\r\n", b"a\r\n\x00.\r\n"]
    )
    def test_nothing_else_ends_content(self, text: bytes) -> None:
        """Bare CRs and LFs, the tools of smuggling, never end a message."""
        finder = EndFinder()
        finder.feed(text + b"MAIL FROM:<x@y>\r\n")
        assert finder.rest is None

    def test_empty_content(self) -> None:
        """A dot at once ends content of no octets."""
        finder = EndFinder()
        assert finder.feed(b".\r\nQUIT\r\n") == b""
        assert finder.rest == b"QUIT\r\n"


class TestMeasure:
    @given(crlf_text, cuts)
    def test_counts_do_not_depend_on_cuts(self, wire: bytes, places: list[int]) -> None:
        """Octets, dots and header are those of the whole."""
        measure = Measure()
        for block in cut(wire, places):
            measure.feed(block)
        assert measure.octets == len(plainly_undoubled(wire))
        assert measure.wire_octets == len(wire)
        assert measure.dots == len(wire) - len(plainly_undoubled(wire))
        end = (b"\r\n" + wire).find(b"\r\n\r\n")
        assert measure.header_octets == (end + 2 if end >= 0 else len(wire))


class TestDots:
    @given(crlf_text, cuts, cuts)
    def test_doubled_and_undone_is_the_same(self, plain: bytes, places: list[int], others: list[int]) -> None:
        """Wire form and back, with different cuts on each way."""
        doubler, undoubler = Doubler(), Undoubler()
        wire = b"".join(map(doubler.feed, cut(plain, places))) + doubler.end()
        assert plainly_undoubled(wire) == plain
        assert b"".join(map(undoubler.feed, cut(wire, others))) == plain

    @given(crlf_text, cuts)
    def test_any_wire_form_is_undone_rightly(self, wire: bytes, places: list[int]) -> None:
        """A single dot that a sender had not doubled goes too (RFC 5321 4.5.2)."""
        undoubler = Undoubler()
        assert b"".join(map(undoubler.feed, cut(wire, places))) == plainly_undoubled(wire)

    def test_a_missing_last_line_end_is_added(self) -> None:
        """Wire form ends in CRLF."""
        doubler = Doubler()
        assert doubler.feed(b"a") + doubler.end() == b"a\r\n"


class TestLineEnds:
    @given(st.lists(st.sampled_from([b"a", b"\r\n", b"\n", b"\r\n\r\n", b"\n\n", b"."]), max_size=10), cuts)
    def test_lf_and_crlf_become_crlf(self, pieces: list[bytes], places: list[int]) -> None:
        """Each line end becomes one CRLF, and the last line has one."""
        text = b"".join(pieces)
        ends = LineEnds()
        out = b"".join(map(ends.feed, cut(text, places))) + ends.end()
        wanted = text.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        if wanted and not wanted.endswith(b"\r\n"):
            wanted += b"\r\n"
        assert out == wanted
