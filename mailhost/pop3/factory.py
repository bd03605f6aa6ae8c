"""Makes POP3 conversations: `endpoint.listen(POP3Factory(...))`."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IReactorTime

from mailhost.envelope import Client
from mailhost.events import Observer, unobserved
from mailhost.interfaces import ILogin
from mailhost.limits import Limits, Offered
from mailhost.pop3 import replies
from mailhost.pop3.apop import timestamp
from mailhost.pop3.session import Session
from mailhost.pop3.texts import ENGLISH_TAG, shipped
from mailhost.wire.conversation import Output
from mailhost.wire.factory import ConversationFactory


class POP3Factory(ConversationFactory):
    """One POP3 listener."""

    def __init__(
        self,
        *,
        login: ILogin,
        hostname: str,
        clock: IReactorTime,
        limits: Limits | None = None,
        observer: Observer = unobserved,
        listener: str = "pop3",
        tls: IOpenSSLServerConnectionCreator | None = None,
        implicit_tls: bool = False,
        plaintext_login: bool = False,
        language: bytes = ENGLISH_TAG,
        offered: Callable[[], Offered] = Offered,
        apop: bool = False,
    ) -> None:
        """
        @param login: whose avatars are IMaildrop.
        @param hostname: said in the greeting.
        @param clock: the reactor.
        @param tls: for STLS; None offers none.
        @param implicit_tls: the endpoint speaks TLS from the first octet (RFC 8314 3.2).
        @param plaintext_login: take passwords without TLS too.
        @param language: what `LANG *` means.
        @param offered: the terms that CAPA names before a login, asked for each time.
        @param apop: offer APOP, where a checker can answer it.
        @raise ValueError: there is no such language.
        """
        super().__init__(
            clock=clock,
            limits=limits,
            observer=observer,
            listener=listener,
            protocol="pop3",
            tls=tls,
            implicit_tls=implicit_tls,
        )
        self._login = login
        self._hostname = hostname
        self._greeting = replies.greeting(hostname)
        self._apop = apop
        self._plaintext_login = plaintext_login
        self._offered = offered
        self._languages = shipped()
        preferred = self._languages.find(language)
        if preferred is None:
            raise ValueError(f"no language {language.decode('ascii', 'replace')} here")
        self._preferred_language = preferred

    def session(self, out: Output, client: Client) -> Session:
        stamp = timestamp(self._hostname) if self._apop and self._login.takes_digests() else b""
        return Session(
            out,
            client,
            login=self._login,
            greeting=replies.greeting(self._hostname, stamp) if stamp else self._greeting,
            limits=self.limits,
            observer=self.observer,
            clock=self.clock,
            stls=self.tls is not None and not self.implicit_tls,
            plaintext_login=self._plaintext_login,
            languages=self._languages,
            preferred_language=self._preferred_language,
            offered=self._offered,
            timestamp=stamp,
        )

    def too_many(self) -> bytes:
        return replies.TOO_MANY_CONNECTIONS.octets
