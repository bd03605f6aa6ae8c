"""The asyncio reactor: the tests of embedding run under it too, and what is particular to it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent


def python(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """In a process of its own, since a reactor is chosen once."""
    path = os.pathsep.join([str(TESTS.parent), *sys.path])
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    "module",
    ["embed/test_embedding_page.py", "embed/test_in_process.py", "embed/test_stalled.py", "foreign/test_host.py"],
)
def test_the_same_tests(module: str, tmp_path: Path) -> None:
    """What runs under epoll runs under asyncio."""
    trial = "from twisted.scripts.trial import run; run()"
    ran = python("-c", trial, "--reactor=asyncio", str(TESTS / module), folder=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "PASSED" in ran.stdout


def test_embed_leaves_the_choice_of_a_reactor(tmp_path: Path) -> None:
    """Importing the public names, the pytest plugin too, installs no reactor."""
    program = "import sys, mailhost.embed; assert 'twisted.internet.reactor' not in sys.modules"
    ran = python("-c", program, folder=tmp_path)
    assert ran.returncode == 0, ran.stderr


def test_one_reactor_in_a_process(tmp_path: Path) -> None:
    """A second loop is refused in words, where Twisted would take no notice and wait for ever."""
    program = """
import asyncio
from mailhost.embed import reactor_on_this_loop

async def main():
    async with reactor_on_this_loop():
        pass

asyncio.run(main())
try:
    asyncio.run(main())
except RuntimeError as error:
    print(error)
"""
    ran = python("-c", program, folder=tmp_path)
    assert "once in a process" in ran.stdout, ran.stderr


MESSAGES = """
import asyncio, poplib
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from mailhost.embed import MailHost, Messages, from_asyncio, reactor_on_this_loop

removed = []

class Objects(Messages):
    async def listing(self):
        return await asyncio.wait_for(asyncio.sleep(0.01, [("one", None), ("two", None)]), 5)

    async def content(self, unique_id):
        await asyncio.sleep(0.01)
        return f"Subject: {unique_id}\\n".encode()

    async def remove(self, unique_ids):
        await asyncio.sleep(0.01)
        removed.extend(unique_ids)

def visit(port):
    client = poplib.POP3("127.0.0.1", port, timeout=10)
    client.user("ann"); client.pass_("secret")
    assert client.retr(2)[1] == [b"Subject: two"]
    client.dele(1)
    client.quit()

async def main():
    async with reactor_on_this_loop():
        host = MailHost(hostname="pop.example.test", maildrop=Objects,
                        checkers=[InMemoryUsernamePasswordDatabaseDontUse(ann=b"secret")])
        host.listen("pop3", "tcp:0:interface=127.0.0.1", name="out", plaintext_login=True)
        async with host:
            await asyncio.to_thread(visit, host.addresses["out"].port)
    print(removed)

asyncio.run(main())
"""


def test_objects_by_pop3(tmp_path: Path) -> None:
    """Messages whose methods await what asyncio has are listed, fetched and removed."""
    ran = python("-c", MESSAGES, folder=tmp_path)
    assert ran.stdout == "['one']\n", ran.stderr


STALLED = """
import asyncio, smtplib, time
from mailhost.embed import MailHost, reactor_on_this_loop

cancelled = []

async def arrived(envelope, content):
    async for block in content.plain():
        pass
    if envelope.reverse_path.local_part == "stalled":
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.append(envelope.reverse_path.local_part)
            raise

def send(port, name):
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        return client.sendmail(f"{name}@far.example", ["ann@example.test"], b"Subject: x\\r\\n\\r\\nx\\r\\n")

async def main():
    async with reactor_on_this_loop():
        from mailhost.embed import Limits
        host = MailHost(hostname="mx.example.test", receive=arrived, limits=Limits(commit_seconds=1.5))
        host.listen("smtp", "tcp:0:interface=127.0.0.1", name="in")
        async with host:
            port = host.addresses["in"].port
            stalled = asyncio.create_task(asyncio.to_thread(send, port, "stalled"))
            await asyncio.sleep(0.1)
            started = time.monotonic()
            for _ in range(20):
                await asyncio.to_thread(send, port, "quick")
            assert time.monotonic() - started < 1, time.monotonic() - started
            try:
                await stalled
            except smtplib.SMTPDataError as error:
                print(error.smtp_code)

asyncio.run(main())
"""


def test_a_stalled_function(tmp_path: Path) -> None:
    """It stalls its own session and no other; at its limit the client is told to try again."""
    ran = python("-c", STALLED, folder=tmp_path)
    assert ran.stdout == "451\n", ran.stderr
