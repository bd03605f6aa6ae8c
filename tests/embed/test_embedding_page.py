"""A host among an application's services, from values and objects; and what docs/embedding.md shows, run."""

from __future__ import annotations

import os
import poplib
import re
import smtplib
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.application.service import IServiceCollection, MultiService
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from mailhost.embed import CannotListen, ConfigError, IDelivery, MailHost, MailRealm, MemorySpool, delivery_of
from mailhost.service.certificates import make_self_signed

EXAMPLES = re.findall(
    r"```python\n(.*?)```", (Path(__file__).parent.parent.parent / "docs" / "embedding.md").read_text(), re.DOTALL
)
MESSAGE = b"Subject: An order\r\n\r\n.One\r\n..Two\r\n"


def send(port: int, forward_path: str = "ann@example.test") -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=5) as client:
        client.sendmail("bob@far.example", [forward_path], MESSAGE)


def fetch(port: int) -> bytes:
    """The only message of ann's."""
    client = poplib.POP3("127.0.0.1", port, timeout=5)
    client.user("ann@example.test")
    client.pass_("secret")
    lines = client.retr(1)[1]
    client.quit()
    return b"".join(line + b"\r\n" for line in lines)


async def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    return await deferToThread(function, *arguments)


class ExampleTests(TestCase):
    def run_example(self, number: int) -> dict[str, Any]:
        names: dict[str, Any] = {}
        exec(compile(EXAMPLES[number], "embedding.md", "exec"), names)
        return names

    def test_a_whole_host(self) -> Deferred[None]:
        """The first example takes a message in and gives it out, octet for octet, twice in a row."""
        names = self.run_example(0)
        services = IServiceCollection(names["application"])

        async def scenario() -> None:
            host = names["host"]
            for number in (1, 2):
                services.startService()
                await host.when_ready()
                if number == 1:
                    await in_thread(send, host.addresses["in"].port)
                assert (await in_thread(fetch, host.addresses["out"].port)).endswith(MESSAGE)
                await services.stopService()

        return Deferred.fromCoroutine(scenario())

    def test_mail_into_an_application(self) -> Deferred[None]:
        """The second example has the message when the client has its 250, and refuses whom it does not know."""
        names = self.run_example(1)

        async def scenario() -> None:
            host = names["host"]
            host.startService()
            await host.when_ready()
            port = host.addresses["in"].port
            await in_thread(send, port, "orders@mx.example.test")
            assert names["shop"] == {"orders@mx.example.test": [MESSAGE]}
            with pytest.raises(smtplib.SMTPRecipientsRefused):
                await in_thread(send, port, "nobody@mx.example.test")
            await host.stopService()

        return Deferred.fromCoroutine(scenario())

    def test_objects_by_pop3(self) -> Deferred[None]:
        """The third example's invoices are listed, fetched with CRLF, and removed at QUIT."""
        names = self.run_example(2)

        def visit(port: int) -> tuple[list[bytes], bytes]:
            client = poplib.POP3("127.0.0.1", port, timeout=20)
            client.user("ann")
            client.pass_("secret")
            listing = client.list()[1]
            content = b"\r\n".join(client.retr(2)[1])
            client.dele(1)
            client.quit()
            return listing, content

        async def scenario() -> None:
            host = names["host"]
            host.startService()
            await host.when_ready()
            listing, content = await in_thread(visit, host.addresses["out"].port)
            assert listing == [b"1 28", b"2 33"]
            assert content == b"Subject: Invoice 2\r\n\r\nPay more."
            assert list(names["invoices"][b"ann"]) == ["2024-2"]
            await host.stopService()

        return Deferred.fromCoroutine(scenario())

    def test_only_a_factory(self) -> Deferred[None]:
        """The fourth example listens by an endpoint, without a service."""
        names = self.run_example(3)

        async def scenario() -> None:
            port = await names["listening"]
            await in_thread(send, port.getHost().port, "anybody@mx.example.test")
            assert names["inbox"] == [MESSAGE]
            await port.stopListening()
            await names["factory"].drain()

        return Deferred.fromCoroutine(scenario())

    def test_every_example_is_run(self) -> None:
        """One that is added needs a test here."""
        assert len(EXAMPLES) == 6

    def test_they_are_as_short_as_promised(self) -> None:
        """Twenty lines for a whole host, ten to receive, fifteen for objects by POP3; the application's own lines do not count."""
        for number, lines, its_own in ((0, 20, ()), (1, 10, ("shop = ",)), (2, 15, ("invoices = ",))):
            code = [
                line for line in EXAMPLES[number].splitlines() if line.strip() and not line.startswith(its_own or "#")
            ]
            assert len(code) <= lines, "\n".join(code)


def run_python(source: str, folder: Path, *module: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_example.py").write_text(source)
    root = Path(__file__).parent.parent.parent
    path = os.pathsep.join([str(root), *sys.path])
    return subprocess.run(
        [sys.executable, *module, "test_example.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_with_asyncio(tmp_path: Path) -> None:
    """The fifth example serves under asyncio.run."""
    source = EXAMPLES[4].replace("tcp:2525", "tcp:0").replace('127.0.0.1")', '127.0.0.1", name="in")')
    source = source.replace("await asyncio.Event().wait()", 'await asyncio.to_thread(send, host.addresses["in"].port)')
    sending = f"""
import smtplib
def send(port):
    with smtplib.SMTP("127.0.0.1", port, timeout=10) as client:
        client.sendmail("bob@far.example", ["ann@example.test"], {MESSAGE!r})
"""
    ran = run_python(f"{sending}{source}\n\nasyncio.run(main())\n", tmp_path)
    assert ran.stdout == f"{len(MESSAGE)}\n", ran.stderr


def test_in_tests(tmp_path: Path) -> None:
    """The sixth example passes."""
    ran = run_python(EXAMPLES[5], tmp_path, "-m", "pytest", "-q", "-p", "mailhost.testing.pytest_plugin")
    assert "1 passed" in ran.stdout, ran.stdout


class MailHostTests(TestCase):
    def test_two_hosts_in_one_process(self) -> Deferred[None]:
        """They share nothing: what goes into one is not in the other."""
        first, second = (ExampleTests.run_example(self, 0)["host"] for _ in range(2))  # type: ignore[arg-type]
        for host in (first, second):
            host.disownServiceParent()

        async def scenario() -> None:
            both = MultiService()
            for host in (first, second):
                host.setServiceParent(both)
            both.startService()
            await first.when_ready()
            await second.when_ready()
            await in_thread(send, first.addresses["in"].port)
            assert (await in_thread(fetch, first.addresses["out"].port)).endswith(MESSAGE)
            with pytest.raises(poplib.error_proto):
                await in_thread(fetch, second.addresses["out"].port)
            await both.stopService()

        return Deferred.fromCoroutine(scenario())

    def test_what_is_wrong_is_raised(self) -> None:
        """Values that cannot be used end the start with words, not with a log line."""
        host = MailHost(hostname="mx.example.test", spool=MemorySpool())
        host.listen("imap", "tcp:0")
        with pytest.raises(ConfigError, match=r'\[\[listen\]\] 1, protocol: "imap" is none of'):
            host.startService()

    def test_mail_needs_a_place(self) -> None:
        """Without spool or delivery nothing is accepted, since it would be lost."""
        host = MailHost(hostname="mx.example.test")
        host.listen("smtp", "tcp:0")
        with pytest.raises(ConfigError, match="smtp needs a spool, or delivery= in its place"):
            host.startService()

    def test_a_port_in_use(self) -> Deferred[None]:
        """The start raises, in the caller's face."""
        first = ExampleTests.run_example(self, 1)["host"]  # type: ignore[arg-type]
        second = ExampleTests.run_example(self, 1)  # type: ignore[arg-type]

        async def scenario() -> None:
            first.startService()
            await first.when_ready()
            host = MailHost(hostname="mx.example.test", receive=second["arrived"])
            host.listen("smtp", f"tcp:{first.addresses['in'].port}:interface=127.0.0.1")
            with pytest.raises(CannotListen, match="Address already in use"):
                host.startService()
            await first.stopService()

        return Deferred.fromCoroutine(scenario())

    def test_tls_by_a_certificate(self) -> Deferred[None]:
        """With a certificate STARTTLS is offered without being asked for."""
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        path = str(Path(directory.name) / "both.pem")
        Path(path).write_bytes(b"".join(make_self_signed(["127.0.0.1"])))
        names = ExampleTests.run_example(self, 1)  # type: ignore[arg-type]
        host = MailHost(hostname="mx.example.test", receive=names["arrived"], certificate=path, private_key=path)
        host.listen("smtp", "tcp:0:interface=127.0.0.1", name="in")

        def offers_starttls(port: int) -> bool:
            with smtplib.SMTP("127.0.0.1", port, timeout=5) as client:
                client.ehlo()
                return client.starttls()[0] == 220

        async def scenario() -> None:
            host.startService()
            await host.when_ready()
            assert await in_thread(offers_starttls, host.addresses["in"].port)  # type: ignore[attr-defined]
            await host.stopService()

        return Deferred.fromCoroutine(scenario())

    def test_a_realm_of_ones_own(self) -> Deferred[None]:
        """It is asked behind the checkers, and a stranger's mail goes to what it gives for nobody."""
        names = ExampleTests.run_example(self, 1)  # type: ignore[arg-type]
        realm = MailRealm({IDelivery: delivery_of(names["arrived"])})

        async def scenario() -> None:
            host = MailHost(hostname="mx.example.test", realm=realm)
            host.listen("smtp", "tcp:0:interface=127.0.0.1", name="in")
            async with host:
                await in_thread(send, host.addresses["in"].port, "orders@mx.example.test")  # type: ignore[attr-defined]
            assert names["shop"] == {"orders@mx.example.test": [MESSAGE]}

        return Deferred.fromCoroutine(scenario())

    def test_async_with_a_port_in_use(self) -> Deferred[None]:
        """What is wrong is raised there, the service is stopped again, and can be started later."""
        names = ExampleTests.run_example(self, 1)  # type: ignore[arg-type]

        async def scenario() -> None:
            first = names["host"]
            async with first:
                second = MailHost(hostname="mx.example.test", receive=names["arrived"])
                second.listen("smtp", f"tcp:{first.addresses['in'].port}:interface=127.0.0.1")
                with pytest.raises(CannotListen):
                    async with second:
                        raise AssertionError("it serves")
                assert not second.running
            async with second:
                assert second.running

        return Deferred.fromCoroutine(scenario())
