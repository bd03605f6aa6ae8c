"""The host for trial's tests: in their own process, leaving a clean reactor, which trial itself checks after each test."""

from __future__ import annotations

import poplib
import re
import smtplib
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from mailhost.testing.in_process import InProcessHost, start_mail_host
from mailhost.testing.messages import NothingArrived

MESSAGE = b"Subject: Your order\r\n\r\n.Thank you.\r\n"


def send(address: tuple[str, int], forward_path: str = "ann@example.test", message: bytes = MESSAGE) -> None:
    with smtplib.SMTP(*address, timeout=10) as client:
        client.sendmail("shop@example.test", [forward_path], message)


def submit(address: tuple[str, int], password: str) -> None:
    with smtplib.SMTP(*address, timeout=10) as client:
        client.login("shop@example.test", password)
        client.sendmail("shop@example.test", ["ann@example.test"], MESSAGE)


def fetch(address: tuple[str, int]) -> bytes:
    client = poplib.POP3(*address, timeout=10)
    client.user("ann@example.test")
    client.pass_("secret")
    message = b"".join(line + b"\r\n" for line in client.retr(1)[1])
    client.quit()
    return message


class InProcessTests(TestCase):
    async def setUp(self) -> None:  # type: ignore[override]  # trial takes coroutines
        self.mail_host: InProcessHost = await start_mail_host(self)

    def in_thread(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        return deferToThread(function, *arguments)

    async def test_what_arrives(self) -> None:
        """A message is waited for, and is as it was sent, to the octet, with its envelope."""
        sent = self.in_thread(send, self.mail_host.smtp_address, "Ann@Example.test")
        (message,) = await self.mail_host.wait_for("ann@example.test")
        assert message["Subject"] == "Your order"
        assert message.octets == MESSAGE
        assert (message.reverse_path, message.forward_path) == ("shop@example.test", "Ann@Example.test")
        await sent

    async def test_an_inbox(self) -> None:
        """It waits for one message among others: by its subject, by a pattern, or by what a function says."""
        inbox = self.mail_host.inbox("ann")
        waiting = Deferred.fromCoroutine(inbox.wait_for("Third"))
        for subject in (b"First", b"Second", b"Third"):
            await self.in_thread(
                send, self.mail_host.smtp_address, "ann@wherever.test", b"Subject: %s\r\n\r\n" % subject
            )
        assert (await waiting)["Subject"] == "Third"
        assert (await inbox.wait_for(re.compile("^Sec")))["Subject"] == "Second"
        assert (await inbox.wait_for(lambda message: "i" in message["Subject"]))["Subject"] == "First"
        assert len(inbox.messages) == 3

    async def test_nothing_arrives(self) -> None:
        """When the time is up the test is told what there was instead."""
        await self.in_thread(send, self.mail_host.smtp_address)
        with pytest.raises(NothingArrived, match=r"no message Lost for ann@example.test in 0.05 .* 'Your order'"):
            await self.mail_host.inbox("ann@example.test").wait_for("Lost", seconds=0.05)
        with pytest.raises(NothingArrived, match="not 2 messages"):
            await self.mail_host.wait_for("ann@example.test", count=2, seconds=0.05)

    async def test_accounts(self) -> None:
        """They submit and fetch; others cannot."""
        with pytest.raises(smtplib.SMTPAuthenticationError):
            await self.in_thread(submit, self.mail_host.submission_address, "guess")
        self.mail_host.add_account("shop@example.test", "secret")
        self.mail_host.add_account("ann@example.test", "secret")
        await self.in_thread(submit, self.mail_host.submission_address, "secret")
        assert (await self.in_thread(fetch, self.mail_host.pop3_address)).endswith(MESSAGE)

    async def test_refused(self) -> None:
        """One address, for good; others take their mail."""
        self.mail_host.refuse("bob@example.test")
        with pytest.raises(smtplib.SMTPRecipientsRefused, match="550"):
            await self.in_thread(send, self.mail_host.smtp_address, "bob@example.test")
        await self.in_thread(send, self.mail_host.smtp_address, "ann@example.test")
        assert not self.mail_host.messages("bob@example.test")

    async def test_deferred_once(self) -> None:
        """The first try hears 451, at RCPT or at the end; the second is taken."""
        for at_end, error in ((False, smtplib.SMTPRecipientsRefused), (True, smtplib.SMTPDataError)):
            self.mail_host.defer(at_end=at_end)
            with pytest.raises(error, match="451"):
                await self.in_thread(send, self.mail_host.smtp_address)
            await self.in_thread(send, self.mail_host.smtp_address)
        assert len(self.mail_host.messages("ann@example.test")) == 2

    async def test_dropped_in_mid_content(self) -> None:
        """The connection is cut, of a small message and of a large one; nothing is kept of either."""
        for octets in (10, 2_000_000):
            self.mail_host.drop(after_octets=octets // 2)
            with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionError)):
                await self.in_thread(send, self.mail_host.smtp_address, "ann@example.test", b"x" * octets + b"\r\n")
        assert self.mail_host.messages("ann@example.test") == []
        await self.in_thread(send, self.mail_host.smtp_address)

    async def test_slow(self) -> None:
        """The answer comes late, and for nobody else."""
        self.mail_host.slow(0.3, "ann@example.test")
        late = self.in_thread(send, self.mail_host.smtp_address)
        quick = self.in_thread(send, self.mail_host.smtp_address, "bob@example.test")
        await quick
        assert not late.called
        await late

    async def test_reset(self) -> None:
        """Nothing of one test is there for the next."""
        self.mail_host.add_account("ann@example.test", "secret")
        self.mail_host.refuse()
        await self.mail_host.reset()
        await self.in_thread(send, self.mail_host.smtp_address)
        assert len(self.mail_host.messages("ann")) == 1
        with pytest.raises(poplib.error_proto):
            await self.in_thread(fetch, self.mail_host.pop3_address)
        await self.mail_host.reset()
        assert self.mail_host.messages("ann") == []

    async def test_two_of_them(self) -> None:
        """They share nothing."""
        other = await start_mail_host(self)
        await gatherResults(
            [
                self.in_thread(send, self.mail_host.smtp_address, "ann@example.test"),
                self.in_thread(send, other.smtp_address, "bob@example.test"),
            ]
        )
        assert not other.messages("ann")
        assert not self.mail_host.messages("bob")
