"""The same as a plugin: with this file in a folder twisted/plugins of the shop's, run it: twistd -n shop --mail log:mail"""

from twisted.application.internet import TCPServer
from twisted.application.service import IServiceMaker, MultiService
from twisted.plugin import IPlugin
from twisted.python.usage import Options
from zope.interface import implementer


class ShopOptions(Options):
    optParameters = (("mail", None, "log:mail", "Where mail is kept."),)


@implementer(IServiceMaker, IPlugin)
class Shop:
    tapname = "shop"
    description = "A shop, and the mail it gets."
    options = ShopOptions

    def makeService(self, options):
        # Here, not above: every twistd command reads this file.
        from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
        from twisted.web.server import Site
        from twisted.web.static import Data
        from zope.interface import directlyProvides

        from mailhost.embed import IAccounts, MailHost

        staff = InMemoryUsernamePasswordDatabaseDontUse(**{"ann@example.test": b"secret"})
        staff.has_account = self.has_account
        directlyProvides(staff, IAccounts)

        shop = MultiService()
        page = Data(b"The shop", "text/plain")
        page.isLeaf = True
        TCPServer(8080, Site(page), interface="127.0.0.1").setServiceParent(shop)
        mail = MailHost(hostname="mx.example.test", domains=["example.test"], spool=options["mail"], checkers=[staff])
        mail.listen("smtp", "tcp:2525:interface=127.0.0.1")
        mail.listen("pop3", "tcp:2110:interface=127.0.0.1", plaintext_login=True)
        mail.setServiceParent(shop)
        return shop

    async def has_account(self, address):
        return address == "ann@example.test"


shop = Shop()
