"""
A mail host inside your own Twisted application, from values and objects, without a configuration file::

    host = MailHost(hostname="mx.example.test", domains=["example.test"], spool="log:/var/lib/shop/mail", checkers=[my_checker])
    host.listen("smtp", "tcp:2525:interface=127.0.0.1")
    host.setServiceParent(application)

The names here are the public ones; the rest of the package may change.  Those who want no service but a factory for
`endpoint.listen(factory)` take `SMTPFactory` and `POP3Factory`, with `Login`, `build_portal` and `MailRealm`.
"""

from __future__ import annotations

from mailhost.cred.chain import build_portal
from mailhost.cred.login import Login
from mailhost.cred.realm import MailRealm
from mailhost.envelope import Client, Copy, Envelope, Outcome, Path, Totals
from mailhost.events import Event
from mailhost.interfaces import (
    IAccounts,
    IAddressBook,
    IContent,
    IDelivery,
    IMaildrop,
    ISpool,
    IStagedMessage,
    ITransaction,
    Listing,
    LocalMaildrop,
)
from mailhost.limits import Limits
from mailhost.pop3.factory import POP3Factory
from mailhost.refusal import (
    MaildropFull,
    NoSuchMaildrop,
    Refusal,
    RelayDenied,
    SenderNotAllowed,
    TemporaryRefusal,
    Worded,
)
from mailhost.service.asyncio_reactor import reactor_on_this_loop
from mailhost.service.awaiting import from_asyncio
from mailhost.service.certificates import CertificateError
from mailhost.service.config import ConfigError
from mailhost.service.embedded import MailHost
from mailhost.service.listen import CannotListen
from mailhost.service.messages import Messages
from mailhost.service.receiving import Content, delivery_of
from mailhost.smtp.factory import SMTPFactory
from mailhost.spool.log.spool import LogSpool
from mailhost.spool.memory import MemorySpool

__all__ = [
    "CannotListen",
    "CertificateError",
    "Client",
    "ConfigError",
    "Content",
    "Copy",
    "Envelope",
    "Event",
    "IAccounts",
    "IAddressBook",
    "IContent",
    "IDelivery",
    "IMaildrop",
    "ISpool",
    "IStagedMessage",
    "ITransaction",
    "Limits",
    "Listing",
    "LocalMaildrop",
    "LogSpool",
    "Login",
    "MailHost",
    "MailRealm",
    "MaildropFull",
    "MemorySpool",
    "Messages",
    "NoSuchMaildrop",
    "Outcome",
    "POP3Factory",
    "Path",
    "Refusal",
    "RelayDenied",
    "SMTPFactory",
    "SenderNotAllowed",
    "TemporaryRefusal",
    "Totals",
    "Worded",
    "build_portal",
    "delivery_of",
    "from_asyncio",
    "reactor_on_this_loop",
]
