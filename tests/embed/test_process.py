"""The host in a process of its own, for tests that block."""

from __future__ import annotations

import os
import poplib
import smtplib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailhost.testing.messages import NothingArrived
from mailhost.testing.process import MailHostProcess

MESSAGE = b"Subject: Your order\r\n\r\n.Thank you. \xff\r\n"
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def process() -> Iterator[MailHostProcess]:
    with MailHostProcess() as host:
        yield host


@pytest.fixture
def host(process: MailHostProcess) -> MailHostProcess:
    process.reset()
    return process


def send(host: MailHostProcess, forward_path: str = "ann@example.test", message: bytes = MESSAGE) -> None:
    with smtplib.SMTP(*host.smtp_address, timeout=10) as client:
        client.sendmail("shop@example.test", [forward_path], message)


def test_what_arrives(host: MailHostProcess) -> None:
    """What was sent is there, octet for octet, for this address and for its local part alone."""
    send(host)
    (message,) = host.wait_for("ann@example.test")
    assert message.octets == MESSAGE
    assert message["Subject"] == "Your order"
    assert [one.octets for one in host.inbox("ann").messages] == [MESSAGE]
    assert host.messages("bob") == []


def test_waiting(host: MailHostProcess) -> None:
    """A message that comes later ends the waiting at once, and only the one that is wanted."""
    later = threading.Timer(0.2, lambda: [send(host), send(host, message=b"Subject: Second\r\n\r\n")])
    started = time.monotonic()
    later.start()
    assert host.inbox("ann").wait_for("Second", seconds=20)["Subject"] == "Second"
    assert time.monotonic() - started < 5
    later.join()


def test_nothing_arrives(host: MailHostProcess) -> None:
    """The failure is the test's own, and says what there was."""
    send(host)
    with pytest.raises(NothingArrived, match="'Your order'"):
        host.inbox("ann").wait_for("Lost", seconds=0.05)
    assert issubclass(NothingArrived, AssertionError)


def test_faults(host: MailHostProcess) -> None:
    """Each of them happens, as often as it was asked for, until all is well again."""
    host.defer()
    host.refuse("bob@example.test")
    with pytest.raises(smtplib.SMTPRecipientsRefused, match="451"):
        send(host)
    with pytest.raises(smtplib.SMTPRecipientsRefused, match="550"):
        send(host, "bob@example.test")
    host.drop()
    with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionError)):
        send(host)
    host.slow(0.2)
    started = time.monotonic()
    send(host)
    assert time.monotonic() - started >= 0.2
    host.no_faults()
    send(host, "bob@example.test")


def test_accounts(host: MailHostProcess) -> None:
    """They fetch by POP3 what arrived; what they delete is still there for the test."""
    host.add_account("ann@example.test", "secret")
    send(host)
    client = poplib.POP3(*host.pop3_address, timeout=10)
    client.user("ann@example.test")
    client.pass_("secret")
    client.dele(1)
    client.quit()
    assert len(host.messages("ann")) == 1


def test_a_wrong_call(host: MailHostProcess) -> None:
    """It is an error here, and the host goes on."""
    with pytest.raises(RuntimeError, match="ValueError: no such call: stop"):
        host._call("stop")
    send(host)


def test_closed() -> None:
    """Its process has ended; another call says so, not a hang."""
    host = MailHostProcess()
    host.close()
    assert host._process.returncode == 0
    with pytest.raises((RuntimeError, ValueError)):
        host.reset()


def test_no_orphans() -> None:
    """When the tests are killed the host ends by itself."""
    program = "import os\nfrom mailhost.testing.process import MailHostProcess\nhost = MailHostProcess()\n"
    program += "print(host._process.pid, flush=True)\nos.kill(os.getpid(), 9)\n"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    killed = subprocess.run(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True, timeout=60
    )
    pid = int(killed.stdout)
    for _ in range(200):
        if _is_gone(pid):
            return
        time.sleep(0.05)
    raise AssertionError("the host still runs")


def _is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
