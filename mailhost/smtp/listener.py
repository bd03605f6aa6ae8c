"""What all sessions of one listener share: made once, so that a session costs little."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from mailhost.envelope import Client
from mailhost.events import Observer
from mailhost.interfaces import ILogin
from mailhost.limits import Limits
from mailhost.smtp.replies import OfHost


class Listener:
    """One listener's settings and what follows from them."""

    def __init__(
        self,
        *,
        login: ILogin,
        hostname: str,
        limits: Limits,
        observer: Observer,
        clock: IReactorTime,
        starttls: bool,
        auth: bool,
        plaintext_login: bool,
        speaks: str = "ESMTP",
    ) -> None:
        """
        @param login: gives `IDelivery` avatars.
        @param starttls: whether STARTTLS can be done; false where TLS is implicit.
        @param auth: whether clients must log in to send; where they need not, they cannot either.
        @param plaintext_login: passwords are taken without TLS.
        @param speaks: the protocol, as the greeting names it.
        """
        self.login = login
        self.limits = limits
        self.observer = observer
        self.clock = clock
        self.starttls = starttls
        self.auth = auth
        self.plaintext_login = plaintext_login
        self.longest_line = (
            max(limits.command_line_octets, limits.auth_line_octets) if auth else limits.command_line_octets
        )
        """Octets of the longest line that any command or response may have, CRLF included."""
        self.replies = OfHost(hostname, speaks)

    def protects(self, client: Client) -> bool:
        """Whether a password is safe on this connection now."""
        return client.tls is not None or self.plaintext_login
