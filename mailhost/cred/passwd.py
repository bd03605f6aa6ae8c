"""
A checker of passwords from a file, and the list of those who live here (the file's form: `passwd_format`).

Every login sees the file as it is at that moment.  Hashing and all reading happen in threads: those that the host hands in, or else
the installed reactor's, so that the checker works in any program that takes strcred checkers.

An unknown account and a wrong password take the same: every refusal costs as many iterations as the dearest account here.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import time
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, DeferredSemaphore, succeed
from twisted.internet.threads import deferToThread
from zope.interface import Interface, implementer

from mailhost.cred import passwd_format, prepare, scram
from mailhost.cred.discreet import octets
from mailhost.cred.watched import InThread, WatchedFile
from mailhost.events import Notice, Observer, Trouble, unobserved
from mailhost.interfaces import IAccounts, IAccountTerms, IQuotas
from mailhost.limits import OwnTerms, Quota
from mailhost.refusal import LoginUnavailable

# At 35 ms each these are verified within a session's patience; who comes after them is told to try again.
_MOST_WAITING = 500


@implementer(ICredentialsChecker, IAccounts, IQuotas, IAccountTerms)
class PasswdChecker:
    """Checks user names and passwords against a `passwd` file."""

    def __init__(
        self,
        path: str,
        *,
        in_thread: InThread = deferToThread,
        observer: Observer = unobserved,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Reads the file at once.

        @param in_thread: calls a function in a thread, as `deferToThread` does.
        @param seconds: a clock that is never set back.
        @raise OSError: the file cannot be read.
        @raise BrokenLine: a line of it is wrong; none of the file counts then.
        """
        self.path = os.path.abspath(path)
        self._file = WatchedFile(self.path, partial(passwd_format.parse, self.path), in_thread, seconds)
        self._file.changed = self._changed
        self._file.troubled = self._troubled
        self._hashing = DeferredSemaphore(max(1, (os.cpu_count() or 1) - 1))
        # A client that polls does not cost a PBKDF2 each time.  What is kept is worth nothing without this process's memory.
        self._key = os.urandom(32)
        self._verified: dict[str, tuple[scram.Verifier, bytes]] = {}
        self._iterations = self._dearest()
        self._kinds_of_terms = self._terms_there_are()
        self.has_quotas = self._some_have_quotas()
        self._observer = observer
        self._warn_of_mode()

    def use(self, *, in_thread: InThread, observer: Observer) -> None:
        """The host's own threads and observer, for a checker that strcred made without them."""
        self._file.in_thread = in_thread
        self._observer = observer
        self._warn_of_mode()

    async def reload(self) -> None:
        """
        Look at the file now, for who was told that it has changed.

        @raise OSError: or BrokenLine; the accounts are those of before.
        """
        await self._file.look()
        if self._file.trouble is not None:
            raise self._file.trouble

    # -- ICredentialsChecker

    @property
    def credentialInterfaces(self) -> tuple[type[Interface], ...]:
        """Digests of passwords can be checked where passwords are plain."""
        plain = any(isinstance(account.verifier, scram.Plain) for account in self._file.value.values())
        return (IUsernamePassword, IUsernameHashedPassword) if plain else (IUsernamePassword,)

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes | tuple[()]]:
        if IUsernameHashedPassword.providedBy(credentials) and not IUsernamePassword.providedBy(credentials):
            return Deferred.fromCoroutine(self._check_digest(credentials))
        name, password = prepare.name_of(octets(credentials.username)), octets(credentials.password)
        look = self._file.look_is_due()
        if not look and self._is_right_at_once(name, password):
            return succeed(_avatar_id(name))
        return Deferred.fromCoroutine(self._check(name, password, look))

    async def _check(self, name: str, password: bytes, look: bool) -> bytes | tuple[()]:
        if look:
            await self._file.look()
        if self._is_right_at_once(name, password):
            return _avatar_id(name)
        account = self._file.value.get(name)
        verifier = account.verifier if account is not None else None
        right = await self._verify(verifier, password)
        # The file may have changed while this one waited for its turn to be hashed.
        account = self._file.value.get(name)
        if not right or account is None or account.verifier != verifier:
            raise UnauthorizedLogin
        self._verified[name] = account.verifier, self._digest(name, password)
        return _avatar_id(name)

    def _is_right_at_once(self, name: str, password: bytes) -> bool:
        """Whether a password is known to be right without hashing; false says nothing."""
        account = self._file.value.get(name)
        if account is None:
            return False
        if isinstance(account.verifier, scram.Plain):
            return account.verifier.matches(password)
        verified = self._verified.get(name)
        if verified is None or verified[0] != account.verifier:
            return False
        return hmac.compare_digest(verified[1], self._digest(name, password))

    async def _check_digest(self, credentials: Any) -> bytes | tuple[()]:
        name = prepare.name_of(octets(credentials.username))
        if self._file.look_is_due():
            await self._file.look()
        account = self._file.value.get(name)
        verifier = account.verifier if account is not None else None
        # Who is not there, or has a verifier that tells no password, is answered as a wrong digest is.
        password = verifier.password if isinstance(verifier, scram.Plain) else self._key
        if not credentials.checkPassword(password) or not isinstance(verifier, scram.Plain):
            raise UnauthorizedLogin
        return _avatar_id(name)

    async def _verify(self, verifier: scram.Verifier | None, password: bytes) -> bool:
        if not self._iterations:  # plain passwords and nothing else
            return scram.verify(verifier, password, 0)
        if len(self._hashing.waiting) >= _MOST_WAITING:
            raise LoginUnavailable(cause="too many passwords wait to be verified")
        right: bool = await self._hashing.run(self._file.in_thread, scram.verify, verifier, password, self._iterations)
        return right

    def _digest(self, name: str, password: bytes) -> bytes:
        return hashlib.blake2b(_avatar_id(name) + b"\0" + password, key=self._key, digest_size=32).digest()

    # -- IAccounts

    async def has_account(self, address: str) -> bool:
        name = prepare.name(address)
        if name in self._file.value:
            self._file.look_soon()
            return True
        if self._file.look_is_due():
            await self._file.look()
        return name in self._file.value

    # -- IQuotas

    async def quota(self, address: str) -> Quota | None:
        account = self._file.value.get(prepare.name(address))
        return account.quota if account is not None else None

    # -- IAccountTerms

    async def terms(self, address: str) -> OwnTerms:
        account = self._file.value.get(prepare.name(address))
        return account.terms if account is not None else {}

    def kinds_of_terms(self) -> Collection[OwnTerms]:
        return self._kinds_of_terms

    # -- the file

    def _changed(self) -> None:
        accounts = self._file.value
        self._verified = {name: verified for name, verified in self._verified.items() if name in accounts}
        self._iterations = self._dearest()
        self._kinds_of_terms = self._terms_there_are()
        self.has_quotas = self._some_have_quotas()
        self._observer(Notice(f"{self.path} read again, {len(accounts)} accounts"))
        self._warn_of_mode()

    def _some_have_quotas(self) -> bool:
        return any(account.quota is not None for account in self._file.value.values())

    def _terms_there_are(self) -> Collection[OwnTerms]:
        kinds = {tuple(account.terms.items()) for account in self._file.value.values() if account.terms}
        return [dict(kind) for kind in kinds]

    def _dearest(self) -> int:
        """How many iterations a refusal costs; a file without accounts gives nothing away either."""
        verifiers = [account.verifier for account in self._file.value.values()]
        if not verifiers:
            return scram.ITERATIONS
        return max(verifier.iterations if isinstance(verifier, scram.Scram) else 0 for verifier in verifiers)

    def _troubled(self, error: Exception) -> None:
        self._observer(Trouble(f"{self.path} cannot be read; its accounts stay as they were", error))

    def _warn_of_mode(self) -> None:
        if self._file.mode & 0o007:
            self._observer(Trouble(f"{self.path} is open to every user of this machine; chmod 0640 or less"))


def _avatar_id(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
