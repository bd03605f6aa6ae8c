"""`--auth passwd:FILE` in our programs and in other people's."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from twisted.cred.credentials import IUsernamePassword, UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.cred.strcred import AuthOptionMixin, ICheckerFactory, findCheckerFactory, makeChecker
from twisted.internet.defer import Deferred
from twisted.logger import formatEvent, globalLogPublisher
from twisted.plugin import IPlugin
from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailhost.cred import passwd_file
from mailhost.cred.chain import build_portal
from mailhost.cred.passwd import PasswdChecker
from mailhost.cred.plugin import passwd
from mailhost.cred.realm import MailRealm
from mailhost.interfaces import IMaildrop


class Options(usage.Options, AuthOptionMixin):  # type: ignore[misc]
    """Those of any program that takes checkers."""

    supportedInterfaces = (IUsernamePassword,)

    def __init__(self) -> None:
        self.authOutput = io.StringIO()
        super().__init__()


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = tmp_path / "passwd"
    path.write_text("ann@example.test:{PLAIN}secret\n")
    path.chmod(0o640)
    return str(path)


def test_found_by_name() -> None:
    """Twisted finds the factory where it looks for all of them, and nowhere twice."""
    factory = findCheckerFactory("passwd")
    verifyObject(ICheckerFactory, factory)
    verifyObject(IPlugin, factory)
    assert factory.authType == "passwd"


def test_option(path: str) -> None:
    """Any options that take `--auth` make our checker of it."""
    options = Options()
    options.parseOptions(["--auth", f"passwd:{path}", "--auth", f"passwd:{path}"])
    assert [type(checker) for checker in options["credCheckers"]] == [PasswdChecker] * 2


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "No such file or directory"), ("ann\n", "passwd, line 1: no colon after the address")],
)
def test_option_with_a_wrong_file(tmp_path: Path, content: str | None, says: str) -> None:
    """The program does not start, and says which file and line is wrong."""
    path = tmp_path / "passwd"
    if content is not None:
        path.write_text(content)
    with pytest.raises(usage.UsageError, match=says) as caught:
        Options().parseOptions(["--auth", f"passwd:{path}"])
    assert str(path) in str(caught.value)


def test_option_without_a_file() -> None:
    """The path is not optional."""
    with pytest.raises(usage.UsageError, match="needs the path of a file"):
        Options().parseOptions(["--auth", "passwd"])


@pytest.mark.parametrize("option", [["--help-auth"], ["--help-auth-type", "passwd"]])
def test_help(option: list[str]) -> None:
    """What `--help-auth` prints is for people: the argument, the form of a line, nothing unsupported."""
    options = Options()
    with pytest.raises(SystemExit):
        options.parseOptions(option)
    shown = options.authOutput.getvalue()
    assert "passwd" in shown
    assert "Path of a passwd file." in shown
    assert "WARNING" not in shown
    assert ("address:{SCHEME}value" in shown) is (len(option) == 2)
    assert all(len(line) <= 80 for line in passwd.authHelp.splitlines())


def test_relative_to_a_directory(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration's own folder counts for what it names, and an absolute path is one."""
    directory = os.path.dirname(path)
    assert passwd.generateCheckerIn(directory, "passwd").path == path
    assert passwd.generateCheckerIn("/nowhere", path).path == path
    monkeypatch.chdir(directory)
    assert passwd.generateChecker("passwd").path == path


def test_trouble_is_logged_where_nobody_observes(path: str) -> None:
    """A program that knows nothing of our events has Twisted's log; our host, which observes, is not told twice."""
    os.chmod(path, 0o644)
    logged: list[Any] = []
    globalLogPublisher.addObserver(logged.append)
    try:
        passwd.generateChecker(path)
        passwd.generateCheckerIn("/", path)
    finally:
        globalLogPublisher.removeObserver(logged.append)
    ours = [formatEvent(event) for event in logged if event.get("log_namespace") == "mailhost.cred"]
    assert len(ours) == 1
    assert ours[0].startswith(f"{path} is open to every user")


def test_nothing_is_imported_early() -> None:
    """All plugins are loaded for every twistd command: ours load next to nothing, and never a reactor."""
    program = (
        "import sys; from twisted.cred.strcred import findCheckerFactory; findCheckerFactory('passwd');"
        "print([name for name in ('twisted.internet.reactor', 'mailhost.cred.passwd', 'mailhost.interfaces') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"


def test_in_a_program_that_knows_nothing_of_us(path: str) -> None:
    """With a plain Portal and the installed reactor's own threads: right, wrong, and a line added while it runs."""
    passwd_file.add(path, "bob@example.test", "builder", iterations=10)
    program = f"""
from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.cred.strcred import makeChecker
from twisted.internet.task import react

class Realm:
    def requestAvatar(self, avatarId, mind, *interfaces):
        return None, avatarId, lambda: None

async def main(reactor):
    portal = Portal(Realm(), [makeChecker("passwd:{path}")])
    async def login(name, password):
        try:
            print((await portal.login(UsernamePassword(name, password), None))[1].decode())
        except UnauthorizedLogin:
            print("no")
    await login(b"ann@example.test", b"secret")
    await login(b"bob@example.test", b"builder")
    await login(b"bob@example.test", b"wrong")
    await login(b"eve@example.test", b"new")
    open("{path}", "a").write("eve@example.test:{{PLAIN}}new\\n")
    await login(b"eve@example.test", b"new")

react(main)
"""
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert shown.stdout.split() == ["ann@example.test", "bob@example.test", "no", "no", "eve@example.test"]


class BesideTwistedsOwnTests(SynchronousTestCase):
    """Checkers made from text, in one portal."""

    def portal(self, *descriptions: str) -> Portal:
        async def make(account: Any, client: Any) -> Any:
            return account, lambda: None

        return build_portal(MailRealm({IMaildrop: make}), map(makeChecker, descriptions))

    def login(self, portal: Portal, name: bytes, password: bytes) -> Deferred[Any]:
        return portal.login(UsernamePassword(name, password), None, IMaildrop)

    def test_file_and_memory(self) -> None:
        """`file:` and `memory:` do their part, in any order."""
        path = self.mktemp()
        with open(path, "w") as file:
            file.write("ann:secret\n")
        for portal in (
            self.portal(f"file:{path}", "memory:bob:builder"),
            self.portal("memory:bob:builder", f"file:{path}"),
        ):
            assert self.successResultOf(self.login(portal, b"ann", b"secret"))[1] == b"ann"
            assert self.successResultOf(self.login(portal, b"bob", b"builder"))[1] == b"bob"
            self.failureResultOf(self.login(portal, b"bob", b"secret"), UnauthorizedLogin)
