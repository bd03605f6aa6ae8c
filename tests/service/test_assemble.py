"""The wiring: whose parts are used, for which listeners, and what a reload can change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.cred.checkers import FilePasswordDB, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import Anonymous
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailhost import envelope
from mailhost.envelope import NO_PARAMETERS, NULL_REVERSE_PATH, Client
from mailhost.interfaces import IAccounts, IQuotas
from mailhost.limits import Quota
from mailhost.refusal import MaildropFull
from mailhost.service.assemble import MAIL_IN, MAIL_OUT, Assembly, Given
from mailhost.service.checkers import SeveralAccounts, accounts_of, make_checkers
from mailhost.service.config import Config, ConfigError, from_document
from mailhost.service.host import MailHost
from mailhost.smtp.factory import LMTPFactory
from mailhost.spool.memory import MemorySpool


def config(directory: str = "/nowhere", **changes: Any) -> Config:
    document = {
        "hostname": "mx.example.test",
        "domains": ["example.test"],
        "spool": "memory:",
        "checkers": [],
        "listen": [
            {"protocol": "smtp", "endpoint": "tcp:25", "limits": {"errors": 3}},
            {"protocol": "submission", "endpoint": "tcp:587"},
            {"protocol": "pop3", "endpoint": "tcp:110"},
        ],
        **changes,
    }
    return from_document(document, source="test", directory=directory)


@implementer(IAccounts)
class Knows(InMemoryUsernamePasswordDatabaseDontUse):
    """A checker that knows its accounts."""

    async def has_account(self, address: str) -> bool:
        return address.encode() in self.users


class Reactor(Clock):
    """Ports are names in a list; threads are calls."""

    def __init__(self) -> None:
        super().__init__()
        self.ports: list[int] = []

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        self.ports.append(port)
        factory.doStart()

        class Port:
            def getHost(_) -> str:
                return f"port {port}"

            def stopListening(_) -> None:
                self.ports.remove(port)
                factory.doStop()

        return Port()

    def getThreadPool(self) -> Any:
        return self

    def callInThreadWithCallback(self, done: Any, function: Any, *arguments: Any) -> None:
        try:
            result = function(*arguments)
        except Exception as error:
            done(False, error)
        else:
            done(True, result)

    def callFromThread(self, function: Any, *arguments: Any) -> None:
        function(*arguments)


class AssemblyTests(SynchronousTestCase):
    def host(self, given: Given, protocols: frozenset[str] = MAIL_IN | MAIL_OUT, **changes: Any) -> MailHost:
        return Assembly(reactor=Reactor(), protocols=protocols, given=given).host(config(**changes))

    def test_each_listener_gets_its_own(self) -> None:
        """A factory of the right protocol, with the limits that the listener has."""
        host = self.host(Given(checkers=[Knows()]))
        factories = [listener.door.factory for listener in host.listeners]
        kinds = [(type(one).__name__, one.protocol_name) for one in factories]  # type: ignore[attr-defined]
        assert kinds == [("SMTPFactory", "smtp"), ("SMTPFactory", "submission"), ("POP3Factory", "pop3")]
        assert [one.limits.errors for one in factories] == [3, 20, 20]  # type: ignore[attr-defined]

    def test_one_direction_only(self) -> None:
        """mailhost-smtp and mailhost-pop3 serve the listeners of theirs, and want at least one."""
        for protocols, ports in ((MAIL_IN, ["smtp:25", "submission:587"]), (MAIL_OUT, ["pop3:110"])):
            host = self.host(Given(checkers=[Knows()]), protocols)
            assert [listener.door.name for listener in host.listeners] == ports
        with pytest.raises(ConfigError, match=r"no \[\[listen\]\] is for pop3"):
            self.host(Given(checkers=[Knows()]), MAIL_OUT, listen=[{"protocol": "smtp", "endpoint": "tcp:25"}])

    def test_mail_in_needs_to_know_who_lives_here(self) -> None:
        """Checkers that only check cannot say so; for mail out alone they are enough."""
        with pytest.raises(ConfigError, match='add one that can, such as "passwd:passwd"'):
            self.host(Given(checkers=[FilePasswordDB("/nowhere")]))
        assert self.host(Given(checkers=[FilePasswordDB("/nowhere")]), MAIL_OUT)

    def test_lmtp(self) -> None:
        """Its own sessions, and a delivery as SMTP has it."""
        host = self.host(Given(checkers=[Knows()]), MAIL_IN, listen=[{"protocol": "lmtp", "endpoint": "tcp:24"}])
        (listener,) = host.listeners
        assert type(listener.door.factory) is LMTPFactory
        assert listener.door.factory.protocol_name == "lmtp"

    def test_quotas(self) -> None:
        """Those of the configuration, and those of checkers that keep some."""

        @implementer(IQuotas)
        class KnowsQuotas(Knows):
            has_quotas = True

            async def quota(self, address: str) -> Quota | None:
                return Quota(messages=0) if address == "bob@example.test" else None

        checker = KnowsQuotas()
        for name in ("ann", "bob", "cat"):
            checker.addUser(f"{name}@example.test".encode(), b"x")
        quota = {"domains": {"example.test": "1/-"}, "permanent": True}
        host = self.host(Given(checkers=[checker], spool=MemorySpool()), MAIL_IN, quota=quota)
        self.successResultOf(host.spool.start())
        client = Client("s1", "192.0.2.1", 4711, "smtp:25", "smtp")
        login = host.listeners[0].door.factory._listener.login  # type: ignore[attr-defined]
        delivery = self.successResultOf(Deferred.fromCoroutine(login.log_in(Anonymous(), client))).avatar

        def rcpt(name: str) -> tuple[Any, Deferred[None]]:
            transaction = self.successResultOf(delivery.transaction(client, NULL_REVERSE_PATH, NO_PARAMETERS))
            path = envelope.Path(name, "example.test")
            return transaction, Deferred.fromCoroutine(transaction.recipient(path, NO_PARAMETERS))

        transaction, taken = rcpt("ann")
        self.successResultOf(taken)
        self.successResultOf(self.successResultOf(transaction.content()).commit())
        for name in ("ann", "bob"):
            full = self.failureResultOf(rcpt(name)[1], MaildropFull).value
            assert not full.temporary

    def test_a_quota_for_a_domain_that_is_not_ours(self) -> None:
        """The operator is told which, and which are ours."""
        with pytest.raises(ConfigError, match=r"^quota, domains: far.example is none of our domains \(example.test\)$"):
            self.host(Given(checkers=[Knows()]), quota={"domains": {"far.example": "5G"}})

    def test_the_given_spool_is_used(self) -> None:
        """And no other is made."""
        spool = MemorySpool()
        assert self.host(Given(checkers=[Knows()], spool=spool)).spool is spool

    def test_given_avatars_need_no_address_book(self) -> None:
        """An application that takes mail itself has no accounts to name."""

        async def avatars(account: bytes | None, client: object) -> Any:
            raise NotImplementedError

        assert self.host(Given(checkers=[], delivery=avatars, maildrop=avatars))

    def test_a_reload_says_what_it_cannot_change(self) -> None:
        """The spool stays, and so does the log's form; all else is taken over."""
        reactor = Reactor()
        assembly = Assembly(reactor=reactor, given=Given(checkers=[Knows()]))
        host = assembly.host(config())
        host.startService()
        spool = host.spool
        other = config(spool="log:elsewhere", log="json", listen=[{"protocol": "smtp", "endpoint": "tcp:26"}])
        unchanged = self.successResultOf(Deferred.fromCoroutine(assembly.reload(host, other)))
        assert unchanged == ["spool", "log"]
        assert host.spool is spool
        assert reactor.ports == [26]
        assert assembly.config is other

    def test_accounts_of_several_checkers(self) -> None:
        """An address exists if any of them has it."""
        first, second = Knows(), Knows()
        first.addUser(b"ann@example.test", b"x")
        second.addUser(b"bob@example.test", b"x")
        accounts = accounts_of([first, FilePasswordDB("/nowhere"), second])
        assert accounts is not None
        for address, there in (("ann@example.test", True), ("bob@example.test", True), ("eve@example.test", False)):
            assert self.successResultOf(Deferred.fromCoroutine(accounts.has_account(address))) is there

    def test_accounts_that_cannot_answer(self) -> None:
        """A failure is not a no: whoever asks must learn of it."""

        class Away:
            def has_account(self, address: str) -> Deferred[bool]:
                return fail(OSError("away"))

        class Without:
            def has_account(self, address: str) -> Deferred[bool]:
                return succeed(False)

        several = SeveralAccounts([Without(), Away()])  # type: ignore[list-item]
        self.failureResultOf(Deferred.fromCoroutine(several.has_account("ann@example.test")), OSError)


def test_a_passwd_file_beside_the_configuration(tmp_path: Path) -> None:
    """Wherever the program was started."""
    (tmp_path / "accounts").write_text("ann@example.test:{PLAIN}x\n")
    (checker,) = make_checkers(config(str(tmp_path), checkers=["passwd:accounts"]))
    assert IAccounts.providedBy(checker)


def test_every_checker_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """All at once, with why."""
    (tmp_path / "broken").write_text("no colon\n")
    with pytest.raises(ConfigError) as caught:
        make_checkers(
            config(str(tmp_path), checkers=["passwd:broken", "passwd:", "nonsense:x", "file:/nowhere/passwd"])
        )
    said = caught.value.problems
    assert "broken, line 1" in said[0]
    assert 'checkers: "passwd:": passwd: needs the path of a file' in said[1]
    assert 'checkers: "nonsense:x": no plugin has that type' in said[2]


def test_a_language_that_is_none_of_ours() -> None:
    """`LANG *` must mean something."""
    with pytest.raises(ConfigError, match=r'^pop3: language: "tlh" is none of en, de, es, fr, ru, zh-Hans$'):
        Assembly(reactor=Reactor(), given=Given(checkers=[Knows()])).host(config(pop3={"language": "tlh"}))
