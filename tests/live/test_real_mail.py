"""Real mail, as others collected it: what comes back is what was sent, however broken it is as a message."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.live.host import Account, Host, assert_is, lines_as_crlf

SPAMASSASSIN = Path("/usr/share/doc/spamassassin/examples")
FLUFL_BOUNCE = Path("/usr/lib/python3/dist-packages/flufl/bounce/tests/data")


def cpython_messages() -> list[Path]:
    """What CPython's own tests of its email package read."""
    package = pytest.importorskip("test.test_email", reason="this Python comes without its test suite")
    return sorted((Path(package.__file__).parent / "data").glob("msg_*.txt"))


def debian_messages(directory: Path, pattern: str, package: str) -> list[Path]:
    found = sorted(directory.glob(pattern))
    if not found:
        pytest.skip(f"Debian's {package} is not installed")
    return found


def there_and_back(host: Host, account: Account, paths: list[Path]) -> None:
    """Deliver all in one session, fetch them in one, delete them, and see that they are gone."""
    sent = [lines_as_crlf(path.read_bytes()) for path in paths]
    host.deliver(account, *sent)
    received = host.fetch(account)
    assert len(received) == len(sent)
    for got, content in zip(received, sent):
        assert_is(got, content)
    client = host.pop3(account)
    for number in range(1, len(sent) + 1):
        client.dele(number)
    client.quit()
    assert host.fetch(account) == []


def test_cpython(shared_host: Host, account: Account) -> None:
    """The sample messages of CPython's email package, some of them made to break parsers."""
    paths = cpython_messages()
    assert len(paths) > 30
    there_and_back(shared_host, account, paths)


def test_spamassassin(shared_host: Host, account: Account) -> None:
    """The sample messages of SpamAssassin."""
    there_and_back(shared_host, account, debian_messages(SPAMASSASSIN, "sample-*.txt", "spamassassin"))


def test_bounces(shared_host: Host, account: Account) -> None:
    """More than a hundred bounces, as mail systems of many years sent them."""
    there_and_back(shared_host, account, debian_messages(FLUFL_BOUNCE, "*.txt", "python3-flufl.bounce"))
