"""`mailhost user`: the accounts in a host's passwd file.  A running host sees a change at the next login."""

from __future__ import annotations

import argparse
import getpass
import sys
from typing import Any

from mailhost.cred import passwd_file, prepare
from mailhost.delivery.address_book import canonical_domain
from mailhost.service.config import Config
from mailhost.tools import maildrops
from mailhost.tools.accounts import accounts_file, configuration
from mailhost.tools.main import Failed


def add(parsed: argparse.Namespace) -> int:
    config = configuration(parsed.config)
    address = _account(config, parsed.address)
    _check_domain(config, address)
    _in_words(passwd_file.add, accounts_file(config), address, _password(parsed))
    print(f"added {address}")
    return 0


def change_password(parsed: argparse.Namespace) -> int:
    config = configuration(parsed.config)
    address = _account(config, parsed.address)
    _in_words(passwd_file.set_password, accounts_file(config), address, _password(parsed))
    print(f"changed the password of {address}")
    return 0


def list_accounts(parsed: argparse.Namespace) -> int:
    for name in _in_words(passwd_file.names, accounts_file(configuration(parsed.config))):
        print(name)
    return 0


def remove(parsed: argparse.Namespace) -> int:
    config = configuration(parsed.config)
    path = accounts_file(config)
    address = _account(config, parsed.address)
    known = prepare.name(address) in _in_words(passwd_file.names, path)
    keep = (parsed.mail or _ask_for_the_mail(address)) == "keep"
    # The account goes first: nothing more is delivered to a maildrop that is about to go.
    if known:
        _in_words(passwd_file.remove, path, address)
        print(f"removed {address}")
    own = _in_full(config, address)
    what = maildrops.set_aside(config, own) if keep else maildrops.remove(config, own)
    if what is None and not known:
        raise Failed(f"{address} is no account and has no mail")
    print(what or "it had no mail")
    return 0


VERBS = {"add": add, "password": change_password, "remove": remove, "list": list_accounts}


def _in_words(function: Any, *arguments: Any) -> Any:
    """What `passwd_file` raises, in words."""
    try:
        return function(*arguments)
    except OSError as error:
        raise Failed(f"{error.filename}: {error.strerror}") from None
    except (ValueError, LookupError) as error:
        raise Failed(str(error)) from None


def _account(config: Config, address: str) -> str:
    """The account that an operator means by a name without a domain: one of just that name, or of the first domain."""
    if "@" not in address and prepare.name(address) in _in_words(passwd_file.names, accounts_file(config)):
        return address
    return _in_full(config, address)


def _in_full(config: Config, address: str) -> str:
    """An account without a domain belongs to the first one."""
    return address if "@" in address else f"{address}@{config.domains[0]}"


def _check_domain(config: Config, address: str) -> None:
    """@raise Failed: mail for it would never come here."""
    domain = _in_full(config, address).rpartition("@")[2]
    ours = [canonical_domain(name) for name in config.domains]
    if _in_words(canonical_domain, domain) not in ours:
        raise Failed(f"{address}: its domain is none of {', '.join(config.domains)}")


# ----------------------------------------------------------------------------------------------------------- passwords


def _password(parsed: argparse.Namespace) -> str:
    """From standard input, or asked for twice; never from the command line, which everybody on the machine can read."""
    if parsed.password_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise Failed("no terminal to ask for the password at; --password-stdin reads it from standard input")
    first = getpass.getpass("Password: ")
    if getpass.getpass("The same again: ") != first:
        raise Failed("these are two different passwords; nothing was changed")
    return first


# ------------------------------------------------------------------------------------------------------------ the mail


def _ask_for_the_mail(address: str) -> str:
    if not sys.stdin.isatty():
        raise Failed("say what becomes of the mail: --mail keep or --mail remove; nothing was changed")
    while True:
        answer = input(f"The mail of {address}: keep or remove? ").strip().lower()
        if answer in ("keep", "remove"):
            return answer
