"""Digests of passwords, as APOP's: checked where passwords are plain."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Any

import pytest
from twisted.cred.credentials import CramMD5Credentials, IUsernameHashedPassword, IUsernamePassword, UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, execute
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailhost.cred import scram
from mailhost.cred.passwd import PasswdChecker


def at_once(function: Callable[..., Any], *given: Any) -> Deferred[Any]:
    """In place of a thread."""
    return execute(function, *given)


SCRAM = str(scram.make(b"secret", iterations=4096))


@implementer(IUsernameHashedPassword)
class Digest:
    """What APOP makes."""

    def __init__(self, username: bytes, password: bytes) -> None:
        self.username = username
        self._digest = hashlib.md5(b"<stamp>" + password).digest()

    def checkPassword(self, password: bytes) -> bool:
        return hashlib.md5(b"<stamp>" + password).digest() == self._digest


class DigestTests(SynchronousTestCase):
    def checker(self, *lines: str) -> PasswdChecker:
        path = self.mktemp()
        with open(path, "w") as file:
            file.write("\n".join(lines))
        return PasswdChecker(path, in_thread=at_once)

    def ask(self, checker: PasswdChecker, credentials: Any) -> bytes:
        avatar_id: bytes = self.successResultOf(checker.requestAvatarId(credentials))
        return avatar_id

    def test_right_and_wrong(self) -> None:
        """A plain password's digest is checked, in any spelling of the name."""
        checker = self.checker("ann@example.test:{PLAIN}secret", f"bob@example.test:{SCRAM}")
        assert self.ask(checker, Digest(b"ANN@example.test", b"secret")) == b"ann@example.test"
        for username, password in ((b"ann@example.test", b"Secret"), (b"bob@example.test", b"secret"), (b"eve", b"")):
            self.failureResultOf(checker.requestAvatarId(Digest(username, password)), UnauthorizedLogin)

    def test_twisteds_own(self) -> None:
        """CRAM-MD5's credentials are of the same interface."""
        checker = self.checker("ann@example.test:{PLAIN}secret")
        credentials = CramMD5Credentials(b"localhost")
        challenge = credentials.getChallenge()
        response = hmac.new(b"secret", challenge, "md5").hexdigest().encode()
        credentials.setResponse(b"ann@example.test " + response)
        assert self.ask(checker, credentials) == b"ann@example.test"

    def test_offered_where_they_can_be_checked(self) -> None:
        """A file without a plain password offers none."""
        assert self.checker(f"bob@example.test:{SCRAM}").credentialInterfaces == (IUsernamePassword,)
        offered = self.checker("ann:{PLAIN}x", f"bob:{SCRAM}").credentialInterfaces
        assert offered == (IUsernamePassword, IUsernameHashedPassword)


@pytest.mark.parametrize("scheme", ["{PLAIN}secret", SCRAM])
def test_passwords_still_work(tmp_path: Any, scheme: str) -> None:
    """The interface of a password is asked first."""
    (tmp_path / "passwd").write_text(f"ann:{scheme}\n")
    checker = PasswdChecker(str(tmp_path / "passwd"), in_thread=at_once)
    found: list[object] = []
    checker.requestAvatarId(UsernamePassword(b"ann", b"secret")).addBoth(found.append)
    assert found == [b"ann"]
