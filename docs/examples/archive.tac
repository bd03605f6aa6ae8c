"""An archive: whoever fetches mail may say DELE, and it is all there the next time.  Run it: twistd -ny archive.tac"""

from twisted.application.service import Application
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.internet import reactor
from twisted.python.components import proxyForInterface
from zope.interface import implementer

from mailhost.embed import IAddressBook, IMaildrop, ISpool, LocalMaildrop, LogSpool, MailHost


class Kept(proxyForInterface(IMaildrop)):
    async def update(self, deleted):  # QUIT hears +OK
        pass


class Archive(proxyForInterface(ISpool)):
    async def open_maildrop(self, name, wait_seconds):
        return Kept(await self.original.open_maildrop(name, wait_seconds))


@implementer(IAddressBook)
class Everything:
    async def resolve(self, forward_path):
        return [LocalMaildrop("archive")]

    def maildrop_of(self, account):
        return "archive"

    async def may_send_as(self, account, reverse_path):
        return False


keeper = InMemoryUsernamePasswordDatabaseDontUse(keeper=b"secret")
archive = Archive(LogSpool("archive", reactor=reactor))
host = MailHost(hostname="archive.example.test", spool=archive, address_book=Everything(), checkers=[keeper])
host.listen("smtp", "tcp:2525:interface=127.0.0.1")
host.listen("pop3", "tcp:2110:interface=127.0.0.1", plaintext_login=True)

application = Application("archive")
host.setServiceParent(application)
