"""
A login: one portal, for one kind of avatar, as sessions want it.

What twisted.cred can answer becomes one of a few refusals.  The portal's own work is never cancelled: a realm that was cancelled
between taking a maildrop's lock and saying so would hold it for ever.  So a session that goes away, or a limit that passes, only
lets go of the answer, and an avatar that comes after all is logged out on the spot.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.cred.credentials import IAnonymous, IUsernameHashedPassword, IUsernamePassword
from twisted.cred.error import UnauthorizedLogin, UnhandledCredentials
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import Interface, implementer

from mailhost import events
from mailhost.cred.discreet import discreet, octets
from mailhost.cred.throttle import Throttle
from mailhost.envelope import Client
from mailhost.events import Observer, unobserved
from mailhost.interfaces import ILoggedIn, ILogin
from mailhost.limits import Limits
from mailhost.refusal import LoginFailed, LoginUnavailable, LoginUnsupported, Refusal, TookTooLong


@implementer(ILogin)
class Login:
    """Logs clients in, slows guessing and says what happened."""

    def __init__(
        self,
        portal: Portal,
        interface: type[Interface],
        *,
        reactor: IReactorTime,
        observer: Observer = unobserved,
        throttle: Throttle | None = None,
        limits: Limits | None = None,
    ) -> None:
        """
        @param portal: as `chain.build_portal` makes it, or any other.
        @param interface: the avatars' kind: IDelivery or IMaildrop.
        @param throttle: one for all logins of a process; None gives this one its own.
        """
        self._portal = portal
        self._interface = interface
        self._reactor = reactor
        self._observer = observer
        self._throttle = throttle if throttle is not None else Throttle(reactor)
        self._limits = limits if limits is not None else Limits()

    def mechanisms(self, protected: bool) -> Sequence[bytes]:
        if protected and IUsernamePassword in self._portal.listCredentialsInterfaces():
            return (b"PLAIN", b"LOGIN")
        return ()

    def takes_digests(self) -> bool:
        return IUsernameHashedPassword in self._portal.listCredentialsInterfaces()

    async def log_in(self, credentials: Any, client: Client) -> ILoggedIn:
        if IAnonymous.providedBy(credentials):
            return await self._shielded(self._admitted(credentials, client), lambda: None)
        account = (_username(credentials) or b"")[:255]
        try:
            await self._throttle.turn(account, client.host)
        except Refusal as refusal:
            self._refused(refusal, account, client)
            raise
        attempt = self._judged(credentials, account, client)
        return await self._shielded(attempt, lambda: self._refused(TookTooLong(), account, client))

    async def _judged(self, credentials: Any, account: bytes, client: Client) -> _LoggedIn:
        """One attempt that is counted and reported, whoever still waits for it."""
        try:
            logged_in = await self._admitted(credentials, client)
        except Refusal as refusal:
            if isinstance(refusal, LoginFailed):
                self._throttle.failed(account, client.host)
            self._refused(refusal, account, client)
            raise
        self._throttle.succeeded(account, client.host)
        self._observer(events.LoggedIn(client._replace(account=logged_in.account)))
        return logged_in

    async def _admitted(self, credentials: Any, client: Client) -> _LoggedIn:
        """Ask the portal.  @raise Refusal: and nothing else, whatever it raised."""
        # There are directories that take an empty password for an anonymous login, and say yes (RFC 4513 5.1.2).
        if getattr(credentials, "password", None) in (b"", ""):
            raise LoginFailed(cause="empty password")
        try:
            _, avatar, logout = await self._portal.login(credentials, client, self._interface)
        except Refusal:
            raise
        except UnauthorizedLogin:
            raise LoginFailed from None
        except UnhandledCredentials:
            raise LoginUnsupported from None
        except Exception as error:
            raise LoginUnavailable(cause=discreet(error, credentials)) from None
        return _LoggedIn(_account_of(logout, credentials), avatar, logout, self._observer, client)

    async def _shielded(self, attempt: Any, too_late: Callable[[], None]) -> _LoggedIn:
        """Wait for an attempt as long as `lookup_seconds` and the waiter allow; the attempt itself goes on to its end."""
        waiting: Deferred[_LoggedIn] = Deferred()
        Deferred.fromCoroutine(attempt).addBoth(_hand_over, waiting)

        def out_of_time(_: object, seconds: float) -> _LoggedIn:
            too_late()
            raise LoginUnavailable(cause=f"no answer in {seconds:g} seconds")

        if not waiting.called:
            waiting.addTimeout(self._limits.lookup_seconds, self._reactor, out_of_time)
        return await waiting

    def _refused(self, refusal: Refusal, account: bytes, client: Client) -> None:
        self._observer(events.LoginRefused(client, account, type(refusal).__name__, refusal.cause))


@implementer(ILoggedIn)
class _LoggedIn:
    """An avatar, and the one chance to end its login."""

    __slots__ = ("_client", "_logout", "_observer", "account", "avatar")

    def __init__(
        self,
        account: bytes | None,
        avatar: Any,
        logout: Callable[[], Any],
        observer: Observer,
        client: Client,
    ) -> None:
        self.account = account
        self.avatar = avatar
        self._logout: Callable[[], Any] | None = logout
        self._observer = observer
        self._client = client

    def log_out(self) -> None:
        logout, self._logout = self._logout, None
        if logout is not None:
            # A realm's own logout may raise, or return a Deferred.
            maybeDeferred(logout).addErrback(self._bug)

    def _bug(self, failure: Failure) -> None:
        assert failure.value is not None
        self._observer(events.Bug("logout", failure.value, self._client))


def _hand_over(result: _LoggedIn | Failure, waiting: Deferred[_LoggedIn]) -> None:
    """Give an attempt's result to who waits; when nobody does any more, end the login that nobody wants."""
    if not waiting.called:
        waiting.callback(result)  # a Failure goes down the errbacks, as it does from any callback
    elif isinstance(result, _LoggedIn):
        result.log_out()


def _account_of(logout: object, credentials: Any) -> bytes | None:
    """The avatar id, which a portal does not tell: our realm's logout knows it; with another realm the user name has to do."""
    if hasattr(logout, "account"):
        account: bytes | None = logout.account
        return account
    return _username(credentials)


def _username(credentials: Any) -> bytes | None:
    """None for a kind without names, or before a challenge was answered."""
    username = getattr(credentials, "username", None)
    return octets(username) if username is not None else None
