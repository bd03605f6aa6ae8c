"""smtplib in, poplib out: every message comes back octet for octet, over every kind of connection."""

from __future__ import annotations

import poplib
import re
import time

import pytest

from tests.live.host import Account, Host, assert_is, lines_as_crlf

SENDER = "sender@far.example"

MADE = {
    "plain": b"Subject: plain\r\n\r\nHello.\r\n",
    "8-bit": b"Subject: \xff\xfe\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + bytes(range(14, 256)) + b"\r\n",
    "UTF-8": "Subject: \u65e5\u672c\u8a9e\r\n\r\n\u00fcber \U0001f4ec\r\n".encode(),
    "998 octets in a line": b"Subject: long\r\n\r\n" + b"x" * 998 + b"\r\n",
    "100,000 octets in a line": b"Subject: longer\r\n\r\n" + b"x" * 100_000 + b"\r\nend\r\n",
    "lines of dots": b"Subject: dots\r\n\r\n.\r\n..\r\n...\r\n" + b".\r\n" * 1000 + b".end\r\n.",
    "a dot first": b".\r\n\r\n.\r\n",
    "an empty body": b"Subject: empty\r\n\r\n",
    "a header and no end of it": b"Subject: header only\r\n",
    "no header": b"\r\nOnly a body.\r\n",
    "empty lines": b"Subject: lines\r\n" + b"\r\n" * 500,
    "no line end at the end": b"Subject: unfinished\r\n\r\nno line end here",
    "white space at line ends": b"Subject: space \t\r\n \r\n\r\n \t\r\n\t \r\n",
    "control characters": b"Subject: \x01\x02\r\n\r\n" + bytes(set(range(32)) - {10, 13}) + b"\x7f\r\n",
}


def ended(content: bytes) -> bytes:
    """DATA's content always ends in CRLF (RFC 5321 4.1.1.4)."""
    return content if content.endswith(b"\r\n") else content + b"\r\n"


@pytest.mark.parametrize("content", MADE.values(), ids=MADE.keys())
def test_made_messages(shared_host: Host, account: Account, content: bytes) -> None:
    """Whatever is in a message comes back as it was sent."""
    shared_host.deliver(account, content)
    (received,) = shared_host.fetch(account)
    assert_is(received, ended(content))


def test_empty_content(shared_host: Host, account: Account) -> None:
    """Not even an empty line is a message too; only the trace fields come back."""
    with shared_host.smtp() as client:
        client.mail(SENDER)
        client.rcpt(account.address)
        assert client.docmd("DATA")[0] == 354
        assert client.docmd(".")[0] == 250
    (received,) = shared_host.fetch(account)
    assert_is(received, b"")


@pytest.mark.parametrize("pop3", ["none", "stls", "implicit"])
@pytest.mark.parametrize("smtp", ["plain", "starttls", "submission", "submissions"])
def test_every_connection(shared_host: Host, account: Account, smtp: str, pop3: str) -> None:
    """Every listener takes and gives the same octets, with TLS from the start, on demand, or without."""
    contents = [*MADE.values(), b"Subject: larger\r\n\r\n" + b".dotted line of some length\r\n" * 20_000]
    if smtp.startswith("submission"):
        client = shared_host.submission(account, implicit=smtp == "submissions")
    else:
        client = shared_host.smtp(starttls=smtp == "starttls")
    with client:
        for content in contents:
            assert client.sendmail(account.address, [account.address], content) == {}
    received = shared_host.fetch(account, tls=pop3)
    assert len(received) == len(contents)
    for got, sent in zip(received, contents):
        assert_is(got, ended(sent), added=smtp.startswith("submission"))


def test_thirty_megabytes(shared_host: Host, account: Account) -> None:
    """30 MB go in and out, under TLS, and nothing is lost on the way."""
    lines = (b"%08d" % number + b"." * 980 + b"\r\n" for number in range(30_000))
    content = b"Subject: large\r\n\r\n.first\r\n" + b"".join(lines)
    with shared_host.submission(account) as client:
        client.sendmail(account.address, [account.address], content)
    (received,) = shared_host.fetch(account, tls="implicit")
    assert_is(received, content, added=True)


def test_many_recipients(shared_host: Host) -> None:
    """One message to several accounts comes to each, and to nobody twice."""
    accounts = [shared_host.account() for _ in range(5)]
    content = b"Subject: all\r\n\r\n.\r\n"
    with shared_host.smtp() as client:
        client.sendmail(SENDER, [account.address for account in [*accounts, accounts[0]]], content)
    for account in accounts:
        (received,) = shared_host.fetch(account)
        assert_is(received, content)
        others = {other.address for other in accounts} - {account.address}
        assert not any(other.encode() in received for other in others), "a recipient was told of another"


def test_account_by_command(shared_host: Host) -> None:
    """An account made by `mailhost user add` on a running host gets mail and collects it."""
    account = shared_host.add_user("commanded")
    shared_host.deliver(account, MADE["plain"])
    (received,) = shared_host.fetch(account, tls="stls")
    assert_is(received, MADE["plain"])


def test_account_by_hand(shared_host: Host) -> None:
    """A line added to the file by hand counts at once; in a flood of questions, such as these tests are, in a moment."""
    account = shared_host.add_account("by.hand")
    time.sleep(0.1)
    shared_host.deliver(account, MADE["plain"])
    (received,) = shared_host.fetch(account)
    assert_is(received, MADE["plain"])


def test_delete(shared_host: Host, account: Account) -> None:
    """DELE and QUIT remove what was marked, and only that; numbers start anew and unique-ids stay."""
    shared_host.deliver(account, *(b"Subject: %d\r\n\r\n" % number for number in range(1, 6)))
    client = shared_host.pop3(account)
    before = dict(line.split() for line in client.uidl()[1])
    for number in 1, 3, 5:
        client.dele(number)
    client.quit()
    client = shared_host.pop3(account)
    assert [line.split()[1] for line in client.uidl()[1]] == [before[b"2"], before[b"4"]]
    assert client.retr(2)[1][-2:] == [b"Subject: 4", b""]
    client.quit()


def test_reset_and_disconnect(shared_host: Host, account: Account) -> None:
    """Marks that were taken back, or whose session was cut, remove nothing."""
    shared_host.deliver(account, MADE["plain"])
    client = shared_host.pop3(account)
    client.dele(1)
    client.rset()
    client.quit()
    client = shared_host.pop3(account)
    client.dele(1)
    client.close()
    assert len(shared_host.fetch(account)) == 1


def test_top(shared_host: Host, account: Account) -> None:
    """TOP gives the header section, the empty line and as many lines of the body as were asked for."""
    shared_host.deliver(account, b"Subject: top\r\n\r\n.one\r\ntwo\r\nthree\r\n")
    client = shared_host.pop3(account)
    for count, body in enumerate([[], [b".one"], [b".one", b"two"]]):
        lines = client.top(1, count)[1]
        header_end = lines.index(b"")
        assert lines[header_end - 1] == b"Subject: top"
        assert lines[header_end + 1 :] == body
    client.quit()


def test_in_use(shared_host: Host, account: Account) -> None:
    """A second session of one maildrop is told that it is in use (RFC 2449 8.1.1)."""
    first = shared_host.pop3(account)
    with pytest.raises(poplib.error_proto, match=re.escape("[IN-USE]")):
        shared_host.pop3(account)
    first.quit()
    shared_host.pop3(account).quit()


def test_line_ends_helper() -> None:
    """Mail from files is converted line end by line end, and nothing else in it changes."""
    assert lines_as_crlf(b"a\nb\r\nc\rd") == b"a\r\nb\r\nc\r\nd\r\n"
    assert lines_as_crlf(b"a\n\n") == b"a\r\n\r\n"
