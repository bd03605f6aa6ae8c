"""The realm: from an avatar id to the avatar of the kind that is asked for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from twisted.cred.portal import IRealm
from twisted.internet.defer import Deferred
from zope.interface import Interface, implementer

from mailhost.cred.discreet import octets
from mailhost.envelope import Client

AvatarFactory = Callable[[bytes | None, Client], Awaitable[tuple[Any, Callable[[], Any]]]]
"""From an account (None for an anonymous login) and its client to the avatar, and what ends its login."""

_NOBODY = Client(session="", host="", port=0, listener="", protocol="")


class Logout:
    """What ends a login, and whose it is: a portal's answer does not say that otherwise."""

    __slots__ = ("_end", "account")

    def __init__(self, account: bytes | None, end: Callable[[], Any]) -> None:
        self.account = account
        self._end = end

    def __call__(self) -> Any:
        return self._end()


@implementer(IRealm)
class MailRealm:
    """One realm for all protocols: each kind of avatar is made by a factory of its own."""

    def __init__(self, avatars: Mapping[type[Interface], AvatarFactory]) -> None:
        """
        @param avatars: from an avatar's interface (IDelivery, IMaildrop) to what makes one.  A factory may wait, as for a
            maildrop's lock, and may raise a Refusal.
        """
        self._avatars = dict(avatars)

    def requestAvatar(
        self, avatarId: bytes | str | tuple[()], mind: object, *interfaces: type[Interface]
    ) -> Deferred[tuple[type[Interface], object, Callable[[], None]]]:
        """
        @param avatarId: octets, ANONYMOUS, or text where a portal that is not ours has a checker that gives text.
        @param mind: a Client; protocols that are not ours have none, and get an avatar all the same.
        """
        account = octets(avatarId) if isinstance(avatarId, bytes | str) else None
        for interface in interfaces:
            factory = self._avatars.get(interface)
            if factory is not None:
                client = mind if isinstance(mind, Client) else _NOBODY
                return Deferred.fromCoroutine(_made(factory, account, client._replace(account=account), interface))
        raise NotImplementedError("no avatar of any such kind")


async def _made(
    factory: AvatarFactory, account: bytes | None, client: Client, interface: type[Interface]
) -> tuple[type[Interface], object, Callable[[], None]]:
    avatar, end = await factory(account, client)
    return interface, avatar, Logout(account, end)
