"""Hosts for the live tests."""

from __future__ import annotations

import poplib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.live.host import Account, Host


@pytest.fixture(autouse=True)
def _long_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """poplib gives up at lines of 2,048 octets, which RFC 1939 does not."""
    monkeypatch.setattr(poplib, "_MAXLINE", 50_000_000)


@pytest.fixture(scope="session")
def shared_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """One running host for all tests that only send and fetch; each has accounts of its own on it."""
    host = Host(tmp_path_factory.mktemp("live") / "host")
    try:
        host.start()
        yield host
        host.stop()
    finally:
        host.close()


@pytest.fixture
def account(shared_host: Host) -> Account:
    """A new account on the shared host."""
    return shared_host.account()


@pytest.fixture
def new_host(tmp_path: Path) -> Iterator[Callable[[], Host]]:
    """Makes hosts that a test may stop, kill and start as it likes; not started yet."""
    hosts: list[Host] = []

    def make() -> Host:
        hosts.append(Host(tmp_path / f"host{len(hosts)}"))
        return hosts[-1]

    yield make
    for host in hosts:
        host.close()


@pytest.fixture
def host(new_host: Callable[[], Host]) -> Host:
    """A host of this test's own, running."""
    host = new_host()
    host.start()
    return host
