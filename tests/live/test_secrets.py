"""No log line ever holds a password, however a client gives it: right or wrong, encoded or not, in its place or not."""

from __future__ import annotations

import base64
import poplib
import smtplib
import socket
from functools import partial

import pytest

from tests.live.host import Account, Host, assert_unknown, new_password, traces_of


def encoded(*parts: str) -> str:
    return base64.b64encode("\0".join(parts).encode()).decode()


def converse(port: int, *lines: str) -> bytes:
    """Send all of it at once and read to the end: for what no well-behaved client would say."""
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        connection.sendall("".join(line + "\r\n" for line in lines).encode())
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def smtp_login(host: Host, account: Account, mechanism: str, *, initial_response: bool) -> bool:
    """@return: whether the host took it."""
    client = smtplib.SMTP("localhost", host.ports.submission, "client.example", 30)
    client.starttls(context=host.context())
    client.ehlo()
    client.user, client.password = account
    try:
        client.auth(mechanism, getattr(client, f"auth_{mechanism}"), initial_response_ok=initial_response)
    except smtplib.SMTPAuthenticationError:
        return False
    finally:
        client.close()
    return True


def pop3_login(host: Host, account: Account, tls: str) -> bool:
    try:
        host.pop3(account, tls=tls).quit()
    except poplib.error_proto:
        return False
    return True


def pop3_sasl_login(host: Host, account: Account, *, initial_response: bool) -> bool:
    response = encoded("", *account)
    lines = [f"AUTH PLAIN {response}"] if initial_response else ["AUTH PLAIN", response]
    return b"-ERR" not in converse(host.ports.plain_pop3, *lines, "QUIT")


LOGINS = [
    *(
        partial(smtp_login, mechanism=name, initial_response=initial)
        for name in ("plain", "login")
        for initial in (True, False)
    ),
    *(partial(pop3_login, tls=tls) for tls in ("none", "stls", "implicit")),
    *(partial(pop3_sasl_login, initial_response=initial) for initial in (True, False)),
]


def test_log_never_holds_a_password(host: Host) -> None:
    """Logins of every kind, right and wrong, leave the account's name in the log and never what was tried with it."""
    wrong = new_password()
    tried = []
    for log_in in LOGINS:
        account = host.account()
        assert log_in(host, account)
        # An account each, and fewer than a network may get wrong before it is slowed.
        assert not log_in(host, account._replace(password=wrong))
        tried.append(account)
    host.stop()
    for account in tried:
        assert account.address in host.log()
        assert_unknown(account.password, host.log())
    assert_unknown(wrong, host.log())


def test_misplaced(host: Host) -> None:
    """A password sent where none belongs, before TLS, after a failed command or to the wrong port, is not logged either."""
    account = host.account()
    passwords = [new_password() for _ in range(8)]
    plain, response = f"PASS {passwords[0]}", encoded("", account.address, passwords[1])
    converse(host.ports.smtp, plain, f"AUTH PLAIN {response}", f"AUTH LOGIN {encoded(passwords[2])}", "QUIT")
    converse(host.ports.submission, "EHLO client.example", f"AUTH PLAIN {encoded('', 'x', passwords[3])}", "QUIT")
    converse(host.ports.submission, "EHLO client.example", f"AUTH XUNKNOWN {encoded(passwords[4])}", "QUIT")
    converse(host.ports.pop3, f"USER {account.address}", f"PASS {passwords[5]}", "QUIT")
    converse(host.ports.plain_pop3, f"PASS {passwords[6]}", f"AUTH PLAIN {encoded(passwords[7])}=broken", "QUIT")
    converse(host.ports.plain_pop3, f"USER {account.address}", "PASS " + passwords[0] + "x" * 10_000, "QUIT")
    host.stop()
    for password in passwords:
        assert_unknown(password, host.log())


def test_the_search_finds() -> None:
    """The search itself: it knows a password in the clear and in each base64 form, wherever that begins."""
    password = new_password()
    texts = [password, encoded("", "ann", password), encoded("ann", "ann", password), encoded("a", "b", password)]
    texts += [encoded(password), encoded("x", password), base64.b64encode(b"xx" + password.encode() + b"yy").decode()]
    for text in texts:
        with pytest.raises(AssertionError):
            assert_unknown(password, f"line one\nkey={text} more\n")
    assert_unknown(password, f"line one {encoded(password[::-1])}")
    assert len(traces_of(password)) == 4
