"""What docs/extending.md shows, run."""

import re
from collections import namedtuple
from pathlib import Path as File

from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailhost.delivery.address_book import AddressBook
from mailhost.delivery.avatar import SpoolDelivery
from mailhost.envelope import NO_PARAMETERS, NULL_REVERSE_PATH, Client, Path
from mailhost.interfaces import IAccounts, IAddressBook, IDelivery
from mailhost.refusal import NoSuchMaildrop, RelayDenied, Worded
from mailhost.spool.memory import MemorySpool

PAGE = (File(__file__).parent.parent.parent / "docs" / "extending.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
CLIENT = Client("s1", "192.0.2.7", 4711, "mx", "smtp")

Customer = namedtuple("Customer", "password")


class Shop:
    async def customer(self, address):
        return {"ann@example.test": Customer(b"secret")}.get(address)


class ExampleTests(SynchronousTestCase):
    def setUp(self):
        self.names = {}
        for number, example in enumerate(EXAMPLES):
            exec(compile(example, f"extending.md, example {number}", "exec"), self.names)

    def test_checker(self):
        """It logs in who has the password, and an address book of it knows who exists."""
        customers = self.names["Customers"](Shop())
        assert verifyObject(IAccounts, customers)
        login = UsernamePassword(b"ann@example.test", b"secret")
        assert self.successResultOf(customers.requestAvatarId(login)) == b"ann@example.test"
        for name, password in ((b"ann@example.test", b"wrong"), (b"bob@example.test", b"secret")):
            wrong = customers.requestAvatarId(UsernamePassword(name, password))
            self.failureResultOf(wrong, UnauthorizedLogin)
        book = AddressBook(["example.test"], customers, hostname="mx.example.test")
        self.successResultOf(book.resolve(Path("ann", "example.test")))
        self.failureResultOf(book.resolve(Path("bob", "example.test")), NoSuchMaildrop)

    def test_address_book(self):
        """Delivery by it puts a copy into each maildrop that it names."""
        book = self.names["Orders"]({17})
        assert verifyObject(IAddressBook, book)
        self.failureResultOf(book.resolve(Path("order-18", "shop.example.test")), NoSuchMaildrop)
        self.failureResultOf(book.resolve(Path("order-17", "far.example")), RelayDenied)
        spool = MemorySpool()
        self.successResultOf(spool.start())
        delivery = SpoolDelivery(spool, book, hostname="mx.example.test", account=None, clock=Clock())
        transaction = self.successResultOf(delivery.transaction(CLIENT, NULL_REVERSE_PATH, NO_PARAMETERS))
        self.successResultOf(transaction.recipient(Path("Order-17", "shop.example.test"), NO_PARAMETERS))
        staged = self.successResultOf(transaction.content())
        staged.write(b"\r\nx\r\n")
        self.successResultOf(staged.commit())
        for name in ("order-17", "staff"):
            assert self.successResultOf(spool.open_maildrop(name, 0)).totals.messages == 1

    def test_delivery(self):
        """It refuses whom it should, and passes on the rest."""

        class Behind:
            async def transaction(self, client, reverse_path, parameters):
                return "a transaction"

        delivery = self.names["NotFromThere"](Behind(), {"far.example"})
        assert verifyObject(IDelivery, delivery)
        self.failureResultOf(delivery.transaction(CLIENT, Path("zoe", "FAR.example"), NO_PARAMETERS), Worded)
        passed = delivery.transaction(CLIENT, Path("ann", "example.test"), NO_PARAMETERS)
        assert self.successResultOf(passed) == "a transaction"

    def test_names_on_the_page(self):
        """Every file and function that the page names exists."""
        root = File(__file__).parent.parent.parent
        files = re.findall(r"`((?:mailhost|tests)/[a-z_/]+(?:\.py)?)`", PAGE)
        assert len(files) > 5
        for name in files:
            assert (root / name).exists(), name
        for module, function in re.findall(r"`foreign\.(\w+)\.(\w+)`", PAGE):
            assert f"def {function}(" in (root / "mailhost" / "foreign" / f"{module}.py").read_text()
