"""
A host in a process of its own, made and started by the installed commands as an operator would.

Nothing of `mailhost` is imported here: what these tests know, they know from outside.
"""

from __future__ import annotations

import base64
import re
import secrets
import shutil
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from poplib import POP3, POP3_SSL
from typing import NamedTuple

DOMAIN = "example.test"
ACCOUNTS = 200
START_SECONDS = 30
STOP_SECONDS = 60
CLIENT_SECONDS = 60

# Beside what `init` writes: POP3 without TLS, for clients and tests on loopback.
_PLAIN_POP3 = """
[[listen]]
protocol = "pop3"
endpoint = "tcp:{port}:interface=127.0.0.1"
tls = "none"
plaintext_login = true
"""


class Account(NamedTuple):
    address: str
    password: str


class Ports(NamedTuple):
    """Where a host listens, by the ports that `init` would have given it."""

    smtp: int
    submission: int
    submissions: int
    pop3: int
    pop3s: int
    plain_pop3: int

    def __str__(self) -> str:
        return ", ".join(f"{name} {port}" for name, port in self._asdict().items())


_INIT_PORTS = (2525, 2587, 2465, 2110, 2995)


def command(name: str = "mailhost") -> str:
    """An installed console script: that of the interpreter the tests run in."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    assert found, f"{name} is not installed"
    return found


def free_ports() -> Ports:
    """Ports below those the kernel hands out to clients, so that no test's own connection takes one meanwhile."""
    ports: list[int] = []
    while len(ports) < len(Ports._fields):
        port = 10_000 + secrets.randbelow(20_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in ports:
            ports.append(port)
    return Ports(*ports)


def run_command(*arguments: str, stdin: str = "", timeout: float = 30) -> subprocess.CompletedProcess[str]:
    return subprocess.run([command(), *arguments], input=stdin, text=True, capture_output=True, timeout=timeout)


class Host:
    """One directory, and the process that serves it while there is one."""

    def __init__(self, directory: Path) -> None:
        """Make the directory as `mailhost init` does, with ports that are free."""
        self.directory = directory
        self.config = directory / "mailhost.toml"
        self.certificate = directory / "tls" / "cert.pem"
        self.log_file = directory / "log"
        self.ports = free_ports()
        self.process: subprocess.Popen[bytes] | None = None
        made = run_command("init", str(directory), "--domain", DOMAIN, "--hostname", "mx.example.test")
        assert made.returncode == 0, made.stderr
        self._move_ports()
        self.accounts: list[Account] = []
        ready = [new_account(f"user{number}") for number in range(ACCOUNTS)]
        self._add_lines(*ready)
        self._ready_accounts = iter(ready)

    def _move_ports(self) -> None:
        text = self.config.read_text()
        for old, new in zip(_INIT_PORTS, self.ports):
            text, found = re.subn(rf'"tcp:{old}:', f'"tcp:{new}:', text)
            assert found == 1, f"init no longer listens on {old}"
        self.config.write_text(text + _PLAIN_POP3.format(port=self.ports.plain_pop3))

    # -- accounts

    def account(self) -> Account:
        """One of those that were there before the start, new to everybody."""
        account = next(self._ready_accounts)
        self.accounts.append(account)
        return account

    def add_account(self, name: str) -> Account:
        """One more, by a line added by hand."""
        account = new_account(name)
        self.accounts.append(account)
        self._add_lines(account)
        return account

    def _add_lines(self, *accounts: Account) -> None:
        with open(self.directory / "passwd", "a") as passwd:
            passwd.writelines(f"{account.address}:{{PLAIN}}{account.password}\n" for account in accounts)

    def add_user(self, name: str) -> Account:
        """A new account by `mailhost user add`, hashed."""
        account = new_account(name)
        self.accounts.append(account)
        arguments = "user", "add", account.address, "--config", str(self.config), "--password-stdin"
        added = run_command(*arguments, stdin=account.password + "\n")
        assert added.returncode == 0, added.stderr
        return account

    # -- the process

    def start(self, *arguments: str) -> None:
        """
        Returns when every listener answers.

        @param arguments: the command, where it is not `mailhost run`.
        """
        self.begin(*arguments)
        self.wait_until_up()

    def begin(self, *arguments: str) -> None:
        assert self.process is None
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen(
                arguments or [command(), "run", "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
            )

    def wait_until_up(self, *ports: int) -> None:
        deadline = time.monotonic() + START_SECONDS
        for port in ports or self.ports:
            while not self._answers(port):
                assert self.process is not None
                assert self.process.poll() is None, f"the host has ended:\n{self.end_of_log()}"
                assert time.monotonic() < deadline, f"port {port} does not answer:\n{self.end_of_log()}"
                time.sleep(0.02)

    def _answers(self, port: int) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), START_SECONDS) as probe:
                if port in (self.ports.submissions, self.ports.pop3s):
                    probe = self.context().wrap_socket(probe, server_hostname="localhost")
                return bool(probe.recv(1))
        except OSError:
            return False

    def terminate(self) -> None:
        """SIGTERM; sessions may go on for a while."""
        assert self.process is not None
        self.process.terminate()

    def stop(self) -> None:
        """SIGTERM, and a clean end."""
        self.terminate()
        self.wait_until_stopped()

    def wait_until_stopped(self) -> None:
        # Twisted ends a process by the signal that stopped it; systemd takes both for a success.
        assert self.wait() in (0, -signal.SIGTERM), self.end_of_log()

    def kill(self) -> None:
        """SIGKILL: not one more instruction."""
        assert self.process is not None
        self.process.kill()
        self.wait()

    def wait(self) -> int:
        """@return: the exit status."""
        assert self.process is not None
        status = self.process.wait(STOP_SECONDS)
        self.process = None
        return status

    def restart(self) -> None:
        self.stop()
        self.start()

    def close(self) -> None:
        """The end of a test, however it went: no process stays, and no password is in the log."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        for account in self.accounts:
            assert_unknown(account.password, self.log())

    def log(self) -> str:
        time.sleep(0.2)  # lines wait a moment for each other before they are written
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def end_of_log(self) -> str:
        return self.log()[-3000:]

    # -- clients from the standard library

    def context(self) -> ssl.SSLContext:
        """Trusts this host's certificate and no other."""
        return ssl.create_default_context(cafile=str(self.certificate))

    def smtp(self, *, starttls: bool = False) -> smtplib.SMTP:
        """A client of the MX port, past EHLO."""
        client = smtplib.SMTP("localhost", self.ports.smtp, "client.example", CLIENT_SECONDS)
        if starttls:
            client.starttls(context=self.context())
        client.ehlo()
        return client

    def submission(self, account: Account, *, implicit: bool = False) -> smtplib.SMTP:
        """A client of a submission port, under TLS and logged in."""
        if implicit:
            client: smtplib.SMTP = smtplib.SMTP_SSL(
                "localhost", self.ports.submissions, "client.example", timeout=CLIENT_SECONDS, context=self.context()
            )
        else:
            client = smtplib.SMTP("localhost", self.ports.submission, "client.example", CLIENT_SECONDS)
            client.starttls(context=self.context())
        client.login(account.address, account.password)
        return client

    def pop3(self, account: Account, *, tls: str = "none") -> POP3:
        """
        A client that is logged in.

        @param tls: `none`, `stls` or `implicit`.
        """
        if tls == "implicit":
            client: POP3 = POP3_SSL("localhost", self.ports.pop3s, timeout=CLIENT_SECONDS, context=self.context())
        else:
            port = self.ports.pop3 if tls == "stls" else self.ports.plain_pop3
            client = POP3("localhost", port, CLIENT_SECONDS)
        if tls == "stls":
            client.stls(self.context())
        client.user(account.address)
        client.pass_(account.password)
        return client

    def deliver(self, account: Account, *contents: bytes) -> None:
        """By SMTP, in one session."""
        with self.smtp() as client:
            for content in contents:
                client.sendmail("sender@far.example", [account.address], content)

    def fetch(self, account: Account, *, tls: str = "none") -> list[bytes]:
        """All messages as they come, in the order of their numbers; nothing is deleted."""
        client = self.pop3(account, tls=tls)
        count, _ = client.stat()
        messages = [retrieve(client, number) for number in range(1, count + 1)]
        client.quit()
        return messages


def new_account(name: str) -> Account:
    return Account(f"{name}@{DOMAIN}", new_password())


def new_password() -> str:
    """One that cannot be in a log by chance."""
    return "Pw-" + secrets.token_hex(12)


def retrieve(client: POP3, number: int) -> bytes:
    """One message; what LIST says of its size has to be right."""
    listed = int(client.list(number).split()[2])
    _, lines, octets = client.retr(number)
    message = b"".join(line + b"\r\n" for line in lines)
    assert (len(message), octets) == (listed, listed)
    return message


# What a delivery puts before the content: its trace fields, in this order (RFC 5321 4.4).
_TRACE = (
    rb"Return-Path: <[^\r\n]*>\r\n"
    rb"Delivered-To: [^\r\n]*\r\n"
    rb"Received: (?:[^\r\n]*\r\n)(?:[ \t][^\r\n]*\r\n)*"
)

# What a submitted message gets that came without (RFC 6409 8.2, 8.3).
_ADDED = rb"Date: [^\r\n]+\r\nMessage-ID: <[^\r\n]+@mx\.example\.test>\r\n"


def assert_is(received: bytes, sent: bytes, *, added: bool = False) -> None:
    """
    What was received is what was sent, octet for octet, behind trace fields and nothing else.

    @param added: it was submitted, and lacks Date and Message-ID: it has got them.
    """
    assert received.endswith(sent), f"sent {excerpt(sent)}, received {excerpt(received)}"
    before = received[: len(received) - len(sent)]
    assert re.fullmatch(_TRACE + (_ADDED if added else b""), before), f"not the fields that belong there: {before!r}"


def excerpt(octets: bytes) -> bytes:
    return octets if len(octets) < 2000 else octets[:900] + b" ... " + octets[-900:]


def lines_as_crlf(text: bytes) -> bytes:
    """A message as mail programs keep it in a file, made fit for the wire: CRLF after every line, also the last."""
    lines = re.split(rb"\r\n|\r|\n", text)
    return b"\r\n".join(lines if lines[-1] == b"" else [*lines, b""])


def traces_of(password: str) -> list[str]:
    """The password and the middle of each base64 form in which a SASL exchange may carry it, wherever it starts."""
    forms = [password]
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + password.encode()).decode()
        # The first characters hold octets before it and the last ones what follows.
        forms.append(encoded[(0, 2, 3)[before] : len(encoded) - 4])
    return forms


def assert_unknown(password: str, text: str) -> None:
    """No form of the password is in `text`."""
    for form in traces_of(password):
        assert form not in text, f"{form!r} is in the log"
