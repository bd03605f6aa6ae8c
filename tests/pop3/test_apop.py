"""APOP: a timestamp that is new each time, and a digest of it."""

from __future__ import annotations

import hashlib
import re

import pytest
from fakes_pop3 import NAME, PASSWORD, Host, ask

from mailhost.pop3.apop import Digest
from mailhost.testing.transport import FakeTransport


def connected(host: Host) -> tuple[FakeTransport, bytes]:
    """A client, and the greeting it heard."""
    transport = FakeTransport(host.factory.buildProtocol(None))
    return transport, transport.take()


def stamp_of(greeting: bytes) -> bytes:
    found = re.fullmatch(rb"\+OK pop\.example\.test ready (<[!-=?-~]+@pop\.example\.test>)\r\n", greeting)
    assert found is not None, greeting
    return found[1]


def digest(stamp: bytes, password: bytes = PASSWORD) -> bytes:
    return hashlib.md5(stamp + password).hexdigest().encode()


def test_the_rfcs_example() -> None:
    """RFC 1939 7."""
    credentials = Digest(b"<1896.697170952@dbc.mtview.ca.us>", b"mrose", b"c4c9334bac560ecc979e58001b3e22fb")
    assert credentials.checkPassword(b"tanstaaf")
    assert not credentials.checkPassword(b"tanstaafl")


@pytest.mark.parametrize("change", [bytes.lower, bytes.upper])
def test_login(change: type[bytes]) -> None:
    """A right digest logs in, in either case; without TLS too, since it tells no password."""
    host = Host(apop=True, plaintext_login=False)
    transport, greeting = connected(host)
    assert ask(transport, b"APOP " + NAME + b" " + change(digest(stamp_of(greeting))) + b"\r\n") == b"+OK logged in\r\n"
    assert ask(transport, b"STAT\r\n") == b"+OK 0 0\r\n"


def test_each_greeting_has_its_own() -> None:
    """A digest that somebody heard is worth nothing in another session."""
    host = Host(apop=True)
    (_, first), (transport, second) = connected(host), connected(host)
    assert stamp_of(first) != stamp_of(second)
    said = ask(transport, b"APOP " + NAME + b" " + digest(stamp_of(first)) + b"\r\n")
    assert said.startswith(b"-ERR [AUTH] ")


@pytest.mark.parametrize(
    "argument",
    [
        b"",
        NAME,
        NAME + b" ",
        b" " + b"0" * 32,
        NAME + b" " + b"0" * 31,
        NAME + b" " + b"g" * 32,
        NAME + b" " + b"0" * 33,
    ],
)
def test_syntax(argument: bytes) -> None:
    """A name and 32 hexadecimal digits."""
    transport, _ = connected(Host(apop=True))
    assert ask(transport, b"APOP " + argument + b"\r\n").startswith(b"-ERR syntax")


@pytest.mark.parametrize(("apop", "digests"), [(False, True), (True, False)])
def test_not_offered(apop: bool, digests: bool) -> None:
    """Neither where nobody wants it nor where nobody could check it; then no timestamp offers it."""
    host = Host(apop=apop)
    host.login.digests = digests
    transport, greeting = connected(host)
    assert greeting == b"+OK pop.example.test ready\r\n"
    assert ask(transport, b"APOP " + NAME + b" " + b"0" * 32 + b"\r\n") == b"-ERR not offered here\r\n"
