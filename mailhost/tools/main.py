"""
The operator's command line: `mailhost init | run | check | user | spool | maildrop | backup | restore | quickstart`.

Each command is a module that is imported when it is asked for.  What an operator has to put right is one line for each mistake on
standard error and exit status 1; a traceback means a bug.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version

from mailhost.tools import arguments as stored_mail


class Failed(Exception):
    """A command that could not do what was asked; its text is all that the operator sees."""


def main(argv: Sequence[str] | None = None) -> int:
    """@return: the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        # The options of `run` are those of the twistd plugin.
        if arguments[:1] == ["run"]:
            from mailhost.tools.run import run

            return run(arguments[1:])
        parsed = _parser().parse_args(arguments)
        status: int = parsed.command(parsed)
        return status
    except Failed as failure:
        for line in str(failure).splitlines():
            # Once twistd has begun to log, sys.stderr is its log.
            print(f"mailhost: {line}", file=sys.__stderr__)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("mailhost", description="A mail host: SMTP in, a durable spool, POP3 out.")
    parser.add_argument("--version", action="version", version=f"mailhost {version('mailhost')}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    commands.add_parser("run", help="run the host in the foreground", add_help=False)
    _init(commands.add_parser("init", help="make a configuration, a spool, an account file and a certificate"))
    _check(commands.add_parser("check", help="say what is wrong with a configuration, or what it would do"))
    _user(commands.add_parser("user", help="add, change, remove or list accounts"))
    stored_mail.spool(commands.add_parser("spool", help="look at the spool, verify and repair it"))
    stored_mail.maildrop(commands.add_parser("maildrop", help="look at maildrops; take mail in, give it out"))
    stored_mail.backup(commands.add_parser("backup", help="back up the spool, while the host runs"))
    stored_mail.restore(commands.add_parser("restore", help="make a spool of a backup"))
    _quickstart(commands.add_parser("quickstart", help="make a host for trying it out, and run it"))
    return parser


def _init(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIR", help="what to make; nothing in it is overwritten")
    parser.add_argument("--domain", required=True, help="whose mail is kept here, such as example.test")
    parser.add_argument("--hostname", help="what the host calls itself; the domain unless given")
    parser.set_defaults(command=_run_init)


def _run_init(parsed: argparse.Namespace) -> int:
    from mailhost.tools import init

    path = init.make(parsed.directory, domain=parsed.domain, hostname=parsed.hostname or parsed.domain)
    print(f"made {path}\n")
    print(f"  mailhost user add ann@{parsed.domain} --config {path}\n  mailhost run --config {path}")
    return 0


def _check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", "-c", required=True, metavar="FILE")
    parser.set_defaults(command=_run_check)


def _run_check(parsed: argparse.Namespace) -> int:
    from mailhost.tools.check import check

    return check(parsed.config)


def _user(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    for verb, help_text in (
        ("add", "a new account"),
        ("password", "a new password for an account"),
        ("remove", "remove an account, and its mail if you say so"),
        ("list", "all accounts"),
    ):
        one = verbs.add_parser(verb, help=help_text)
        one.set_defaults(command=_run_user, verb=verb)
        one.add_argument("--config", "-c", required=True, metavar="FILE")
        if verb != "list":
            one.add_argument("address", metavar="ADDRESS")
        if verb in ("add", "password"):
            one.add_argument("--password-stdin", action="store_true", help="take it from the first line of the input")
        if verb == "remove":
            one.add_argument("--mail", choices=("keep", "remove"), help="what becomes of the mail; asked for otherwise")


def _run_user(parsed: argparse.Namespace) -> int:
    from mailhost.tools import user

    return user.VERBS[parsed.verb](parsed)


def _quickstart(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIR", nargs="?", default="mailhost-quickstart")
    parser.set_defaults(command=_run_quickstart)


def _run_quickstart(parsed: argparse.Namespace) -> int:
    from mailhost.tools.quickstart import quickstart

    return quickstart(parsed.directory)


if __name__ == "__main__":
    sys.exit(main())
