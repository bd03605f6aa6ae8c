"""A message's form in its file, and on the wire."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailhost.spool.maildir.forms import CRLFs, PlainForm, WireForm

OCTETS = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"a", b"\0\xff"]), max_size=12).map(b"".join)


def split(octets: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(octets), *(cut % (len(octets) + 1) for cut in cuts)})
    return [octets[start:end] for start, end in pairwise(places)]


def fed(form: CRLFs | PlainForm | WireForm, blocks: list[bytes]) -> bytes:
    return b"".join(form.feed(block) for block in blocks)


def with_crlf(octets: bytes) -> bytes:
    """The plain and slow way."""
    return re.sub(rb"(?<!\r)\n", b"\r\n", octets)


def doubled(octets: bytes) -> bytes:
    return re.sub(rb"(?:^|(?<=\r\n))\.", b"..", octets)


@given(octets=OCTETS, cuts=st.lists(st.integers(0, 30), max_size=4))
def test_crlfs(octets: bytes, cuts: list[int]) -> None:
    """Each LF without CR gets one and nothing else changes, wherever blocks are cut."""
    assert fed(CRLFs(), split(octets, cuts)) == with_crlf(octets)


@given(octets=OCTETS, cuts=st.lists(st.integers(0, 30), max_size=4), ours=st.booleans())
def test_wire_form(octets: bytes, cuts: list[int], ours: bool) -> None:
    """Line ends of others' files become CRLF, ours stay; dots are doubled and a missing line end is added to both."""
    form = WireForm(ours=ours)
    wire = fed(form, split(octets, cuts)) + form.end()
    expected = doubled(octets if ours else with_crlf(octets))
    assert wire == expected + (b"" if expected.endswith(b"\r\n") or not expected else b"\r\n")


@given(octets=OCTETS, cut=st.integers(0, 30))
def test_copy_goes_on(octets: bytes, cut: int) -> None:
    """A copy made half way gives what the original gives, and leaves it as it is."""
    form = WireForm(ours=False)
    form.feed(octets[:cut])
    copy = form.copy()
    assert copy.feed(octets[cut:]) + copy.end() == form.feed(octets[cut:]) + form.end()


@given(octets=OCTETS, cuts=st.lists(st.integers(0, 30), max_size=4))
def test_there_and_back(octets: bytes, cuts: list[int]) -> None:
    """What the wire form of anything becomes in a file is it again, counted."""
    form = WireForm(ours=True)
    whole = form.feed(octets) + form.end()
    plain = PlainForm()
    stored = fed(plain, split(whole, cuts))
    assert doubled(stored) == whole
    assert plain.octets == len(stored)
    assert plain.all_crlf == (with_crlf(stored) == stored)


@pytest.mark.parametrize("blocks", [[b"a\r", b"\nb\r\n"], [b"a\r", b"", b"\n"], [b"\r\n"]])
def test_crlf_cut_in_two(blocks: list[bytes]) -> None:
    """A LF whose CR came in an earlier block does not stand alone."""
    plain = PlainForm()
    fed(plain, blocks)
    assert plain.all_crlf
