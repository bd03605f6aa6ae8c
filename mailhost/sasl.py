"""
SASL mechanisms (RFC 4422), the server's side: from a client's responses to credentials.

No transport and no protocol: how AUTH begins, how a challenge stands on a line and how an exchange is cancelled belong to SMTP
(RFC 4954) and POP3 (RFC 5034).  Nothing is verified here; the credentials that come out go to a login.  A client's response is
never quoted in an error, since it holds a password.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable
from typing import NamedTuple, Protocol

from twisted.cred.credentials import ICredentials, UsernamePassword

from mailhost.refusal import LoginFailed, Refusal

# RFC 4616 2: a server must take names of 255 octets; no address is longer (RFC 5321 4.5.3.1).
_USERNAME_OCTETS = 255


class Malformed(Refusal):
    """A response that the mechanism does not allow, or that is no base64; the exchange is over."""


class Challenge(NamedTuple):
    """The server wants another response."""

    octets: bytes
    """Plain, before base64; may be empty."""


class Exchange(Protocol):
    """One run of one mechanism.  It is over when `respond` gives credentials or raises."""

    def respond(self, response: bytes | None) -> Challenge | ICredentials:
        """
        @param response: decoded; None, at the first call only, when the client sent no initial response.
        @raise Malformed: the response is not what the mechanism says.
        @raise LoginFailed: well formed, and asks for what is given to nobody.
        """


def begin(mechanism: bytes) -> Exchange | None:
    """
    @param mechanism: its name in any case (RFC 4422 3.1).
    @return: None for a mechanism that is not known.
    """
    exchange = _MECHANISMS.get(mechanism.upper())
    return exchange() if exchange is not None else None


def decode(line: bytes) -> bytes:
    """
    A response as it stood on its line.  `=` is the empty initial response (RFC 4954 4), and so is an empty line later on.

    @raise Malformed: not the one base64 form of any octets (RFC 4648 3.3, 3.5).  `*`, which cancels, is such a line too.
    """
    if line == b"=":
        return b""
    try:
        octets = binascii.a2b_base64(line, strict_mode=True)
    except ValueError:
        raise Malformed("not base64") from None
    # The strict mode still takes stray bits in the last character; two spellings of one password are one too many.
    if encode(octets) != line:
        raise Malformed("not base64")
    return octets


def encode(octets: bytes) -> bytes:
    """Base64 on one line, without a line end."""
    return binascii.b2a_base64(octets, newline=False)


class _Plain:
    """PLAIN (RFC 4616): one message, `[authorization identity] NUL authentication identity NUL password`."""

    def respond(self, response: bytes | None) -> Challenge | ICredentials:
        if response is None:
            return Challenge(b"")
        parts = response.split(b"\0")
        if len(parts) != 3:
            raise Malformed("PLAIN has three parts")
        authorization, username, password = parts
        credentials = _credentials(username, password)
        # Nobody may act as somebody else.  It is answered as a wrong password is (RFC 4616 2 and its second example), without
        # asking a checker, so that it tells nothing about the password.
        if authorization not in (b"", username):
            raise LoginFailed(cause="an authorization identity other than the authentication identity")
        return credentials


class _Login:
    """
    LOGIN (draft-murchison-sasl-login): obsolete, and all that some clients have.

    The prompts are the ones that all servers send; there are clients that look at them.
    """

    def __init__(self) -> None:
        self._username: bytes | None = None

    def respond(self, response: bytes | None) -> Challenge | ICredentials:
        if response is None:
            return Challenge(b"Username:")
        if self._username is None:
            self._username = response
            return Challenge(b"Password:")
        return _credentials(self._username, response)


def _credentials(username: bytes, password: bytes) -> ICredentials:
    """RFC 4616 2: both in UTF-8, neither empty, no NUL in either."""
    if not username or len(username) > _USERNAME_OCTETS:
        raise Malformed("a user name has 1 to 255 octets")
    if not password:
        raise Malformed("no password")
    for octets in (username, password):
        if b"\0" in octets or not _is_utf8(octets):
            raise Malformed("not UTF-8, or with a NUL")
    return UsernamePassword(username, password)


def _is_utf8(octets: bytes) -> bool:
    try:
        octets.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


_MECHANISMS: dict[bytes, Callable[[], Exchange]] = {
    b"PLAIN": _Plain,
    b"LOGIN": _Login,
}
