"""Accounts from somewhere of your own.  Run it: twistd -ny checker.tac"""

import hashlib
import hmac

from twisted.application.service import Application
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.threads import deferToThread
from zope.interface import implementer

from mailhost.embed import IAccounts, MailHost, MemorySpool


def hashed(password, salt):
    return hashlib.scrypt(password, salt=salt, n=2**14, r=8, p=1)


CUSTOMERS = {"ann@example.test": (b"salt", hashed(b"secret", b"salt"))}


@implementer(ICredentialsChecker, IAccounts)
class Customers:
    credentialInterfaces = (IUsernamePassword,)

    async def requestAvatarId(self, credentials):  # username and password are octets
        salt, right = CUSTOMERS.get(credentials.username.decode().lower(), (b"", b""))
        given = await deferToThread(hashed, credentials.password, salt)  # for unknown names too: it takes as long
        if not hmac.compare_digest(given, right):
            raise UnauthorizedLogin()
        return credentials.username.lower()

    async def has_account(self, address):  # who gets mail
        return address in CUSTOMERS


host = MailHost(hostname="mx.example.test", domains=["example.test"], spool=MemorySpool(), checkers=[Customers()])
host.listen("smtp", "tcp:2525:interface=127.0.0.1")
host.listen("pop3", "tcp:2110:interface=127.0.0.1", plaintext_login=True)

application = Application("shop")
host.setServiceParent(application)
