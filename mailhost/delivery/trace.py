"""
The header fields that say which way a message came: Return-Path, Delivered-To, Received (RFC 5321 4.4).

What they quote was said by the client.  Whatever it is, a field stays one field: lines are folded before 78 octets where they can be
and never pass 998, and nothing in a name can end a line or a comment.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from functools import lru_cache, partial

from mailhost.envelope import TLS, Client, Parameters, Path

# RFC 5322 2.1.1: lines should have 78 characters at most.
_LINE = 78
# RFC 5321 4.5.3.1 allows a path 256 octets and a domain 255; what is longer is cut, so that no line can pass 998.
_PATH = 900  # octets
_DOMAIN = 255

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_ATOM = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+")
_NO_ATOM = re.compile(r"[^A-Za-z0-9!#$%&'*+/=?^_`{|}~-]")
_NO_COMMENT = re.compile(r"[^\x20-\x7e]|[()\\]")
_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_DOMAIN_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_LITERAL = re.compile(r"\[[A-Za-z0-9.:-]+\]")

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def own_fields(reverse_path: Path, forward_path: Path) -> bytes:
    """
    What one maildrop's copy has before the shared content: Return-Path and Delivered-To.

    @param forward_path: the address that the message was sent to, as the client wrote it.
    """
    return_path, delivered_to = _stated(reverse_path), _stated(forward_path)
    return f"Return-Path: <{return_path}>\r\nDelivered-To: {delivered_to}\r\n".encode()


def _stated(path: Path) -> str:
    """A path's mailbox as a field may have it: nothing that ends a line, and not too much for one."""
    mailbox = path.mailbox
    if len(mailbox) > 255 or not mailbox.isprintable():
        mailbox = _CONTROL.sub("?", mailbox).encode()[:_PATH].decode(errors="ignore")
    return mailbox


class Trace:
    """Writes Received fields for one host.  One for all its transactions, since it remembers what is the same for many."""

    def __init__(self, hostname: str, seconds: Callable[[], float]) -> None:
        """
        @param seconds: since the epoch; a reactor's or a Clock's `seconds`.
        """
        self._seconds = seconds
        self._second = -1
        self._date = ""
        # A sender has many messages: half of the work is done once for each of the last few hundred.
        self._opening = lru_cache(maxsize=256)(partial(_opening, hostname))

    def received(self, client: Client, parameters: Parameters, forward_paths: Sequence[Path], unique_id: str) -> bytes:
        """
        One whole Received field, CRLF at its end.

        The account of an authenticated client is not in it: only the keyword says that there was one.  There is no `for` clause
        for several forward-paths: it would show each of them to all (RFC 5321 7.6).
        """
        field = self._opening(client.host, client.helo, client.tls, keyword(client, parameters))
        clauses = [f"id {unique_id}" if _ATOM.fullmatch(unique_id) else f"id {_NO_ATOM.sub('?', unique_id)}"]
        if len(forward_paths) == 1:
            clauses.append(f"for <{_stated(forward_paths[0])}>")
        clauses[-1] += ";"
        clauses.append(self.now())
        return (_folded(field, clauses) + "\r\n").encode()

    def now(self) -> str:
        """The time in RFC 5322's form, local with its offset, as RFC 5321 4.4 prefers it."""
        second = int(self._seconds())
        if second != self._second:
            self._second, self._date = second, date_time(second)
        return self._date


def date_time(second: int) -> str:
    """RFC 5322 3.3; by hand, because strftime writes days and months in the locale's language."""
    year, month, day, hour, minute, sec, weekday, *_ = local = time.localtime(second)
    sign, offset = ("-", -local.tm_gmtoff) if local.tm_gmtoff < 0 else ("+", local.tm_gmtoff)
    zone = f"{sign}{offset // 3600:02}{offset % 3600 // 60:02}"
    return f"{_DAYS[weekday]}, {day} {_MONTHS[month - 1]} {year:04} {hour:02}:{minute:02}:{sec:02} {zone}"


def keyword(client: Client, parameters: Parameters) -> str:
    """The protocol as RFC 3848 names it, or RFC 6531 4.3 when the client asked for SMTPUTF8."""
    if not client.extended:
        return "SMTP"  # there is no registered name for HELO with TLS or a login
    utf8 = "SMTPUTF8" in parameters
    if client.protocol == "lmtp":
        name = "UTF8LMTP" if utf8 else "LMTP"
    else:
        name = "UTF8SMTP" if utf8 else "ESMTP"
    return name + ("S" if client.tls else "") + ("A" if client.account is not None else "")


def _opening(hostname: str, host: str, helo: str, tls: TLS | None, protocol: str) -> str:
    """All that comes before the id: who, by whom, and how."""
    clauses = [*_from(host, helo), f"by {hostname}", f"with {protocol}"]
    if tls:
        clauses.append(f"({_NO_COMMENT.sub('?', f'{tls.version} {tls.cipher}')})")
    return _folded("Received:", clauses)


def _from(host: str, helo: str) -> list[str]:
    """
    The from clause: the name the client gave itself, and the address it really has.

    A name that is none is moved to a comment, made harmless, and the address stands in its place.
    """
    address = f"[IPv6:{host}]" if ":" in host else f"[{host}]" if host else ""
    valid = len(helo) <= _DOMAIN and (_DOMAIN_NAME.fullmatch(helo) or _LITERAL.fullmatch(helo))
    clauses = [f"from {helo if valid else address or 'localhost'}"]
    if address:
        clauses.append(f"({address})")
    if helo and not valid:
        clauses.append(f"(HELO {_NO_COMMENT.sub('?', helo[:_DOMAIN])})")
    return clauses


def _folded(field: str, clauses: Sequence[str]) -> str:
    """The field and more clauses, each after a space, or on a line of its own where the line would grow too long."""
    line = len(field) - field.rfind("\t") - 1
    for clause in clauses:
        line += 1 + len(clause)
        if line > _LINE:
            field += "\r\n\t" + clause
            line = 1 + len(clause)
        else:
            field += " " + clause
    return field
