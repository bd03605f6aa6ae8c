"""What an operator does to a running host: restart it, stop it while sessions are open, start it twice."""

from __future__ import annotations

import smtplib
import socket
import time
from collections.abc import Callable

import pytest

from tests.live.host import DOMAIN, Host, assert_is, command, run_command

CONTENT = b"Subject: stop\r\n\r\n.\r\nHello.\r\n"


def refuses(port: int) -> bool:
    """Whether nobody listens there any more."""
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except ConnectionRefusedError:
        return True
    return False


def wait_until_refused(port: int) -> None:
    deadline = time.monotonic() + 10
    while not refuses(port):
        assert time.monotonic() < deadline, f"port {port} is still open"
        time.sleep(0.01)


def test_restart(host: Host) -> None:
    """Mail is there after a restart, under the same unique-ids, and what was deleted is not."""
    account = host.account()
    contents = [b"Subject: %d\r\n\r\n" % number + b"x" * 30 * number + b"\r\n" for number in range(20)]
    host.deliver(account, *contents)
    client = host.pop3(account)
    client.dele(1)
    unique_ids = [line.split()[1] for line in client.uidl()[1]]
    client.quit()
    for _ in range(2):
        host.restart()
        client = host.pop3(account)
        assert [line.split()[1] for line in client.uidl()[1]] == unique_ids
        client.quit()
        for received, sent in zip(host.fetch(account), contents[1:], strict=True):
            assert_is(received, sent)


def test_drain_in_mid_content(host: Host) -> None:
    """SIGTERM lets a message that is on its way in arrive, and its 250 holds; nobody new is let in."""
    account = host.account()
    with host.smtp() as client:
        client.mail("sender@far.example")
        client.rcpt(account.address)
        assert client.docmd("DATA")[0] == 354
        client.send(b"Subject: stop\r\n\r\n..\r\n")
        host.terminate()
        wait_until_refused(host.ports.smtp)
        client.send(b"Hello.\r\n.\r\n")
        assert client.getreply()[0] == 250
        assert client.getreply()[0] == 421
    host.wait_until_stopped()
    host.start()
    assert_is(host.fetch(account)[0], CONTENT)


def test_drain_between_commands(host: Host) -> None:
    """SIGTERM ends a session that waits at a command boundary with 421; what it had begun is nowhere."""
    account = host.account()
    client = host.smtp()
    client.mail("sender@far.example")
    client.rcpt(account.address)
    host.terminate()
    assert client.getreply()[0] == 421
    host.wait_until_stopped()
    client.close()
    host.start()
    assert host.fetch(account) == []


def test_drain_removes_nothing(host: Host) -> None:
    """A POP3 session that SIGTERM ends is no QUIT: what it had marked stays."""
    account = host.account()
    host.deliver(account, CONTENT)
    client = host.pop3(account)
    client.dele(1)
    host.terminate()
    client.file.read()  # until the host has closed
    client.close()
    host.wait_until_stopped()
    host.start()
    assert len(host.fetch(account)) == 1


def test_port_in_use(new_host: Callable[[], Host]) -> None:
    """A port somebody else has ends the start with exit status 1 and one line that names it."""
    host = new_host()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", host.ports.pop3))
        other.listen()
        host.begin()
        assert host.wait() == 1
    (line,) = [line for line in host.log().splitlines() if line.strip()]
    assert str(host.ports.pop3) in line
    host.start()
    host.stop()


def test_started_twice(host: Host) -> None:
    """A second start on the same configuration fails, and does not disturb the first."""
    account = host.account()
    second = run_command("run", "--config", str(host.config), timeout=30)
    assert second.returncode == 1
    assert "Traceback" not in second.stderr
    host.deliver(account, CONTENT)
    assert_is(host.fetch(account)[0], CONTENT)


def test_two_hosts(new_host: Callable[[], Host]) -> None:
    """Two hosts on one machine know nothing of each other, with the same names in both."""
    hosts = [new_host(), new_host()]
    accounts = [host.add_account("same") for host in hosts]
    for host in hosts:
        host.start()
    hosts[0].deliver(accounts[0], CONTENT)
    assert_is(hosts[0].fetch(accounts[0])[0], CONTENT)
    assert hosts[1].fetch(accounts[1]) == []
    hosts[0].stop()
    hosts[1].deliver(accounts[1], CONTENT.upper())
    assert_is(hosts[1].fetch(accounts[1])[0], CONTENT.upper())


def test_one_process_for_each_protocol(new_host: Callable[[], Host]) -> None:
    """`twistd mailhost-smtp` and `twistd mailhost-pop3` share one spool: mail from one is in the other at once."""
    host, other = new_host(), new_host()
    account = host.account()
    twistd = command("twistd"), "--nodaemon", "--pidfile="
    receiver, server = host.ports[:3], host.ports[3:]
    host.begin(*twistd, "mailhost-smtp", "--config", str(host.config))
    host.wait_until_up(*receiver)
    assert refuses(host.ports.pop3)
    other.begin(*twistd, "mailhost-pop3", "--config", str(host.config))
    # The second process serves the first one's directory, with its certificate.
    other.certificate, other.ports = host.certificate, host.ports
    other.wait_until_up(*server)
    for number in range(1, 4):
        host.deliver(account, CONTENT)
        assert len(other.fetch(account)) == number
    client = other.pop3(account)
    client.dele(1)
    host.deliver(account, CONTENT)
    client.quit()
    assert len(other.fetch(account)) == 3
    other.stop()
    host.stop()


def test_unknown_domain_and_user(host: Host) -> None:
    """Nobody is told 250 for mail that has nowhere to go."""
    with host.smtp() as client:
        client.mail("sender@far.example")
        assert client.rcpt(f"nobody@{DOMAIN}")[0] == 550
        assert client.rcpt("ann@elsewhere.example")[0] == 550
        with pytest.raises(smtplib.SMTPDataError):
            client.data(CONTENT)
