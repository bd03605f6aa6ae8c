"""Command lines: what is accepted and what it means, and what is refused."""

from __future__ import annotations

import pytest

from mailhost.pop3 import grammar

NUMBERS = [
    (b"1", 1),
    (b"0", 0),
    (b"007", 7),
    (b"1 ", 1),
    (b"  12", 12),
    (b"0" * 5000 + b"1", 1),
    (b"999999999999999999", 999999999999999999),
    (b"9" * 5000, 10**18),
]

NO_NUMBERS = [b"", b" ", b"-1", b"+1", b"1.0", b"one", b"1 2", b"0x1", b"\xd9\xa1", b"1_0", b"1\0", b"1\r"]


class TestNumbers:
    @pytest.mark.parametrize(("argument", "number"), NUMBERS)
    def test_accepted(self, argument: bytes, number: int) -> None:
        """Digits, leading zeros, any length, stray spaces."""
        assert grammar.message_number(argument) == number
        assert grammar.optional_message_number(argument) == number

    @pytest.mark.parametrize("argument", NO_NUMBERS)
    def test_refused(self, argument: bytes) -> None:
        """Anything but ASCII digits, and anything but one number."""
        with pytest.raises(grammar.BadSyntax):
            grammar.message_number(argument)

    def test_no_number_asks_for_all(self) -> None:
        """LIST and UIDL without argument, stray space or not."""
        assert grammar.optional_message_number(b"") is None
        assert grammar.optional_message_number(b" ") is None

    def test_top_wants_two(self) -> None:
        """A message-number and a number of lines, which may be none."""
        assert grammar.message_number_and_lines(b"3 0") == (3, 0)
        assert grammar.message_number_and_lines(b"03  " + b"9" * 50) == (3, 10**18)

    @pytest.mark.parametrize("argument", [b"", b"1", b"1 2 3", b"1 -1", b"a 1", b"1 b"])
    def test_top_refuses(self, argument: bytes) -> None:
        """One number, three, or what is none."""
        with pytest.raises(grammar.BadSyntax):
            grammar.message_number_and_lines(argument)


class TestNothing:
    @pytest.mark.parametrize("argument", [b"", b" ", b"   "])
    def test_accepted(self, argument: bytes) -> None:
        """A stray space after QUIT must not cost anybody the deletions."""
        grammar.nothing(argument)

    @pytest.mark.parametrize("argument", [b"x", b" x", b"\0"])
    def test_refused(self, argument: bytes) -> None:
        """An argument where there is none."""
        with pytest.raises(grammar.BadSyntax):
            grammar.nothing(argument)


class TestUsername:
    @pytest.mark.parametrize(
        "name", [b"ann", b"ann@example.test", b"ann b", b" ann", b"ann ", "jürgen".encode(), b"a" * 255]
    )
    def test_verbatim(self, name: bytes) -> None:
        """Every octet behind the one space is the name's own."""
        assert grammar.username(name) == name

    @pytest.mark.parametrize("name", [b"", b"a" * 256, b"a\0b", b"\xff"])
    def test_refused(self, name: bytes) -> None:
        """Nothing, too much, a NUL, and what is not UTF-8."""
        with pytest.raises(grammar.BadSyntax):
            grammar.username(name)


class TestMechanism:
    def test_accepted(self) -> None:
        """In any case, with and without an initial response."""
        assert grammar.mechanism(b"plain") == (b"PLAIN", None)
        assert grammar.mechanism(b"PLAIN =") == (b"PLAIN", b"=")
        assert grammar.mechanism(b"PLAIN AGEAYg== ") == (b"PLAIN", b"AGEAYg==")

    @pytest.mark.parametrize("argument", [b"PLAIN a b", b" "])
    def test_refused(self, argument: bytes) -> None:
        """Two initial responses, or no mechanism."""
        with pytest.raises(grammar.BadSyntax):
            grammar.mechanism(argument)

    def test_a_refusal_never_quotes_the_line(self) -> None:
        """It may hold a password."""
        with pytest.raises(grammar.BadSyntax) as refused:
            grammar.mechanism(b"PLAIN secret secret")
        assert "secret" not in str(refused.value)
