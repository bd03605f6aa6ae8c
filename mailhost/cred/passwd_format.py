"""
The `passwd` file: one account a line.

    # a comment
    ann@example.test:{SCRAM-SHA-256}100000,c2FsdA==,...,...
    bob@example.test:{PLAIN}secret:quota=5G:note=any text      # a comment too

`address:{SCHEME}value`, then `key=value` fields after further colons; no value holds a colon.  `#` begins a comment at the start of a
line or after white space, so that addresses may have one inside.  UTF-8.  Names compare without case.  `quota` is how much the account's
maildrop may hold (`Quota.parse`); `login_delay` and `expire` are its terms (`Terms.own`).  Keys that are not known here are kept for who
knows them; empty fields, as other programs' files have them, mean nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from mailhost.cred import prepare, scram
from mailhost.limits import OwnTerms, Quota, Terms

_COMMENT = re.compile(r"(^|\s)#.*")
_FIELD = re.compile(r"([a-z][a-z0-9_-]*)=(.*)", re.DOTALL)
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f]")


class Account(NamedTuple):
    name: str
    """Prepared: what names are compared by, and in octets the avatar id."""
    verifier: scram.Verifier
    fields: Mapping[str, str]
    quota: Quota | None = None
    terms: OwnTerms = MappingProxyType({})


class BrokenLine(ValueError):
    """A line that is no account; its words never hold a password."""

    def __init__(self, path: str, number: int, why: str) -> None:
        """@param number: 1-based."""
        super().__init__(f"{path}, line {number}: {why}")


def parse(path: str, content: bytes) -> dict[str, Account]:
    """
    A whole file: accounts by name, in the file's order.

    @param path: for errors only.

    @raise BrokenLine: the first that is wrong.  An account twice is wrong as well: which password would count?
    """
    accounts: dict[str, Account] = {}
    lines: dict[str, int] = {}
    for number, line in enumerate(content.split(b"\n"), 1):
        try:
            account = parse_line(line)
            if account is None:
                continue
            if account.name in accounts:
                raise ValueError(f"{account.name} is on line {lines[account.name]} already")
        except ValueError as error:
            raise BrokenLine(path, number, _words(error)) from None
        accounts[account.name] = account
        lines[account.name] = number
    return accounts


def parse_line(line: bytes) -> Account | None:
    """
    @return: None for an empty line or a comment.
    @raise ValueError: in words for the operator.
    """
    text = _COMMENT.sub("", line.decode("utf-8"), count=1).strip()
    if not text:
        return None
    name, colon, rest = text.partition(":")
    if not colon:
        raise ValueError("no colon after the address")
    if not name or _UNPRINTABLE.search(name):
        raise ValueError("no address before the first colon, or one with blanks or control characters")
    value, *others = rest.split(":")
    fields = _fields(others)
    quota = Quota.parse(fields["quota"]) if "quota" in fields else None
    return Account(prepare.name(name), scram.parse(value), fields, quota, Terms.own(fields))


def _fields(fields: list[str]) -> dict[str, str]:
    parsed = {}
    for field in fields:
        match = _FIELD.fullmatch(field.strip())
        if match is not None:
            parsed[match[1]] = match[2]
        elif field:
            raise ValueError("what follows the password must be fields of the form key=value")
    return parsed


def _words(error: ValueError) -> str:
    # A UnicodeDecodeError quotes the octets, and one is a ValueError.
    return "not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
