"""
The wiring: which part is given to which.  `Assembly._wiring` and `_avatars`, read from top to bottom, are the diagram.

Everything that runs a host comes here: twistd's plugins, `mailhost run`, and applications by `mailhost.embed`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from zope.interface import Interface

from mailhost.cred.chain import build_portal
from mailhost.cred.login import Login
from mailhost.cred.passwd import PasswdChecker
from mailhost.cred.realm import AvatarFactory, MailRealm
from mailhost.cred.throttle import Throttle
from mailhost.delivery.address_book import AddressBook
from mailhost.delivery.avatar import delivery_avatars, maildrop_avatars
from mailhost.delivery.quota import Quotas
from mailhost.delivery.retention import Retention
from mailhost.delivery.terms import TermsBook
from mailhost.events import Observer, unobserved
from mailhost.interfaces import IAddressBook, IDelivery, ILogin, IMaildrop, ISpool
from mailhost.pop3 import texts
from mailhost.pop3.factory import POP3Factory
from mailhost.service.certificates import ServerCertificate
from mailhost.service.checkers import SeveralAccounts, accounts_of, make_checkers, quotas_of, terms_of
from mailhost.service.config import Config, ConfigError, Listen
from mailhost.service.host import MailHost, Wiring
from mailhost.service.listen import Door, SessionFactory
from mailhost.service.spools import make_spool
from mailhost.smtp.factory import LMTPFactory, SMTPFactory
from mailhost.wire.census import Census


class Spoken(NamedTuple):
    """A protocol: what makes its sessions, and which avatar they want of a login."""

    factory: Callable[..., SessionFactory]
    avatar: type[Interface]


PROTOCOLS: Mapping[str, Spoken] = {
    "smtp": Spoken(partial(SMTPFactory, protocol="smtp"), IDelivery),
    "submission": Spoken(partial(SMTPFactory, protocol="submission", auth=True), IDelivery),
    "lmtp": Spoken(LMTPFactory, IDelivery),
    "pop3": Spoken(POP3Factory, IMaildrop),
}
EVERYTHING = frozenset(PROTOCOLS)
MAIL_IN = frozenset(name for name, spoken in PROTOCOLS.items() if spoken.avatar is IDelivery)
MAIL_OUT = EVERYTHING - MAIL_IN


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """Parts that an application brings; None is made as the configuration says."""

    spool: ISpool | None = None
    checkers: Sequence[ICredentialsChecker] | None = None
    portal: Portal | None = None
    address_book: IAddressBook | None = None
    delivery: AvatarFactory | None = None
    """Makes IDelivery avatars."""
    maildrop: AvatarFactory | None = None
    """Makes IMaildrop avatars."""


class Assembly:
    """Makes a host of a configuration, and makes it anew, but for spool and ports, when that changes."""

    def __init__(
        self,
        *,
        reactor: Any,
        observer: Observer = unobserved,
        protocols: frozenset[str] = EVERYTHING,
        given: Given | None = None,
    ) -> None:
        """@param protocols: only their listeners are served."""
        self.observer = observer
        self._reactor = reactor
        self._protocols = protocols
        self._given = given or Given()
        self._throttle = Throttle(reactor)
        self._census = Census()

    def host(self, config: Config) -> MailHost:
        """
        Opens nothing but certificates and listens nowhere: that is for the service's start.

        @raise ConfigError: parts that do not fit together.
        @raise CertificateError: a certificate that cannot be used.
        """
        spool = self._given.spool or make_spool(config, reactor=self._reactor, observer=self.observer)
        wiring = self._wiring(config, spool, *self._read(config))
        self.config = config
        return MailHost(reactor=self._reactor, spool=spool, wiring=wiring, observer=self.observer)

    async def reload(self, host: MailHost, config: Config) -> list[str]:
        """
        Give a running host another configuration.

        @return: the keys that only another start can change.
        @raise Exception: as `host` does, and CannotListen, and what checkers raise; nothing has changed then.
        """
        unchanged = [key for key in ("spool", "workers", "log") if getattr(config, key) != getattr(self.config, key)]
        checkers, certificate = await self._in_thread(self._read, config)
        await host.change(self._wiring(config, host.spool, checkers, certificate))
        self.config = config
        return unchanged

    def _wiring(
        self, config: Config, spool: ISpool, checkers: Sequence[ICredentialsChecker], certificate: _Certificate
    ) -> Wiring:
        listeners = [listen for listen in config.listen if listen.protocol in self._protocols]
        if not listeners and config.listen:
            raise ConfigError(f"no [[listen]] is for {' or '.join(sorted(self._protocols))}")

        terms = _terms(config, checkers)
        portal = self._given.portal
        if portal is None:
            realm = MailRealm(self._avatars(config, listeners, spool, checkers, terms))
            portal = build_portal(realm, checkers, self.observer)
        avatars = {PROTOCOLS[listen.protocol].avatar for listen in listeners}
        logins = {avatar: self._login(portal, avatar, config) for avatar in avatars}
        doors = [
            self._door(listen, config, logins[PROTOCOLS[listen.protocol].avatar], certificate, terms)
            for listen in listeners
        ]
        return Wiring(doors, *self._lives(checkers, certificate, self._retention(config, spool, terms)))

    def _avatars(
        self,
        config: Config,
        listeners: Sequence[Listen],
        spool: ISpool,
        checkers: Sequence[ICredentialsChecker],
        terms: TermsBook,
    ) -> dict[type[Interface], AvatarFactory]:
        """What each kind of login gets: what was given, else our own over the spool and an address book."""
        given = {IDelivery: self._given.delivery, IMaildrop: self._given.maildrop}
        avatars = {interface: factory for interface, factory in given.items() if factory is not None}
        wanted = {PROTOCOLS[listen.protocol].avatar for listen in listeners} - avatars.keys()
        if not wanted:
            return avatars
        book = self._given.address_book or _address_book(config, checkers, mail_in=IDelivery in wanted)
        ours = {
            IDelivery: delivery_avatars(
                spool,
                book,
                hostname=config.hostname,
                clock=self._reactor,
                quotas=_quotas(config, checkers),
                limits=config.limits,
            ),
            IMaildrop: maildrop_avatars(
                spool,
                book,
                wait_seconds=config.limits.maildrop_wait_seconds,
                terms=terms,
                from_retrieval=config.pop3.expire_from == "retrieval",
                seconds=self._reactor.seconds,
            ),
        }
        return {**ours, **avatars}

    def _login(self, portal: Portal, interface: Any, config: Config) -> ILogin:
        return Login(
            portal,
            interface,
            reactor=self._reactor,
            observer=self.observer,
            throttle=self._throttle,
            limits=config.limits,
        )

    def _read(self, config: Config) -> tuple[Sequence[ICredentialsChecker], _Certificate]:
        """All that is read from files; in a thread while others are served."""
        checkers = self._given.checkers if self._given.checkers is not None else make_checkers(config)
        if config.tls is None:
            return checkers, None
        paths = config.path(config.tls.certificate), config.path(config.tls.private_key)
        return checkers, ServerCertificate(*paths, self.observer)

    def _retention(self, config: Config, spool: ISpool, terms: TermsBook) -> Retention:
        return Retention(
            spool,
            terms,
            reactor=self._reactor,
            from_retrieval=config.pop3.expire_from == "retrieval",
            observer=self.observer,
        )

    def _door(self, listen: Listen, config: Config, login: ILogin, certificate: _Certificate, terms: TermsBook) -> Door:
        implicit = listen.tls == "implicit"
        own = _of_pop3(config, terms) if listen.protocol == "pop3" else {}
        factory = PROTOCOLS[listen.protocol].factory(
            login=login,
            hostname=config.hostname,
            limits=listen.limits,
            observer=self.observer,
            clock=self._reactor,
            listener=listen.name,
            tls=certificate if listen.tls == "starttls" else None,
            implicit_tls=implicit,
            plaintext_login=listen.plaintext_login,
            **own,
        )
        factory.census = self._census
        return Door(listen.name, listen.endpoint, factory, certificate if implicit else None)

    def _lives(
        self, checkers: Sequence[ICredentialsChecker], certificate: _Certificate, retention: Retention
    ) -> tuple[list[_Call], list[_Call]]:
        """What to call at the start and at the end."""
        starting: list[_Call] = [retention.start]
        stopped: list[_Call] = [retention.stop]
        for checker in checkers:
            if isinstance(checker, PasswdChecker):
                checker.use(in_thread=self._in_thread, observer=self.observer)
                starting.append(checker.reload)
        if certificate is not None:
            starting.append(lambda: certificate.watch(self._reactor))
            stopped.append(certificate.unwatch)
        return starting, stopped

    def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), function, *arguments)


_Call = Callable[[], Awaitable[object] | None]
_Certificate = ServerCertificate | None


def _address_book(config: Config, checkers: Sequence[ICredentialsChecker], *, mail_in: bool) -> IAddressBook:
    """@param mail_in: who is to get mail must be known; without it the book only says which maildrop is whose."""
    accounts = accounts_of(checkers)
    if accounts is None and mail_in:
        raise ConfigError(
            "no checker can say which addresses exist, so no mail could be taken: "
            'add one that can, such as "passwd:passwd", to checkers'
        )
    try:
        return AddressBook(
            config.domains,
            accounts or SeveralAccounts(()),
            hostname=config.hostname,
            aliases=config.aliases,
            catch_all=config.catch_all,
            postmaster=config.postmaster,
        )
    except ValueError as error:
        raise ConfigError(f"domains, aliases, catch_all or postmaster: {error}") from None


def _of_pop3(config: Config, terms: TermsBook) -> dict[str, Any]:
    """What POP3's factory wants beside what all take."""
    language = config.pop3.language
    if texts.shipped().find(language.encode("utf-8")) is None:
        known = b", ".join(line.partition(b" ")[0] for line in texts.shipped().listing()).decode("ascii")
        raise ConfigError(f'pop3: language: "{language}" is none of {known}')
    return {"offered": terms.offered, "language": language.encode("ascii"), "apop": config.pop3.apop}


def _terms(config: Config, checkers: Sequence[ICredentialsChecker]) -> TermsBook:
    try:
        return TermsBook(
            first_domain=config.domains[0] if config.domains else "",
            default=config.pop3.terms,
            domains={domain: own.own() for domain, own in config.pop3.domains.items()},
            accounts=terms_of(checkers),
        )
    except ValueError as error:
        raise ConfigError(f"pop3: {error}") from None


def _quotas(config: Config, checkers: Sequence[ICredentialsChecker]) -> Quotas:
    try:
        return Quotas(
            domains=config.domains,
            default=config.quota.default,
            of_domains=config.quota.domains,
            of_accounts=quotas_of(checkers),
            permanent=config.quota.permanent,
        )
    except ValueError as error:
        raise ConfigError(f"quota, domains: {error}") from None
