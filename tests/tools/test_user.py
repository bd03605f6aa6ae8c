"""`mailhost user`: accounts, passwords that stay off the command line, and what becomes of the mail."""

from __future__ import annotations

import io
import poplib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mailhost.tools import user
from mailhost.tools.main import Failed, main
from mailhost.tools.owner import become_owner
from tests.tools.conftest import PROGRAM, Finished, Running, deliver, messages

Command = Callable[..., Finished]


def accounts(config: Path) -> str:
    return (config.parent / "passwd").read_text()


def test_add_list_password_remove(config: Path, mailhost: Command) -> None:
    """An account's life, as an operator types it."""
    file = ["--config", str(config)]
    added = mailhost("user", "add", "Bob@Example.Test", "--password-stdin", *file, stdin="s3cret one\n")
    assert (added.status, added.out) == (0, "added Bob@Example.Test\n")
    assert "s3cret" not in accounts(config)
    assert mailhost("user", "list", *file).out == "ann@example.test\nbob@example.test\n"
    before = accounts(config)
    assert mailhost("user", "password", "bob@example.test", "--password-stdin", *file, stdin="other\n").status == 0
    assert accounts(config) != before
    removed = mailhost("user", "remove", "bob@example.test", "--mail", "remove", *file)
    assert (removed.status, removed.out) == (0, "removed bob@example.test\nit had no mail\n")
    assert mailhost("user", "list", *file).out == "ann@example.test\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["add", "ann@example.test", "--password-stdin"], "ann@example.test is an account already"),
        (["add", "ann", "--password-stdin"], "ann@example.test is an account already"),
        (["add", "bob@elsewhere.test", "--password-stdin"], "bob@elsewhere.test: its domain is none of example.test"),
        (["password", "bob@example.test", "--password-stdin"], "bob@example.test is no account"),
        (["add", "bob@example.test"], "no terminal to ask for the password at; --password-stdin reads it"),
        (["remove", "ann@example.test"], "say what becomes of the mail: --mail keep or --mail remove"),
    ],
)
def test_what_is_refused(
    config: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    said: str,
) -> None:
    """Exit status 1, one line, and the accounts as they were."""
    before = accounts(config)
    monkeypatch.setattr("sys.stdin", io.StringIO("x\n"))
    monkeypatch.setattr("sys.__stderr__", sys.stderr)
    assert main(["user", *arguments, "--config", str(config)]) == 1
    ended = capfd.readouterr()
    assert ended.out == ""
    assert ended.err.startswith(f"mailhost: {said}")
    assert ended.err.count("\n") == 1
    assert accounts(config) == before


def test_neither_account_nor_mail(config: Path, mailhost: Command) -> None:
    """There was nothing to remove, and the line says so."""
    ended = mailhost("user", "remove", "bob@example.test", "--mail", "keep", "--config", str(config))
    assert (ended.status, ended.err) == (1, "mailhost: bob@example.test is no account and has no mail\n")


def test_an_account_without_a_domain(config: Path, mailhost: Command) -> None:
    """One that stands so in the file is meant by that name; otherwise the name belongs to the first domain."""
    (config.parent / "passwd").write_text("bob:{PLAIN}secret\n")
    file = ["--config", str(config)]
    assert mailhost("user", "password", "bob", "--password-stdin", *file, stdin="x\n").status == 0
    assert accounts(config).startswith("bob:{SCRAM-SHA-256}")
    assert mailhost("user", "add", "eve", "--password-stdin", *file, stdin="x\n").status == 0
    assert mailhost("user", "list", *file).out == "bob\neve@example.test\n"
    assert mailhost("user", "remove", "bob", "--mail", "remove", *file).out == "removed bob\nit had no mail\n"


def test_an_empty_password(config: Path, mailhost: Command) -> None:
    """End of input is no password."""
    ended = mailhost("user", "add", "bob@example.test", "--password-stdin", "--config", str(config))
    assert (ended.status, ended.err) == (1, "mailhost: the password is empty\n")


def test_no_passwd_file_to_change(config: Path, mailhost: Command) -> None:
    """Accounts of another checker are not ours to change, and the line says so."""
    config.write_text('checkers = ["unix"]\n' + config.read_text())
    assert "none is a passwd file" in mailhost("user", "list", "--config", str(config)).err


class Terminal:
    def isatty(self) -> bool:
        return True


def test_a_password_is_asked_for_twice(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an echo, and two that differ change nothing."""
    answers = iter(["one", "another", "same", "same"])
    monkeypatch.setattr("getpass.getpass", lambda prompt: next(answers))
    monkeypatch.setattr("sys.stdin", Terminal())
    before = accounts(config)
    assert main(["user", "add", "bob@example.test", "--config", str(config)]) == 1
    assert accounts(config) == before
    assert main(["user", "add", "bob@example.test", "--config", str(config)]) == 0
    assert "bob@example.test:{SCRAM-SHA-256}" in accounts(config)


def test_no_option_takes_a_password(config: Path) -> None:
    """Everybody on the machine can read a command line."""
    with pytest.raises(SystemExit):
        main(["user", "add", "bob@example.test", "--password", "secret", "--config", str(config)])


def test_what_becomes_of_the_mail_is_asked_until_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no default, since one of them is for ever."""
    answers = iter(["", "yes", "keep"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(answers))
    monkeypatch.setattr("sys.stdin", Terminal())
    assert user._ask_for_the_mail("ann@example.test") == "keep"


@pytest.mark.parametrize("what", ["keep", "remove"])
def test_a_new_user_of_an_old_name_inherits_nothing(
    config: Path, mailhost: Command, start: Callable[..., Running], what: str
) -> None:
    """While the host runs, whether the mail was kept or removed."""
    host = start(PROGRAM, "run", "--config", str(config))
    deliver(host)
    assert messages(host) == 1
    removed = mailhost("user", "remove", "ann@example.test", "--mail", what, "--config", str(config))
    assert removed.status == 0, removed.err
    said = {"keep": "kept its mail, as the maildrop removed/ann@example.test/", "remove": "removed its mail\n"}[what]
    assert said in removed.out
    with pytest.raises(poplib.error_proto):
        messages(host)
    mailhost("user", "add", "ann@example.test", "--password-stdin", "--config", str(config), stdin="secret\n")
    assert messages(host) == 0
    deliver(host)
    assert messages(host) == 1


def test_a_spool_of_somebody_else(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is neither its user nor root is told, before anything in it is touched."""
    monkeypatch.setattr("os.geteuid", lambda: 12345)
    with pytest.raises(Failed, match=r"belongs to .*; run this as .* or as root"):
        become_owner(str(config.parent / "spool"))


def test_mail_that_somebody_reads(config: Path, mailhost: Command, start: Callable[..., Running]) -> None:
    """An open session keeps the maildrop; the command says so, and the same command does the rest later."""
    host = start(PROGRAM, "run", "--config", str(config))
    deliver(host)
    client = poplib.POP3("127.0.0.1", host.port("out"), timeout=10)
    client.user("ann@example.test")
    client.pass_("secret")
    command = ["user", "remove", "ann@example.test", "--mail", "remove", "--config", str(config)]
    ended = mailhost(*command)
    assert (ended.status, ended.out) == (1, "removed ann@example.test\n")
    assert ended.err.startswith("mailhost: the mail of ann@example.test is as it was: MaildropInUse")
    client.quit()
    assert mailhost(*command).out == "removed its mail\n"


def test_a_domain_in_either_form(config: Path, mailhost: Command) -> None:
    """An internationalised domain is the same in Unicode and in ASCII."""
    config.write_text(config.read_text().replace('"example.test"', '"bücher.example"'))
    file = ["--password-stdin", "--config", str(config)]
    assert mailhost("user", "add", "eve@xn--bcher-kva.example", *file, stdin="x\n").status == 0
    assert mailhost("user", "add", "ann@bücher.example", *file, stdin="x\n").status == 0
