"""Names of messages in a Maildir."""

from __future__ import annotations

import re

import pytest

from mailhost.spool.maildir import names
from mailhost.spool.maildir.names import Sizes, UniqueNames

DOVECOTS = "1354370123.M955947P5244.mx.example.test,S=1234,W=1270"


def test_unique_names_sort_by_time() -> None:
    """Names and unique-ids made one after another sort so, and are all different."""
    made = UniqueNames("mx.example.test")
    for found in zip(*(made.next() for _ in range(1000))):
        assert sorted(found) == list(found)
        assert len(set(found)) == 1000


def test_two_writers() -> None:
    """Two writers of one process on one host never make the same name."""
    assert UniqueNames("mx").writer != UniqueNames("mx").writer


@pytest.mark.parametrize("host", ["a/b:c", "x" * 200, "", "with space", "comma,", "\u00fc.example"])
def test_any_host(host: str) -> None:
    """Whatever a host is called, its names can be files, and say what they are."""
    unique_id, unique = UniqueNames(host).next()
    assert re.fullmatch(r"[0-9a-f]{24}", unique_id)
    assert re.fullmatch(r"[!-~]{1,200}", unique)
    assert not set("/:,") & set(unique)
    assert names.our_unique_id(names.with_sizes(unique, 5, all_crlf=True)) == unique_id
    assert names.our_octets(names.with_sizes(unique, 5, all_crlf=True)) == 5


def test_slash_and_colon_in_a_host() -> None:
    """They are written as the Maildir specification says."""
    assert names.safe_host("a/b:c") == "a\\057b\\072c"


def test_sizes() -> None:
    """Sizes are found wherever they stand, and only whole ones."""
    assert names.sizes_of(DOVECOTS) == Sizes(1234, 1270)
    assert names.sizes_of("1.x,W=3,S=2") == Sizes(2, 3)
    assert names.sizes_of("1.x,S=2x,W=") == Sizes(None, None)
    assert names.sizes_of("1.x") == Sizes(None, None)


def test_sizes_of_ours() -> None:
    """The size with CRLF is said only where it is known."""
    _, unique = UniqueNames("mx").next()
    assert names.with_sizes(unique, 7, all_crlf=True) == f"{unique},S=7,W=7"
    assert names.with_sizes(unique, 7, all_crlf=False) == f"{unique},S=7"
    assert names.our_octets(f"{unique},S=7") == 7


def test_ours_without_sizes() -> None:
    """Where another program took the sizes away the unique-id is the same and the size is to be found out."""
    unique_id, unique = UniqueNames("mx").next()
    assert names.our_unique_id(unique) == unique_id
    assert names.our_octets(unique) is None


@pytest.mark.parametrize("base", [DOVECOTS, "1354370123.5244_1.host", "1354370123.V801I1234M567.host", "x", ""])
def test_foreign(base: str) -> None:
    """Names of other programs are not taken for ours."""
    assert names.our_unique_id(base) is None
    assert names.our_octets(base) is None


def test_base() -> None:
    """Flags are not part of a message's name."""
    assert names.base_of(DOVECOTS + ":2,ST") == DOVECOTS
    assert names.base_of(DOVECOTS) == DOVECOTS


def test_time() -> None:
    """Seconds, and microseconds where they are said; nothing where there is no time."""
    assert names.time_of(DOVECOTS) == 1354370123_955947
    assert names.time_of("1354370123.5244_1.host") == 1354370123_000000
    assert names.time_of("1354370123.M1234567.host") == 1354370123_000000
    assert names.time_of("hello") == 0


@pytest.mark.parametrize("base", ["x" * 71, "with space", "\u00fc", "", "\udcff"])
def test_bases_that_cannot_be_unique_ids(base: str) -> None:
    """They are hashed, always to the same."""
    assert re.fullmatch(r"[0-9a-f]{64}", names.foreign_unique_id(base))
    assert names.foreign_unique_id(base) == names.foreign_unique_id(base)


def test_bases_as_unique_ids() -> None:
    """As Courier does, and Dovecot by `%f`."""
    assert names.foreign_unique_id(DOVECOTS) == DOVECOTS
