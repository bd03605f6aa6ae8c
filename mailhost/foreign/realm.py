"""
A realm made of somebody's: its IMessageDelivery and IMailboxPOP3 avatars serve our sessions.

With it the portal of an application that was written for twisted.mail can be given to a mail host as it is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from twisted.cred.portal import IRealm
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.mail.interfaces import IMailboxPOP3, IMessageDelivery, IMessageDeliveryFactory
from zope.interface import Interface, implementer

from mailhost.events import Observer, unobserved
from mailhost.foreign.delivery import delivery_from_twisted
from mailhost.foreign.maildrop import maildrop_from_twisted
from mailhost.interfaces import IDelivery, IMaildrop
from mailhost.limits import Limits

_Avatar = tuple[type[Interface], Any, Callable[[], Any]]

_THEIRS: dict[type[Interface], tuple[type[Interface], ...]] = {
    IDelivery: (IMessageDeliveryFactory, IMessageDelivery),
    IMaildrop: (IMailboxPOP3,),
}


def realm_from_twisted(
    realm: IRealm,
    *,
    hostname: str,
    reactor: IReactorTime,
    limits: Limits | None = None,
    observer: Observer = unobserved,
    sizes_are_exact: bool = False,
) -> IRealm:
    """
    @param realm: asked for our interfaces too, first; an avatar that provides one of them is given on as it is.
    @param hostname: see `delivery_from_twisted`.
    @param sizes_are_exact: see `maildrop_from_twisted`.
    """
    maildrop = partial(
        maildrop_from_twisted, reactor=reactor, limits=limits, observer=observer, sizes_are_exact=sizes_are_exact
    )
    delivery = partial(delivery_from_twisted, hostname=hostname, reactor=reactor, limits=limits, observer=observer)
    return _Realm(realm, maildrop, delivery)


@implementer(IRealm)
class _Realm:
    def __init__(
        self, realm: IRealm, maildrop: Callable[[Any], Awaitable[IMaildrop]], delivery: Callable[[Any], IDelivery]
    ) -> None:
        self._realm = realm
        self._maildrop = maildrop
        self._delivery = delivery

    def requestAvatar(
        self, avatarId: bytes | tuple[()], mind: object, *interfaces: type[Interface]
    ) -> Deferred[_Avatar]:
        theirs = [their for our in interfaces for their in _THEIRS.get(our, ())]
        return Deferred.fromCoroutine(self._request(avatarId, mind, (*interfaces, *theirs)))

    async def _request(
        self, avatarId: bytes | tuple[()], mind: object, interfaces: tuple[type[Interface], ...]
    ) -> _Avatar:
        answer: Any = await maybeDeferred(self._realm.requestAvatar, avatarId, mind, *interfaces)
        interface, avatar, logout = answer
        try:
            return (*await self._adapted(interface, avatar), logout)
        except BaseException:  # cancelled, too: nobody else will log out
            logout()
            raise

    async def _adapted(self, interface: type[Interface], avatar: Any) -> tuple[type[Interface], Any]:
        if interface is IMailboxPOP3:
            return IMaildrop, await self._maildrop(avatar)
        if interface in _THEIRS[IDelivery]:
            return IDelivery, self._delivery(avatar)
        return interface, avatar
