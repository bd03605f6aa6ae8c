"""
APOP (RFC 1939 7): a login by a digest of the greeting's timestamp and the password, for clients that have nothing better.

It hides the password from who listens, and no more: MD5, and accounts whose passwords the server can read.  So it is off by default.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

from twisted.cred.credentials import IUsernameHashedPassword
from zope.interface import implementer


def timestamp(hostname: str) -> bytes:
    """One that never comes again, in the form of a msg-id (RFC 822)."""
    return f"<{secrets.token_hex(16)}@{hostname}>".encode("ascii")


@implementer(IUsernameHashedPassword)
class Digest:
    """Credentials: what a client has made of the timestamp and its password."""

    def __init__(self, stamp: bytes, username: bytes, digest: bytes) -> None:
        """@param digest: 32 lower-case hexadecimal digits."""
        self.username = username
        self._stamp = stamp
        self._digest = digest

    def checkPassword(self, password: bytes) -> bool:
        """Takes as long whatever differs."""
        wanted = hashlib.md5(self._stamp + password, usedforsecurity=False).hexdigest()
        return hmac.compare_digest(wanted.encode("ascii"), self._digest)
