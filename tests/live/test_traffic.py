"""Many clients at once: nothing is lost, nothing comes twice, and memory does not grow with what passes through."""

from __future__ import annotations

import poplib
import re
import threading
import time
from collections import Counter
from collections.abc import Callable

from tests.live.host import CLIENT_SECONDS, Account, Host, assert_is, retrieve

SENDER = "sender@far.example"


def all_at_once(*works: Callable[[], None]) -> None:
    """Do each in a thread of its own; what one of them raises is raised here."""
    failures: list[BaseException] = []

    def noted(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=noted, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def collect(host: Host, account: Account, until: int) -> list[bytes]:
    """Fetch and delete in one session after another until there were so many messages."""
    collected: list[bytes] = []
    deadline = time.monotonic() + CLIENT_SECONDS
    while len(collected) < until:
        assert time.monotonic() < deadline, f"{len(collected)} of {until} came"
        client = host.pop3(account, tls="implicit")
        for number in range(1, client.stat()[0] + 1):
            collected.append(retrieve(client, number))
            client.dele(number)
        client.quit()
    return collected


def test_collected_while_delivered(shared_host: Host, account: Account) -> None:
    """While four clients deliver, one that collects and deletes gets every message once."""
    contents = [b"Subject: %d\r\n\r\n..%d\r\n" % (number, number) for number in range(400)]
    collected: list[bytes] = []
    all_at_once(
        *(lambda start=start: shared_host.deliver(account, *contents[start::4]) for start in range(4)),
        lambda: collected.extend(collect(shared_host, account, len(contents))),
    )
    subjects = Counter(re.search(rb"\r\nSubject: (\d+)\r\n", received)[1] for received in collected)
    assert subjects == Counter({b"%d" % number: 1 for number in range(400)})
    assert shared_host.fetch(account) == []


def test_many_connections(shared_host: Host, account: Account) -> None:
    """A hundred sessions of each kind stay open at once, and each is answered."""
    senders = [shared_host.smtp() for _ in range(100)]
    accounts = [shared_host.account() for _ in range(50)]
    sessions = [shared_host.pop3(other) for other in accounts]
    for number, client in enumerate(senders):
        client.sendmail(SENDER, [account.address], b"Subject: %d\r\n\r\n" % number)
    for session in sessions:
        assert session.stat() == (0, 0)
        session.quit()
    for client in senders:
        client.quit()
    assert len(shared_host.fetch(account)) == 100


def test_memory(host: Host) -> None:
    """Messages of 45 MB that arrive and leave on several sessions at once do not fill the host's memory."""
    content = b"Subject: large\r\n\r\n" + (b"." + b"x" * 75 + b"\r\n") * 580_000
    accounts = [host.account() for _ in range(4)]
    before = peak_memory(host)
    all_at_once(*(lambda account=account: host.deliver(account, content) for account in accounts))
    all_at_once(*(lambda account=account: fetch_slowly(host, account, content) for account in accounts))
    assert peak_memory(host) - before < 100e6


def fetch_slowly(host: Host, account: Account, content: bytes) -> None:
    """Read all of it from the socket, in blocks: poplib's lines would take longer than the host does."""
    client = poplib.POP3("localhost", host.ports.plain_pop3, CLIENT_SECONDS)
    client.user(account.address)
    client.pass_(account.password)
    client._putcmd("RETR 1")
    assert client._getresp().startswith(b"+OK")
    time.sleep(0.5)
    received = bytearray()
    while not received.endswith(b"\r\n.\r\n"):
        received += client.file.read1(1 << 20)
    assert_is(bytes(received[:-3]).replace(b"\r\n..", b"\r\n."), content)
    client.quit()


def peak_memory(host: Host) -> int:
    """@return: the most octets the process has ever had resident."""
    with open(f"/proc/{host.process.pid}/status") as status:
        (kilobytes,) = [line.split()[1] for line in status if line.startswith("VmHWM")]
    return int(kilobytes) * 1024
