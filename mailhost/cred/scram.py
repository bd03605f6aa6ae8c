"""
What is kept of a password: SCRAM-SHA-256 (RFC 5802 3, RFC 7677), as Dovecot writes it, or the password itself.

    {SCRAM-SHA-256}iterations,salt,stored-key,server-key        all but the number in base64
    {PLAIN}password                                             for tests and benchmarks

A SCRAM verifier does not hold the password, serves SCRAM exchanges, and verifies plaintext logins as well: hash what the client
sent with the same salt, and compare.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
from typing import NamedTuple

from mailhost.cred import prepare

# RFC 7677 4 wants 4,096 at least and suggests 15,000 (in 2015).  100,000 cost 35 ms of one core: dear enough for who has stolen the
# file, and bearable for a telephone that logs in by SCRAM and has to do the same work, and for a server that is flooded with
# guesses.  A login that was verified before costs none of it.
ITERATIONS = 100_000

# More would let one line of the file hold a thread for minutes.
_MOST_ITERATIONS = 10_000_000

_SCHEME = re.compile(r"\{([A-Za-z0-9.-]+)\}(.*)", re.DOTALL)


class Scram(NamedTuple):
    """A SCRAM-SHA-256 verifier: 16 octets of salt, two keys of 32."""

    iterations: int
    salt: bytes
    stored_key: bytes
    server_key: bytes

    def matches(self, password: bytes) -> bool:
        """Whether this is the password, as a client sent it.  Slow; lets go of the interpreter lock while it computes."""
        stored_key, _ = _keys(prepare.password(password), self.salt, self.iterations)
        return hmac.compare_digest(stored_key, self.stored_key)

    def __str__(self) -> str:
        salt, stored_key, server_key = (base64.b64encode(octets).decode() for octets in self[1:])
        return f"{{SCRAM-SHA-256}}{self.iterations},{salt},{stored_key},{server_key}"

    def __repr__(self) -> str:
        return f"<SCRAM-SHA-256, {self.iterations} iterations>"


class Plain(NamedTuple):
    """The password itself, prepared."""

    password: bytes

    def matches(self, password: bytes) -> bool:
        return hmac.compare_digest(prepare.password(password), self.password)

    def __repr__(self) -> str:
        return "<plain password>"


Verifier = Scram | Plain


def make(password: bytes, *, iterations: int = ITERATIONS) -> Scram:
    """A new verifier with a salt of its own.  Takes as long as verifying."""
    salt = os.urandom(16)
    stored_key, server_key = _keys(prepare.password(password), salt, iterations)
    return Scram(iterations, salt, stored_key, server_key)


def verify(verifier: Verifier | None, password: bytes, iterations: int) -> bool:
    """
    Whether it is the password; when it is not, at the cost of this many iterations in all.

    So the time that a refusal takes tells neither whether there is an account nor how its password is kept.

    @param verifier: None for an account that nobody has.
    @param iterations: no fewer than any verifier's that this one could be taken for.
    """
    if verifier is not None and verifier.matches(password):
        return True
    owed = iterations - (verifier.iterations if isinstance(verifier, Scram) else 0)
    if owed > 0:
        hashlib.pbkdf2_hmac("sha256", prepare.password(password), bytes(16), owed)
    return False


def parse(text: str) -> Verifier:
    """
    @param text: `{SCHEME}value`, the scheme in any case.
    @raise ValueError: in words for the operator, without the value.
    """
    match = _SCHEME.fullmatch(text)
    if match is None:
        raise ValueError("the password has no {SCHEME} before it")
    scheme, value = match[1].upper(), match[2]
    if scheme == "SCRAM-SHA-256":
        return _scram(value)
    if scheme == "PLAIN":
        if not value:
            raise ValueError("the password is empty")
        return Plain(prepare.password(value.encode()))
    raise ValueError(f"the scheme {{{scheme}}} is not known; {{SCRAM-SHA-256}} and {{PLAIN}} are")


def _scram(value: str) -> Scram:
    try:
        count, *rest = value.split(",")
        salt, stored_key, server_key = (base64.b64decode(part, validate=True) for part in rest)
        iterations = int(count) if count.isascii() and count.isdigit() else 0
    except (ValueError, binascii.Error):
        raise ValueError("{SCRAM-SHA-256} wants iterations,salt,stored-key,server-key in base64") from None
    if not 1 <= iterations <= _MOST_ITERATIONS:
        raise ValueError(f"{{SCRAM-SHA-256}} wants 1 to {_MOST_ITERATIONS} iterations")
    if not salt or len(stored_key) != 32 or len(server_key) != 32:
        raise ValueError("{SCRAM-SHA-256} wants a salt and two keys of 32 octets")
    return Scram(iterations, salt, stored_key, server_key)


def _keys(password: bytes, salt: bytes, iterations: int) -> tuple[bytes, bytes]:
    """StoredKey and ServerKey (RFC 5802 3)."""
    salted = hashlib.pbkdf2_hmac("sha256", password, salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    return hashlib.sha256(client_key).digest(), hmac.digest(salted, b"Server Key", "sha256")
