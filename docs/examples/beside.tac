"""Both protocols beside a service that was there before.  Run it: twistd -ny beside.tac"""

from twisted.application.internet import TCPServer
from twisted.application.service import Application
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.web.server import Site
from twisted.web.static import Data
from zope.interface import implementer

from mailhost.embed import IAccounts, MailHost


@implementer(IAccounts)
class Staff(InMemoryUsernamePasswordDatabaseDontUse):
    async def has_account(self, address):
        return address.encode() in self.users


application = Application("shop")
page = Data(b"The shop", "text/plain")
page.isLeaf = True
TCPServer(8080, Site(page), interface="127.0.0.1").setServiceParent(application)

staff = Staff(**{"ann@example.test": b"secret"})
mail = MailHost(hostname="mx.example.test", domains=["example.test"], spool="log:mail", checkers=[staff])
mail.listen("smtp", "tcp:2525:interface=127.0.0.1")
mail.listen("pop3", "tcp:2110:interface=127.0.0.1", plaintext_login=True)
mail.setServiceParent(application)
