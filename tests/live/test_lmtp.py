"""LMTP on real sockets, TCP and UNIX, with the standard library's client."""

from __future__ import annotations

import re
import smtplib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.live.host import CLIENT_SECONDS, Account, Host
from tests.live.lmtp import start_with_lmtp

CONTENT = b"From: far@far.example\r\nSubject: by LMTP\r\n\r\n.\r\n..dots\r\n\xfc\r\n"


class LMTPHost:
    """A host that also listens for LMTP, by port and by path."""

    def __init__(self, host: Host, directory: Path) -> None:
        self.host = host
        self.socket = directory / "lmtp"
        self.port = start_with_lmtp(host, self.socket)

    def client(self, way: str) -> smtplib.LMTP:
        """Past LHLO."""
        if way == "unix":
            client = smtplib.LMTP(str(self.socket), local_hostname="front.example")
        else:
            client = smtplib.LMTP("127.0.0.1", self.port, "front.example", timeout=CLIENT_SECONDS)
        assert client.ehlo()[0] == 250
        return client


@pytest.fixture(scope="module")
def lmtp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LMTPHost]:
    directory = tmp_path_factory.mktemp("lmtp")
    host = Host(directory / "host")
    try:
        yield LMTPHost(host, directory)
        host.stop()
    finally:
        host.close()


def send(client: smtplib.LMTP, *addresses: str) -> list[tuple[int, bytes]]:
    """One message; the reply for each address, that of RCPT where it was refused there."""
    assert client.mail("far@far.example")[0] == 250
    replies = [client.rcpt(address) for address in addresses]
    taken = [place for place, (code, _) in enumerate(replies) if code == 250]
    for place, reply in zip(taken, [client.data(CONTENT), *(client.getreply() for _ in taken[1:])]):
        replies[place] = reply
    return replies


@pytest.mark.parametrize("way", ["tcp", "unix"])
def test_a_reply_for_each(lmtp: LMTPHost, way: str) -> None:
    """Each recipient that was taken has a reply of its own, in order, and the message as it was sent; again and again."""
    accounts = [lmtp.host.account() for _ in range(3)]
    addresses = [accounts[0].address, "nobody@example.test", *(account.address for account in accounts[1:])]
    with lmtp.client(way) as client:
        for _ in range(2):
            replies = send(client, *addresses)
            assert [code for code, _ in replies] == [250, 550, 250, 250]
            assert b"Message accepted" in replies[3][1]
            assert client.noop()[0] == 250
    for account in accounts:
        messages = lmtp.host.fetch(account)
        assert len(messages) == 2
        for message in messages:
            assert message.endswith(CONTENT)
            assert re.search(rb"\r\nReceived: from front\.example\s[^;]*\swith LMTP\s", message)


def test_what_smtp_says(lmtp: LMTPHost) -> None:
    """EHLO belongs to the other protocol."""
    with lmtp.client("tcp") as client:
        assert client.docmd("EHLO", "front.example")[0] == 500
        assert client.docmd("HELO", "front.example")[0] == 500


def test_one_full_maildrop(new_host: Callable[[], Host], tmp_path: Path) -> None:
    """Who is over quota is told so at RCPT, and the others get the message; by SMTP it is the same, with SIZE taken at its word."""
    host = new_host()
    full, roomy = Account("full@example.test", "Pw-full"), host.account()
    with open(host.directory / "passwd", "a") as passwd:
        passwd.write(f"{full.address}:{{PLAIN}}{full.password}:quota=1/1M\n")
    lmtp = LMTPHost(host, tmp_path)
    with lmtp.client("unix") as client:
        assert [code for code, _ in send(client, full.address, roomy.address)] == [250, 250]
        (code, text), accepted = send(client, full.address, roomy.address)
        assert (code, accepted[0]) == (452, 250)
        session = re.fullmatch(rb"4\.2\.2 Mailbox full \(session (\w+)\)", text)
        assert session is not None
    assert (len(host.fetch(full)), len(host.fetch(roomy))) == (1, 2)
    assert re.search(rf"refused session={session[1].decode()} .*full@example.test", host.log())
    with host.smtp() as client:
        client.docmd("MAIL", f"FROM:<far@far.example> SIZE={1 << 21}")
        assert client.rcpt(full.address)[0] == 552
        assert client.rcpt(roomy.address)[0] == 250
    pop3 = host.pop3(full)
    pop3.dele(1)
    pop3.quit()
    with lmtp.client("tcp") as client:
        assert [code for code, _ in send(client, full.address)] == [250]
