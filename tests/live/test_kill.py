"""
A host that is killed at once after it has said yes.

This alone proves little, since what a killed process had written stays in the kernel's page cache; that it was synced is proved in
tests/spool.  What it does prove is that nothing in memory is needed to keep a promise, and that a start after a kill works.
"""

from __future__ import annotations

import random
import smtplib
import threading
import time
from collections import Counter

import pytest

from tests.live.host import Account, Host, assert_is, retrieve

SENDER = "sender@far.example"


def deliver_one(host: Host, account: Account, content: bytes) -> smtplib.SMTP:
    """@return: the client, still connected: its 250 was read and nothing more was said."""
    client = host.smtp()
    client.mail(SENDER)
    client.rcpt(account.address)
    assert client.data(content)[0] == 250
    return client


@pytest.mark.parametrize("rounds", [20, pytest.param(300, marks=pytest.mark.long)])
def test_killed_after_250(host: Host, rounds: int) -> None:
    """A message that was acknowledged is there once, whole, though the host was killed the moment after."""
    account = host.account()
    sent = []
    for number in range(rounds):
        # Every fifth is large enough to be kept in another way than the rest.
        sent.append(
            b"Subject: %d\r\n\r\n..%d\r\n" % (number, number) + b"x" * (1_500_000 if number % 5 == 4 else 10) + b"\r\n"
        )
        client = deliver_one(host, account, sent[-1])
        host.kill()
        client.close()
        host.start()
        session = host.pop3(account)
        assert session.stat()[0] == number + 1
        session.quit()
    for received, content in zip(host.fetch(account), sent, strict=True):
        assert_is(received, content)


@pytest.mark.parametrize("rounds", [10, pytest.param(100, marks=pytest.mark.long)])
def test_killed_after_quit(host: Host, rounds: int) -> None:
    """What a POP3 session deleted stays deleted, though the host was killed the moment its QUIT was answered."""
    account = host.account()
    contents = [b"Subject: %d\r\n\r\n" % number for number in range(rounds)]
    host.deliver(account, *contents)
    for number in range(rounds):
        session = host.pop3(account)
        assert session.stat()[0] == rounds - number
        assert_is(retrieve(session, 1), contents[number])
        session.dele(1)
        session._putcmd("QUIT")
        assert session._getresp().startswith(b"+OK")
        host.kill()
        session.close()
        host.start()
    assert host.fetch(account) == []


class Sender(threading.Thread):
    """Sends numbered messages in one session after another until the host is gone."""

    def __init__(self, host: Host, account: Account, name: str) -> None:
        super().__init__(name=name)
        self.begun: list[bytes] = []
        self.acknowledged: list[bytes] = []
        self._host = host
        self._account = account

    def run(self) -> None:
        try:
            while True:
                self._session()
        except (OSError, smtplib.SMTPException):
            return

    def _session(self) -> None:
        with self._host.smtp() as client:
            for _ in range(10):
                subject = b"%s-%d" % (self.name.encode(), len(self.begun))
                content = b"Subject: %s\r\n\r\n" % subject + subject * random.choice([1, 100, 100_000]) + b"\r\n"
                self.begun.append(content)
                client.sendmail(SENDER, [self._account.address], content)
                self.acknowledged.append(content)


@pytest.mark.parametrize("rounds", [6, pytest.param(60, marks=pytest.mark.long)])
def test_killed_under_load(host: Host, rounds: int) -> None:
    """Killed with several senders at work, a host has every acknowledged message once, and no message twice or in part."""
    account = host.account()
    acknowledged: list[bytes] = []
    begun: list[bytes] = []
    for number in range(rounds):
        senders = [Sender(host, account, f"{number}-{sender}") for sender in range(4)]
        for sender in senders:
            sender.start()
        time.sleep(random.uniform(0.1, 0.6))
        host.kill()
        for sender in senders:
            sender.join()
            acknowledged += sender.acknowledged
            begun += sender.begun
        host.start()
    found = Counter(content_of(received) for received in host.fetch(account))
    assert acknowledged
    assert set(found.values()) == {1}
    assert set(acknowledged) <= set(found) <= set(begun)


def content_of(received: bytes) -> bytes:
    """What was sent, behind the trace fields: each of these messages begins with its Subject."""
    return received[received.index(b"\r\nSubject: ") + 2 :]
