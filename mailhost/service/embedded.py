"""
A host from values and objects, as an application has it among its own services: what `mailhost.embed` calls MailHost.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Self

from twisted.application.service import Service
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress

from mailhost.cred.chain import build_portal
from mailhost.cred.realm import AvatarFactory
from mailhost.events import Observer
from mailhost.interfaces import IAddressBook, ISpool
from mailhost.limits import Limits
from mailhost.service.assemble import MAIL_IN, Assembly, Given
from mailhost.service.awaiting import called, here
from mailhost.service.config import Config, ConfigError, from_document
from mailhost.service.host import MailHost as Host
from mailhost.service.messages import Messages, maildrops_of
from mailhost.service.observers import to_twisted
from mailhost.service.receiving import Receive, Recipient, delivery_of


class MailHost(Service):
    """
    A mail host among an application's services.  Whatever is not given is as in a configuration file that does not say it.

    It raises what is wrong: ConfigError and CertificateError when it starts, CannotListen for a port, and `when_ready` fails with what
    becomes known later.  It installs no signal handlers, and logs through `twisted.logger` unless an observer is given.
    """

    def __init__(
        self,
        *,
        hostname: str,
        domains: Sequence[str] = (),
        spool: ISpool | str | None = None,
        checkers: Sequence[ICredentialsChecker] = (),
        portal: Portal | None = None,
        realm: IRealm | None = None,
        address_book: IAddressBook | None = None,
        delivery: AvatarFactory | None = None,
        maildrop: AvatarFactory | type[Messages] | None = None,
        recipient: Recipient | None = None,
        receive: Receive | None = None,
        aliases: Mapping[str, Sequence[str]] | None = None,
        catch_all: Mapping[str, str] | None = None,
        postmaster: str | None = None,
        certificate: str | None = None,
        private_key: str | None = None,
        limits: Limits | None = None,
        observer: Observer | None = None,
        reactor: Any = None,
    ) -> None:
        """
        @param domains: whose mail is kept; the host's own name unless given.
        @param spool: an object, or text as in the configuration, such as `log:/var/lib/shop/mail`.  It can be left out where `delivery`
            and `maildrop`, or a portal, take its place.
        @param checkers: tried in order; one that provides IAccounts also says who exists, unless there is an `address_book`.
        @param portal: instead of checkers and all that follows: its realm gives IDelivery and IMaildrop avatars.
        @param realm: the same realm without a portal: it is asked behind the checkers.
        @param delivery: instead of delivery into the spool: `async def (account, client)` to an IDelivery and its logout.
        @param maildrop: instead of the spool's maildrops: the same for IMaildrop, or a subclass of Messages.
        @param recipient: with `receive`: `async def (forward_path)`, at RCPT, which raises NoSuchMaildrop for whom it does not know.
        @param receive: instead of `delivery`: `async def (envelope, content)`, and 250 is sent when it has returned.
        @param certificate: path of a PEM file, with `private_key` the path of its key; read again when they change.
        @param reactor: the installed one, which is the default; TLS schedules on that.
        """
        if delivery is not None:
            delivery = partial(called, delivery)
        if maildrop is not None and not isinstance(maildrop, type):
            maildrop = partial(called, maildrop)
        self._realm = realm
        self._receive = receive
        self._recipient = recipient
        self._messages = maildrop if isinstance(maildrop, type) else None
        self._given = Given(
            spool=None if isinstance(spool, str) else spool,
            checkers=checkers,
            portal=portal,
            address_book=address_book,
            delivery=delivery,
            maildrop=None if isinstance(maildrop, type) else maildrop,
        )
        self._document: dict[str, Any] = {
            "hostname": hostname,
            "domains": [*(domains or [hostname])],
            "spool": spool if isinstance(spool, str) else "memory:",
            "checkers": [],
            "aliases": {name: [*targets] for name, targets in (aliases or {}).items()},
            "catch_all": {**(catch_all or {})},
            "limits": asdict(limits or Limits()),
            "listen": [],
            **({} if postmaster is None else {"postmaster": postmaster}),
            **({} if certificate is None else {"tls": {"certificate": certificate, "private_key": private_key}}),
        }
        self._has_spool = spool is not None
        self._observer = observer
        self._reactor = reactor
        self._host: Host | None = None

    def listen(
        self,
        protocol: str,
        endpoint: str,
        *,
        tls: str | None = None,
        plaintext_login: bool = False,
        name: str = "",
    ) -> None:
        """
        Listen at one more endpoint, from the start on.

        @param protocol: `smtp`, `submission`, `lmtp` or `pop3`.
        @param endpoint: a Twisted server endpoint string.
        @param tls: `none`, `starttls` or `implicit`; `starttls` where there is a certificate, unless given.
        @param plaintext_login: take passwords before TLS, for loopback.
        @param name: how `addresses` and the log call it; protocol and port unless given.
        """
        if self._host is not None:
            raise RuntimeError("listen() comes before the start")
        self._document["listen"].append(
            {
                "protocol": protocol,
                "endpoint": endpoint,
                "tls": tls or ("starttls" if "tls" in self._document else "none"),
                "plaintext_login": plaintext_login,
                "name": name,
            }
        )

    @property
    def addresses(self) -> Mapping[str, IAddress]:
        """Where each listener listens, by name, while the service runs: the port behind `tcp:0`."""
        return {listener.door.name: listener.address for listener in self._made().listeners}

    def when_ready(self) -> Deferred[None]:
        """Fires when connections are accepted; fails with what ended the start."""
        return self._made().when_ready()

    def privilegedStartService(self) -> None:
        super().privilegedStartService()
        self._made().privilegedStartService()

    def startService(self) -> None:
        super().startService()
        self._made().startService()

    def stopService(self) -> Deferred[None]:
        """Fires when sessions have ended, all that was taken is durable, and every port is free."""
        super().stopService()
        return self._made().stopService()

    async def __aenter__(self) -> Self:
        """Start, and wait until connections are accepted; in a coroutine of Twisted's or of asyncio's."""
        try:
            self.startService()
            await here(self.when_ready())
        except BaseException:
            await here(self.stopService())
            raise
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Stop, and wait for the end."""
        await here(self.stopService())

    def _made(self) -> Host:
        """@raise ConfigError: values that cannot be used, or parts that do not fit together."""
        if self._host is None:
            config = from_document(self._document, source="MailHost", directory=os.getcwd())
            reactor = self._reactor or _installed_reactor()
            observer = self._observer or to_twisted()
            given = self._all_given(config, reactor, observer)
            _check_spool(config, given, has_spool=self._has_spool)
            self._host = Assembly(reactor=reactor, observer=observer, given=given).host(config)
        return self._host

    def _all_given(self, config: Config, reactor: Any, observer: Observer) -> Given:
        """With the parts that need a reactor."""
        given = self._given
        limited: Any = {"reactor": reactor, "limits": config.limits, "observer": observer}
        if self._receive is not None:
            given = replace(given, delivery=delivery_of(self._receive, self._recipient, **limited))
        if self._messages is not None:
            given = replace(given, maildrop=maildrops_of(self._messages, **limited))
        if self._realm is not None and given.portal is None:
            given = replace(given, portal=build_portal(self._realm, given.checkers or (), observer))
        return given


def _check_spool(config: Config, given: Given, *, has_spool: bool) -> None:
    """Mail that was accepted must be somewhere."""
    if has_spool or given.portal is not None:
        return
    for listen in config.listen:
        part = "delivery" if listen.protocol in MAIL_IN else "maildrop"
        if getattr(given, part) is None:
            raise ConfigError(f"MailHost: {listen.protocol} needs a spool, or {part}= in its place")


def _installed_reactor() -> Any:
    from twisted.internet import reactor

    return reactor
