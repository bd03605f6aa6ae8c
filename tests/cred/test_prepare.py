"""Names and passwords that mean the same compare as the same."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailhost.cred import prepare


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Ann@Example.TEST", "ann@example.test"),
        ("ZOË@example.test", "zoë@example.test"),
        ("zoe\u0308@example.test", "zoë@example.test"),
        ("ZOE\u0308@example.test", "zoë@example.test"),
        ("zoë@EXÄMPLE.test", "zoë@xn--exmple-cua.test"),
        ("ann@exa\u0308mple.test", "ann@xn--exmple-cua.test"),
        ("Ann@bücher.example", "ann@XN--BCHER-KVA.example"),
    ],
)
def test_same_name(one: str, other: str) -> None:
    """Case and composition make no difference, in ASCII or beyond."""
    assert prepare.name(one) == prepare.name(other)
    assert prepare.name_of(one.encode()) == prepare.name(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("zoe@x", "zoë@x"), ("ann@x", "ann@x "), ("a.nn@x", "ann@x"), ("strasse@x", "straße@x"), ("\u039a@x", "K@x")],
)
def test_other_name(one: str, other: str) -> None:
    """Nothing else is taken for the same."""
    assert prepare.name(one) != prepare.name(other)


@settings(max_examples=200)
@given(st.binary(max_size=40))
def test_names_from_any_octets(octets: bytes) -> None:
    """No octets break it, a second pass changes nothing, and what is no UTF-8 equals no text of a file."""
    name = prepare.name_of(octets)
    assert prepare.name(name) == name
    try:
        octets.decode()
    except UnicodeDecodeError:
        with pytest.raises(UnicodeEncodeError):
            name.encode()


@settings(max_examples=200)
@given(st.text(max_size=10))
def test_names_from_any_text(text: str) -> None:
    """Prepared once or twice, upper or lower, is the same."""
    name = prepare.name(text)
    assert prepare.name(name) == name


@pytest.mark.parametrize(
    ("sent", "prepared"),
    [
        # RFC 4013 3
        ("I\u00adX", "IX"),
        ("user", "user"),
        ("USER", "USER"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        ("pass\u00a0word", "pass word"),
        ("cafe\u0301", "café"),
    ],
)
def test_saslprep(sent: str, prepared: str) -> None:
    """The examples of RFC 4013, a no-break space and a combining accent."""
    assert prepare.password(sent.encode()) == prepared.encode()


@pytest.mark.parametrize(
    "octets", [b"\x07", b"\xff\xfe", "\u0627\u0031".encode(), "x\u0007ä".encode(), "\u00ad".encode()]
)
def test_what_saslprep_refuses_stays(octets: bytes) -> None:
    """A password with prohibited characters or mixed directions, or that vanishes, matches nothing but itself."""
    assert prepare.password(octets) == octets


@pytest.mark.parametrize(
    "octets", [b"a@\xff\xfe", "ä@a..b\u00e4".encode(), ("ä@" + "ä" * 300).encode(), "ä@ä ä".encode(), b"\xc3\xa4@"]
)
def test_domains_that_are_none(octets: bytes) -> None:
    """A client may send what is no domain; it then is nobody's name, and no error."""
    assert prepare.name_of(octets)
