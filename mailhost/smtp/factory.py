"""Conversations in SMTP, for `endpoint.listen`."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IReactorTime

from mailhost.envelope import Client
from mailhost.events import Observer, unobserved
from mailhost.interfaces import ILogin
from mailhost.limits import Limits
from mailhost.smtp.listener import Listener
from mailhost.smtp.lmtp import LMTPSession
from mailhost.smtp.session import Session
from mailhost.wire.conversation import Output
from mailhost.wire.factory import ConversationFactory


class SMTPFactory(ConversationFactory):
    """Takes mail in by SMTP and hands it to the `IDelivery` that a login gives."""

    speaks = "ESMTP"

    def __init__(
        self,
        *,
        login: ILogin,
        hostname: str,
        clock: IReactorTime,
        limits: Limits | None = None,
        observer: Observer = unobserved,
        listener: str = "",
        protocol: str = "smtp",
        tls: IOpenSSLServerConnectionCreator | None = None,
        implicit_tls: bool = False,
        auth: bool = False,
        plaintext_login: bool = False,
    ) -> None:
        """
        @param login: gives `IDelivery` avatars.  Without `auth` its anonymous one takes all mail.
        @param hostname: what this host calls itself.
        @param clock: the reactor.
        @param listener: names this listener in the log.
        @param protocol: `smtp` or `submission`, or `lmtp` in an LMTPFactory.
        @param tls: for STARTTLS; None does not offer it.
        @param implicit_tls: the endpoint speaks TLS from the first octet.
        @param auth: clients must log in to send.
        @param plaintext_login: they may do so without TLS; for loopback and tests.
        """
        super().__init__(
            clock=clock,
            limits=limits,
            observer=observer,
            listener=listener,
            protocol=protocol,
            tls=tls,
            implicit_tls=implicit_tls,
        )
        self._listener = Listener(
            login=login,
            hostname=hostname,
            limits=self.limits,
            observer=observer,
            clock=clock,
            starttls=tls is not None and not implicit_tls,
            auth=auth,
            plaintext_login=plaintext_login,
            speaks=self.speaks,
        )

    def session(self, out: Output, client: Client) -> Session:
        return Session(out, client, self._listener)

    def too_many(self) -> bytes:
        return self._listener.replies.too_many_connections.octets


class LMTPFactory(SMTPFactory):
    """The same by LMTP, for a mail system's own parts: not for port 25 (RFC 2033 5)."""

    speaks = "LMTP"

    def __init__(self, *, protocol: str = "lmtp", **settings: Any) -> None:
        """@param settings: as in `SMTPFactory`."""
        super().__init__(protocol=protocol, **settings)

    def session(self, out: Output, client: Client) -> Session:
        return LMTPSession(out, client, self._listener)
