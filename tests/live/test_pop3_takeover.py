"""Two processes on one spool: a client whose connection died can log in again soon, and never are there two holders."""

from __future__ import annotations

import poplib
import re
import time
from collections.abc import Callable

import pytest

from tests.live.host import CLIENT_SECONDS, Account, Host, Ports

_LIMITS = "takeover_seconds = 1.0\nmaildrop_wait_seconds = 4.0"


@pytest.fixture
def pair(new_host: Callable[[], Host]) -> tuple[Host, Host]:
    """Two running hosts, the second in front of the first one's spool and accounts."""
    one, two = new_host(), new_host()
    for host in (one, two):
        text = host.config.read_text()
        text, found = re.subn(r"(?m)^\[limits\]$", f"[limits]\n{_LIMITS}", text)
        if not found:
            text = text.replace("[[listen]]", f"[limits]\n{_LIMITS}\n\n[[listen]]", 1)
        text, found = re.subn(r'"(log:|passwd:)(spool|passwd)"', rf'"\1{one.directory}/\2"', text)
        assert found == 2
        host.config.write_text(text)
        host.start()
    return one, two


def log_in(ports: Ports, account: Account) -> poplib.POP3:
    client = poplib.POP3("localhost", ports.plain_pop3, CLIENT_SECONDS)
    client.user(account.address)
    client.pass_(account.password)
    return client


@pytest.mark.parametrize("same", [True, False], ids=["one process", "two processes"])
def test_a_silent_session_is_taken_over(pair: tuple[Host, Host], same: bool) -> None:
    """The silent session ends, its marks remove nothing, and its QUIT does not seem to succeed."""
    one, two = pair
    account = one.account()
    one.deliver(account, b"Subject: one\r\n\r\nbody\r\n")
    silent = log_in(one.ports, account)
    silent.dele(1)
    time.sleep(1.2)
    second = log_in((one if same else two).ports, account)
    assert second.stat()[0] == 1
    with pytest.raises(poplib.error_proto, match=r"SYS/TEMP"):
        silent.quit()
    second.quit()


@pytest.mark.parametrize("same", [True, False], ids=["one process", "two processes"])
def test_one_at_work_is_not(pair: tuple[Host, Host], same: bool) -> None:
    """A session that goes on keeps its maildrop, and the other client is told `[IN-USE]`."""
    one, two = pair
    account = one.account()
    holder = log_in(one.ports, account)
    other = poplib.POP3("localhost", (one if same else two).ports.plain_pop3, CLIENT_SECONDS)
    other.user(account.address)
    other._putcmd(f"PASS {account.password}")  # type: ignore[attr-defined]
    until = time.monotonic() + 4.5
    while time.monotonic() < until:
        holder.noop()
        time.sleep(0.2)
    with pytest.raises(poplib.error_proto, match=r"IN-USE"):
        other._getresp()  # type: ignore[attr-defined]
    holder.quit()
