"""
All that a POP3 server of ours says, each reply named once, and the one table from refusal to reply.

A first line has at most 512 octets (RFC 2449 4).  No text begins with `[` unless it is a response code (RFC 2449 8, RFC 3206),
and the greeting holds no `<` but APOP's (RFC 1939 7).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mailhost import refusal, sasl
from mailhost.limits import Offered
from mailhost.pop3.grammar import BadSyntax
from mailhost.pop3.texts import Language
from mailhost.refusal import Refusal
from mailhost.wire.conversation import Then

# What a refusal may add to its reply; with the reply's own text this stays under 512 octets.
_DETAIL_OCTETS = 300

NO_TERMS = Offered()


class Reply(NamedTuple):
    """One reply, whole, or the end of one whose beginning has been written."""

    octets: bytes
    then: Then = Then.GO_ON


def _ok(text: bytes, then: Then = Then.GO_ON) -> Reply:
    return Reply(b"+OK " + text + b"\r\n", then)


def _err(text: bytes, then: Then = Then.GO_ON) -> Reply:
    return Reply(b"-ERR " + text + b"\r\n", then)


END = b".\r\n"
"""Ends every multi-line reply (RFC 1939 3)."""

# -- any state

UNKNOWN_COMMAND = _err(b"unknown command")
OUT_OF_STATE = _err(b"not in this state")
NOT_OFFERED = _err(b"not offered here")
LINE_TOO_LONG = _err(b"the line is too long")
BARE_LINE_FEED = _err(b"lines end in CRLF, not in LF")
NO_SUCH_LANGUAGE = _err(b"no such language; LANG says which ones there are")
TOO_MANY_ERRORS = _err(b"too many errors", Then.CLOSE)
GOODBYE = _ok(b"goodbye", Then.CLOSE)

# -- AUTHORIZATION

SEND_PASS = _ok(b"send PASS")
USER_FIRST = _err(b"send USER first")
LOGGED_IN = _ok(b"logged in")
TLS_FIRST = _err(b"passwords are taken under TLS only: send STLS first")
TLS_ONLY = _err(b"passwords are taken under TLS only, which this port does not offer")
NO_PASSWORDS = _err(b"[SYS/PERM] nobody can log in with a password here")
NO_SUCH_MECHANISM = _err(b"this mechanism is not offered; CAPA says which ones are")
CANCELLED = _err(b"AUTH cancelled")
LANGUAGE_CHANGED = _ok(b"language changed")
UTF8_MODE = _ok(b"UTF-8 mode")
START_TLS = _ok(b"begin TLS", Then.START_TLS)
TLS_IS_UP = _err(b"TLS is up already")
# RFC 6856 2.1: a client must not do this.
TLS_TOO_LATE = _err(b"STLS comes before UTF8")
INJECTED = _err(b"nothing may follow STLS before TLS is up", Then.CLOSE)

# -- TRANSACTION

DONE = _ok(b"done")
DELETED = _ok(b"marked as deleted")
UNMARKED = _ok(b"no message is marked as deleted")
TOP_FOLLOWS = b"+OK top of message follows\r\n"
END_OF_MESSAGE = Reply(END)
BROKEN_OFF = Reply(b"", Then.CLOSE)
"""Closes amid a message: a client that has not seen its end takes it for what it is."""

# -- UPDATE

NOT_REMOVED = _err(b"[SYS/TEMP] some deleted messages not removed", Then.CLOSE)

# -- trouble

BUG = _err(b"[SYS/TEMP] something went wrong here; try again later")
DRAINING = _err(b"[SYS/TEMP] the service is ending; try again later", Then.CLOSE)
TAKEN_OVER = _err(b"[SYS/TEMP] another session has asked for the maildrop, and this one was silent", Then.CLOSE)
TOO_MANY_CONNECTIONS = _err(b"[SYS/TEMP] too many connections; try again later", Then.CLOSE)


# -- replies that are made


def greeting(hostname: str, timestamp: bytes = b"") -> Reply:
    """@param timestamp: where APOP is offered; a greeting that holds one offers it (RFC 1939 7)."""
    return _ok(hostname.encode("ascii") + b" ready" + (b" " + timestamp if timestamp else b""))


def capabilities(mechanisms: Sequence[bytes], *, stls: bool, offered: Offered = NO_TERMS) -> Reply:
    """
    CAPA (RFC 2449 5).

    What can be used before a login is named in both states, but for STLS, which RFC 2595 4 has only where it is permitted.

    @param mechanisms: that can be used now; with PLAIN, so can USER and PASS.
    @param offered: before a login everybody's terms, after it the account's.
    """
    names = [b"TOP", b"UIDL", b"RESP-CODES", b"AUTH-RESP-CODE", b"PIPELINING", b"LANG"]
    if stls:
        names.append(b"STLS")
    if b"PLAIN" in mechanisms:
        names.append(b"USER")
    # RFC 6856 2.2: with USER where that takes names and passwords in UTF-8.
    names.append(b"UTF8 USER" if b"PLAIN" in mechanisms else b"UTF8")
    if mechanisms:
        names.append(b"SASL " + b" ".join(mechanisms))
    names.extend(_terms(offered))
    # Without a version: who wants to know it wants to know what it is vulnerable to.
    names.append(b"IMPLEMENTATION mailhost")
    return _lines(b"+OK capabilities follow\r\n", names)


def _terms(offered: Offered) -> Iterable[bytes]:
    """LOGIN-DELAY, if there is any, and EXPIRE (RFC 2449 6.5, 6.7); USER says that a login may learn of other values."""
    delay, days = offered.terms
    if delay:
        yield b"LOGIN-DELAY %d" % delay + (b" USER" if offered.delay_varies else b"")
    yield (b"EXPIRE NEVER" if days is None else b"EXPIRE %d" % days) + (b" USER" if offered.expire_varies else b"")


def language_list(lines: Iterable[bytes]) -> Reply:
    """LANG without argument (RFC 6856 3.2)."""
    return _lines(b"+OK languages follow\r\n", lines)


def language_changed(language: Language) -> Reply:
    """LANG: the tag stands before the text, which is in the new language already (RFC 6856 3.2)."""
    return Reply(language.said(LANGUAGE_CHANGED.octets).replace(b"+OK ", b"+OK " + language.tag + b" ", 1))


def mechanism_list(mechanisms: Iterable[bytes]) -> Reply:
    """AUTH without argument: no RFC has it, many clients ask."""
    return _lines(b"+OK mechanisms follow\r\n", mechanisms)


def challenge(octets: bytes) -> Reply:
    """RFC 5034 4: the space stands there even when nothing follows."""
    return Reply(b"+ " + sasl.encode(octets) + b"\r\n")


def status(messages: int, octets: int) -> Reply:
    """STAT (RFC 1939 5): nothing may follow the two numbers."""
    return Reply(b"+OK %d %d\r\n" % (messages, octets))


def message_octets(number: int, octets: int) -> Reply:
    """LIST with an argument."""
    return Reply(b"+OK %d %d\r\n" % (number, octets))


def message_unique_id(number: int, unique_id: str) -> Reply:
    """UIDL with an argument."""
    return Reply(b"+OK %d %s\r\n" % (number, unique_id.encode("ascii")))


def octets_follow(octets: int) -> bytes:
    """The first line of RETR's reply."""
    return b"+OK %d octets\r\n" % octets


def _lines(first: bytes, lines: Iterable[bytes]) -> Reply:
    return Reply(b"\r\n".join([first[:-2], *lines, END]))


# -- from refusal to reply

_REFUSALS: dict[type[Refusal], bytes] = {
    BadSyntax: b"syntax",
    sasl.Malformed: b"this is no response of the mechanism",
    refusal.NoSuchMessage: b"no such message",
    # RFC 3206 4: AUTH is for what other credentials would mend, SYS/PERM for what a person here has to mend.
    refusal.LoginFailed: b"[AUTH] unknown account or wrong password",
    refusal.LoginForbidden: b"[SYS/PERM] this account may not use this service",
    refusal.LoginUnsupported: b"[SYS/PERM] nobody can log in this way here",
    refusal.LoginTooSoon: b"[LOGIN-DELAY] too soon after the last login; wait a little",
    refusal.LoginUnavailable: b"[SYS/TEMP] nobody can log in now; try again later",
    refusal.MaildropInUse: b"[IN-USE] another session has the maildrop",
    refusal.MaildropLost: b"[SYS/TEMP] the maildrop is no longer ours; nothing was removed",
    # Its own example of SYS/PERM is a mailbox that is corrupt.
    refusal.ContentDamaged: b"[SYS/PERM] the message is damaged",
    refusal.SpoolUnavailable: b"[SYS/TEMP] the maildrop cannot be read now; try again later",
    refusal.TookTooLong: b"[SYS/TEMP] that took too long; try again later",
    refusal.TemporaryRefusal: b"[SYS/TEMP] not now; try again later",
    Refusal: b"[SYS/PERM] refused",
}


def refused(why: Refusal) -> Reply:
    """The reply to any refusal; its cause stays here."""
    text = next(_REFUSALS[kind] for kind in type(why).__mro__ if kind in _REFUSALS)
    if type(why) not in _REFUSALS and why.temporary:
        # A kind of its own, made temporary by one who raised it (as Worded is by its code).
        text = _REFUSALS[refusal.TemporaryRefusal]
    return _err(text + b": " + _one_line(why.detail) if why.detail else text)


def _one_line(detail: str) -> bytes:
    """Printable ASCII, whatever it was."""
    words = "".join(character if character.isprintable() else " " for character in detail[:_DETAIL_OCTETS]).split()
    return " ".join(words).encode("ascii", "replace")
