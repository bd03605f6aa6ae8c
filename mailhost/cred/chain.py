"""
Several checkers behind one portal.

A `Portal` keeps one checker for each credentials interface, and the last one registered wins.  Here each interface gets one checker
that asks all of them in the operator's order.  Checkers nobody here wrote are asked as they are: they may raise at once, return an
avatar id, a Deferred or a coroutine, and give text where octets are due.  One that never answers is the business of
`login.Login`, which has a limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

from twisted.cred.checkers import (
    AllowAnonymousAccess,
    ICredentialsChecker,
    InMemoryUsernamePasswordDatabaseDontUse,
)
from twisted.cred.credentials import IAnonymous
from twisted.cred.error import UnauthorizedLogin, UnhandledCredentials
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from zope.interface import Interface, implementer

from mailhost.cred.discreet import discreet, octets
from mailhost.events import Observer, Trouble, unobserved
from mailhost.refusal import LoginFailed


def build_portal(realm: IRealm, checkers: Iterable[ICredentialsChecker], observer: Observer = unobserved) -> Portal:
    """
    A portal that asks each checker, in this order, for every credentials interface it offers.

    Anonymous credentials always pass: a listener tries them for strangers that bring mail, never because a client wants to.

    @param observer: hears of checkers that failed where another said yes.
    """
    offered: dict[type[Interface], list[ICredentialsChecker]] = {}
    for checker in map(_with_octets, checkers):
        for interface in checker.credentialInterfaces:
            offered.setdefault(interface, []).append(checker)
    portal = Portal(realm)
    for interface, several in offered.items():
        portal.registerChecker(ChainChecker(several, observer), interface)
    portal.registerChecker(AllowAnonymousAccess(), IAnonymous)
    return portal


@implementer(ICredentialsChecker)
class ChainChecker:
    """
    One checker made of several, asked in order until one says yes.

    "No" (UnauthorizedLogin, UnhandledCredentials) passes on to the next.  Any other error does too, but is remembered: when nobody
    says yes it is the outcome, since the checker that failed might have said it, and so the refusal has to be temporary.
    """

    def __init__(self, checkers: Sequence[ICredentialsChecker], observer: Observer = unobserved) -> None:
        self._checkers = tuple(checkers)
        self._observer = observer
        self.credentialInterfaces = tuple(
            dict.fromkeys(interface for checker in self._checkers for interface in checker.credentialInterfaces)
        )

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes | tuple[()]]:
        return Deferred.fromCoroutine(self._first_yes(credentials))

    async def _first_yes(self, credentials: Any) -> bytes | tuple[()]:
        failed: list[tuple[ICredentialsChecker, Exception]] = []
        for checker in self._checkers:
            try:
                avatar_id = _avatar_id(await maybeDeferred(checker.requestAvatarId, credentials))
            except (UnauthorizedLogin, UnhandledCredentials, LoginFailed):
                continue
            except CancelledError:
                raise
            except Exception as error:
                failed.append((checker, error))
                continue
            self._report(failed, credentials)
            return avatar_id
        raise failed[0][1] if failed else UnauthorizedLogin()

    def _report(self, failed: list[tuple[ICredentialsChecker, Exception]], credentials: Any) -> None:
        """What a login that succeeded all the same would hide; where none does, its outcome says it."""
        for checker, error in failed:
            self._observer(Trouble(f"{type(checker).__name__} could not answer", discreet(error, credentials)))


def _avatar_id(answer: object) -> bytes:
    """
    What a checker gave, as octets.

    @raise TypeError: neither octets nor text, or empty.  Among these is ANONYMOUS, which must not come of a password.
    """
    if not isinstance(answer, bytes | str) or not answer:
        raise TypeError(f"an avatar id must be octets, not {type(answer).__name__}")
    return octets(answer)


def _with_octets(checker: ICredentialsChecker) -> ICredentialsChecker:
    if isinstance(checker, InMemoryUsernamePasswordDatabaseDontUse):
        return cast(ICredentialsChecker, _InMemory(checker))
    return checker


@implementer(ICredentialsChecker)
class _InMemory:
    """
    Twisted's database in memory, however it was filled.

    `--auth memory:ann:secret` fills it with text, which no octets that a client sends are ever equal to.
    """

    def __init__(self, database: InMemoryUsernamePasswordDatabaseDontUse) -> None:
        self._users = database.users  # not a copy: users may be added later
        self.credentialInterfaces = database.credentialInterfaces

    def requestAvatarId(self, credentials: Any) -> Any:
        name = octets(credentials.username)
        users: dict[Any, Any] = self._users
        password = users.get(name, users.get(name.decode("utf-8", "surrogateescape")))
        one = InMemoryUsernamePasswordDatabaseDontUse()
        if password is not None:
            one.addUser(credentials.username, octets(password))
        return one.requestAvatarId(credentials)
