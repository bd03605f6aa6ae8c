"""
Postfix in front, a host behind it by LMTP, as many mail systems are built.

Postfix runs from a directory of its own, on its own port, beside whatever the machine's Postfix does.
"""

from __future__ import annotations

import json
import os
import shutil
import smtplib
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.host import CLIENT_SECONDS, Account, Host, free_ports
from tests.live.lmtp import start_with_lmtp

MAIN = """
compatibility_level = 3.6
queue_directory = {root}/spool
data_directory = {root}/data
command_directory = {commands}
daemon_directory = {daemons}
maillog_file = {root}/maillog
maillog_file_prefixes = {root}
myhostname = front.example
mydestination =
alias_maps =
inet_interfaces = loopback-only
inet_protocols = ipv4
virtual_mailbox_domains = example.test
virtual_transport = lmtp:{destination}
smtpd_relay_restrictions = reject_unauth_destination
smtpd_peername_lookup = no
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
in_flow_delay = 0
smtputf8_enable = no
"""

MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
pickup unix n - n 60 1 pickup
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix:
    """One instance, started and stopped."""

    def __init__(self, root: Path, destination: str) -> None:
        """
        @param root: a directory that every user may enter.
        @param destination: where mail for example.test goes by LMTP, in Postfix's words.
        """
        self.root = root
        self.port = free_ports().smtp
        for name in ("etc", "spool", "data"):
            (root / name).mkdir()
        shutil.chown(root / "data", "postfix")
        system = Path("/etc/postfix")
        for pattern in ("postfix-files*", "dynamicmaps.cf*"):
            for path in system.glob(pattern):
                (shutil.copytree if path.is_dir() else shutil.copy)(path, root / "etc" / path.name)
        commands, daemons = (self._setting(name) for name in ("command_directory", "daemon_directory"))
        main = MAIN.format(root=root, commands=commands, daemons=daemons, destination=destination)
        (root / "etc" / "main.cf").write_text(main)
        (root / "etc" / "master.cf").write_text(MASTER.format(port=self.port))

    def _setting(self, name: str) -> str:
        return subprocess.run(["postconf", "-h", name], capture_output=True, text=True, check=True).stdout.strip()

    def run(self, *arguments: str) -> str:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, (done.stdout, done.stderr, self.log())
        return done.stdout

    def start(self) -> None:
        self.run("postfix", "-c", str(self.root / "etc"), "start")

    def stop(self) -> None:
        subprocess.run(["postfix", "-c", str(self.root / "etc"), "stop"], capture_output=True, timeout=60)

    def queue(self) -> list[dict[str, object]]:
        lines = self.run("postqueue", "-c", str(self.root / "etc"), "-j").splitlines()
        return [json.loads(line) for line in lines]

    def wait_until(self, left: int) -> None:
        """Until so many messages are in the queue, each of them having been tried."""
        deadline = time.monotonic() + 60
        while [one["queue_name"] for one in self.queue()] != ["deferred"] * left:
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.2)

    def log(self) -> str:
        path = self.root / "maillog"
        return path.read_text(errors="replace") if path.exists() else ""


@pytest.fixture
def directory() -> Iterator[Path]:
    """Outside pytest's own, which no other user may enter: Postfix's processes are other users."""
    if shutil.which("postfix") is None:
        pytest.skip("Postfix is not installed")
    if os.geteuid() != 0:
        pytest.skip("only root can run a Postfix")
    directory = Path(tempfile.mkdtemp(prefix="postfix-"))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


@pytest.fixture(params=["tcp", "unix"])
def system(request: pytest.FixtureRequest, directory: Path, tmp_path: Path) -> Iterator[tuple[Postfix, Host, Account]]:
    """Both, running, and an account whose maildrop holds one message."""
    host = Host(tmp_path / "host")
    full = Account("full@example.test", "Pw-full")
    with open(host.directory / "passwd", "a") as passwd:
        passwd.write(f"{full.address}:{{PLAIN}}{full.password}:quota=1/-\n")
    (directory / "front").mkdir()
    try:
        port = start_with_lmtp(host, directory / "lmtp")
        destination = f"unix:{directory}/lmtp" if request.param == "unix" else f"inet:127.0.0.1:{port}"
        postfix = Postfix(directory / "front", destination)
        try:
            postfix.start()
            yield postfix, host, full
        finally:
            postfix.stop()
        host.stop()
    finally:
        host.close()


def test_every_message_at_the_first_try(system: tuple[Postfix, Host, Account]) -> None:
    """Messages to several at once arrive, each once and whole, and Postfix never has to try again."""
    postfix, host, _ = system
    accounts = [host.account() for _ in range(4)]
    # No longer lines: Postfix's own client breaks those beyond 998 octets.
    contents = [b"Subject: x\r\n\r\n.\r\n..dots\r\n%s\r\n" % (b"x" * 9 * number) for number in range(100)]
    with smtplib.SMTP("127.0.0.1", postfix.port, "client.example", CLIENT_SECONDS) as client:
        for content in contents:
            client.sendmail("far@far.example", [account.address for account in accounts], content)
    postfix.wait_until(0)
    assert postfix.log().count("status=sent (250 2.0.0 Message accepted, id ") == len(contents) * len(accounts)
    assert "status=deferred" not in postfix.log()
    for account in accounts:
        received = host.fetch(account)
        assert len(received) == len(contents)
        for content in contents:
            body = content.partition(b"\r\n\r\n")[2]
            assert sum(message.endswith(b"\r\n\r\n" + body) for message in received) == 1


def test_each_recipients_own_outcome(system: tuple[Postfix, Host, Account]) -> None:
    """One is full and stays in the queue, one is nobody and bounces, and the rest have the message; room brings the last copy."""
    postfix, host, full = system
    sender, other = host.account(), host.account()
    host.deliver(full, b"Subject: first\r\n\r\n")
    with smtplib.SMTP("127.0.0.1", postfix.port, "client.example", CLIENT_SECONDS) as client:
        addresses = [full.address, "nobody@example.test", other.address]
        client.sendmail(sender.address, addresses, b"Subject: second\r\n\r\nbody\r\n")
    postfix.wait_until(1)
    (left,) = postfix.queue()
    recipients = left["recipients"]
    assert isinstance(recipients, list)
    (waiting,) = recipients
    assert waiting["address"] == full.address
    assert "452 4.2.2 Mailbox full (session " in waiting["delay_reason"]
    assert len(host.fetch(other)) == 1
    (bounce,) = host.fetch(sender)
    assert b"550 5.1.1 No such mailbox here (session " in b" ".join(bounce.split())
    client = host.pop3(full)
    client.dele(1)
    client.quit()
    postfix.run("postqueue", "-c", str(postfix.root / "etc"), "-f")
    postfix.wait_until(0)
    (message,) = host.fetch(full)
    assert b"\r\nSubject: second\r\n" in message
    assert message.endswith(b"\r\n\r\nbody\r\n")
