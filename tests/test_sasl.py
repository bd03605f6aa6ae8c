"""What SASL responses come to, and which are refused."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.cred.credentials import IUsernamePassword, UsernamePassword

from mailhost import sasl
from mailhost.refusal import LoginFailed


def run(mechanism: bytes, *responses: bytes | None) -> object:
    exchange = sasl.begin(mechanism)
    assert exchange is not None
    answer: object = None
    for response in responses:
        answer = exchange.respond(response)
    return answer


def pair(credentials: object) -> tuple[bytes, bytes]:
    assert isinstance(credentials, UsernamePassword)
    assert IUsernamePassword.providedBy(credentials)
    return credentials.username, credentials.password


class TestMechanisms:
    def test_names_have_no_case(self) -> None:
        """RFC 4422 3.1: upper case is how names are written, clients write them otherwise."""
        assert pair(run(b"plain", b"\0ann\0secret")) == (b"ann", b"secret")
        assert run(b"Login", None) == sasl.Challenge(b"Username:")

    @pytest.mark.parametrize("name", [b"", b"PLAIN ", b"CRAM-MD5", b"SCRAM-SHA-256", b"PLA\0IN"])
    def test_unknown_mechanism(self, name: bytes) -> None:
        """A mechanism that is not in the table is none."""
        assert sasl.begin(name) is None

    def test_exchanges_are_independent(self) -> None:
        """A user name given in one exchange never appears in another."""
        first, second = sasl.begin(b"LOGIN"), sasl.begin(b"LOGIN")
        assert first is not None
        assert second is not None
        first.respond(b"ann")
        second.respond(b"bob")
        assert pair(first.respond(b"x")) == (b"ann", b"x")


class TestPlain:
    def test_without_initial_response(self) -> None:
        """The server's challenge is empty (RFC 4616 2)."""
        assert run(b"PLAIN", None) == sasl.Challenge(b"")
        assert pair(run(b"PLAIN", None, b"\0tim\0tanstaaftanstaaf")) == (b"tim", b"tanstaaftanstaaf")

    def test_own_authorization_identity(self) -> None:
        """Naming oneself twice is allowed."""
        assert pair(run(b"PLAIN", b"ann\0ann\0secret")) == (b"ann", b"secret")

    def test_other_authorization_identity(self) -> None:
        """RFC 4616 4, second example: acting as another is refused, as a wrong password is."""
        with pytest.raises(LoginFailed):
            run(b"PLAIN", b"Ursel\0Kurt\0xipj3plmq")

    def test_octets_stay_as_they_are(self) -> None:
        """UTF-8 goes through unchanged, and so do colons and spaces."""
        user, password = "zoë@exämple.test".encode(), "pass: wörd ".encode()
        assert pair(run(b"PLAIN", b"\0" + user + b"\0" + password)) == (user, password)

    def test_longest_user_name(self) -> None:
        """RFC 4616 2: 255 octets must be taken."""
        assert pair(run(b"PLAIN", b"\0" + b"u" * 255 + b"\0" + b"p" * 255)) == (b"u" * 255, b"p" * 255)

    @pytest.mark.parametrize(
        "response",
        [
            b"",
            b"ann",
            b"ann\0secret",
            b"\0ann\0secret\0",
            b"\0ann\0sec\0ret",
            b"\0\0secret",
            b"ann\0\0secret",
            b"\0ann\0",
            b"\0\xff\0secret",
            b"\0ann\0\xe4",
            b"\0" + b"u" * 256 + b"\0secret",
        ],
    )
    def test_malformed(self, response: bytes) -> None:
        """What RFC 4616 2 does not allow is refused before any checker sees it."""
        with pytest.raises(sasl.Malformed):
            run(b"PLAIN", response)

    @pytest.mark.parametrize(
        "response", [b"\0ann\0hunter2\0", b"x\0ann\0hunter2", b"\0\0hunter2", b"\0ann\0hunter2\xff"]
    )
    def test_refusals_hold_no_password(self, response: bytes) -> None:
        """Neither text, representation nor cause of a refusal quotes the response."""
        with pytest.raises((sasl.Malformed, LoginFailed)) as caught:
            run(b"PLAIN", response)
        assert "hunter2" not in f"{caught.value} {caught.value!r} {caught.value.cause} {caught.value.__cause__}"


class TestLogin:
    def test_two_prompts(self) -> None:
        """User name, then password, each asked for."""
        assert run(b"LOGIN", None) == sasl.Challenge(b"Username:")
        assert run(b"LOGIN", None, b"ann") == sasl.Challenge(b"Password:")
        assert pair(run(b"LOGIN", None, b"ann", b"secret")) == (b"ann", b"secret")

    def test_initial_response_is_the_user_name(self) -> None:
        """Clients that send one save a round trip."""
        assert run(b"LOGIN", b"ann") == sasl.Challenge(b"Password:")
        assert pair(run(b"LOGIN", b"ann", b"secret")) == (b"ann", b"secret")

    @pytest.mark.parametrize(
        ("user", "password"),
        [(b"", b"x"), (b"ann", b""), (b"a\0n", b"x"), (b"a", b"\0"), (b"\xff", b"x"), (b"u" * 256, b"x")],
    )
    def test_malformed(self, user: bytes, password: bytes) -> None:
        """The same rules as for PLAIN."""
        with pytest.raises(sasl.Malformed):
            run(b"LOGIN", None, user, password)


class TestBase64:
    def test_equals_sign_is_empty(self) -> None:
        """RFC 4954 4: a zero-length initial response is sent as one equals sign."""
        assert sasl.decode(b"=") == b""
        assert sasl.decode(b"") == b""

    @pytest.mark.parametrize(
        "line",
        [
            b"*",
            b"==",
            b"Q",
            b"QQ",
            b"QQ=",
            b"QR==",
            b"QQ==QQ==",
            b"QQ==\r",
            b" QQ==",
            b"QU JD",
            b"QUJD=",
            b"QQ-_",
            b"\xc3\xa4==",
        ],
    )
    def test_refused(self, line: bytes) -> None:
        """Anything but the one canonical form is refused, `*` among it."""
        with pytest.raises(sasl.Malformed):
            sasl.decode(line)

    @settings(max_examples=100)
    @given(st.binary(max_size=100))
    def test_round_trip(self, octets: bytes) -> None:
        """What is encoded is what the standard library encodes, and comes back."""
        assert sasl.encode(octets) == base64.b64encode(octets)
        assert sasl.decode(sasl.encode(octets)) == octets
