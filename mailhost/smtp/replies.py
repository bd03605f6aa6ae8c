"""
Every reply of an SMTP server, once, and the one table from refusal to reply.

Replies carry enhanced status codes (RFC 2034, RFC 3463) but for those that must not: the greeting, EHLO's and HELO's, and 3xx.
They are encoded when they are made; those that never change are made when this module is loaded.  Those that refuse something are
signed with the session's name when they are given, so that whoever is asked about one finds it in the log.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from mailhost import refusal, sasl
from mailhost.smtp import grammar
from mailhost.smtp.content import BareLineEnd
from mailhost.wire.conversation import Then

# RFC 5321 4.5.3.1.5: a reply line has at most 512 octets with code and CRLF; the session's name must fit in too.
_TEXT_OCTETS = 440

_UNPRINTABLE = re.compile(r"[^ -~]")


class Reply(NamedTuple):
    """One reply, ready to be sent.  Made by `reply` and its kin."""

    octets: bytes
    said: str
    """Code, status and text as the log has them, on one line."""
    then: Then = Then.GO_ON
    counted: bool = False
    """Whether it is the answer to a mistake that counts against `limits.errors`."""


def reply(code: int, status: str, text: str, *, then: Then = Then.GO_ON, counted: bool = False) -> Reply:
    """
    @param status: the enhanced status code, or empty.
    @param text: printable ASCII, lines divided by LF.
    """
    lines = [f"{status} {line}" if status else line for line in text.split("\n")]
    return Reply(_encoded(code, lines), f"{code} {' '.join(lines)}", then, counted)


def signed(reply: Reply, session: str) -> Reply:
    """The same for this session: its name stands at the end of what is sent.  Log lines have it in a field of its own."""
    return reply._replace(octets=b"%b (session %b)\r\n" % (reply.octets[:-2], session.encode("ascii")))


def _encoded(code: int, lines: list[str]) -> bytes:
    """RFC 5321 4.2.1: a hyphen behind the code of every line but the last."""
    *first, last = lines
    return "".join([*(f"{code}-{line}\r\n" for line in first), f"{code} {last}\r\n"]).encode("ascii")


# -- what all hosts say

MAIL_OK = reply(250, "2.1.0", "OK")
RCPT_OK = reply(250, "2.1.5", "OK")
RESET = reply(250, "2.0.0", "OK, nothing is kept")
NOOP = reply(250, "2.0.0", "OK")
START_MAIL_INPUT = reply(354, "", "Go ahead; end with <CRLF>.<CRLF>")
CANNOT_VERIFY = reply(252, "2.5.0", "Cannot verify an address, but will take mail and try to deliver it")
START_TLS = reply(220, "2.0.0", "Go ahead with TLS", then=Then.START_TLS)
LOGGED_IN = reply(235, "2.7.0", "Logged in")

# -- sequence

EHLO_FIRST = reply(503, "5.5.1", "Send EHLO first", counted=True)
LHLO_FIRST = reply(503, "5.5.1", "Send LHLO first", counted=True)
MAIL_FIRST = reply(503, "5.5.1", "Send MAIL first", counted=True)
# What was pipelined behind a MAIL that was refused (RFC 2920 3.1) is not a mistake.
MAIL_REFUSED = reply(503, "5.5.1", "MAIL was refused; send another one first")
RCPT_FIRST = reply(503, "5.5.1", "Send RCPT first", counted=True)
IN_TRANSACTION = reply(503, "5.5.1", "Not while a transaction is open; send RSET first", counted=True)
NO_FORWARD_PATHS = reply(554, "5.5.1", "No valid recipients")
NO_FORWARD_PATHS_NOW = reply(451, "4.5.1", "No valid recipients; try again later")
NO_FORWARD_PATHS_IN_LMTP = reply(503, "5.5.1", "No valid recipients")  # RFC 2033 4.2 has this code for it
TLS_ALREADY = reply(503, "5.5.1", "TLS is up already", counted=True)
LOGGED_IN_ALREADY = reply(503, "5.5.1", "Logged in already", counted=True)
LOGIN_FIRST = reply(530, "5.7.0", "Authentication required; send AUTH first", counted=True)
TLS_FIRST = reply(530, "5.7.0", "Must issue a STARTTLS command first", counted=True)

# -- syntax

UNKNOWN_COMMAND = reply(500, "5.5.1", "Unknown command", counted=True)
EMPTY_COMMAND = reply(500, "5.5.2", "A command is missing", counted=True)
NOT_IMPLEMENTED = reply(502, "5.5.1", "Not implemented here; see EHLO for what is")
NO_ARGUMENT = reply(501, "5.5.4", "This command takes no argument", counted=True)
LINE_TOO_LONG = reply(500, "5.5.2", "Command line too long", counted=True)
BARE_LINE_FEED = reply(500, "5.5.2", "A line must end in CRLF, and this one ended in LF alone", then=Then.CLOSE)
INJECTED = reply(554, "5.5.0", "Nothing may follow STARTTLS before TLS is up", then=Then.CLOSE)

# -- content

BARE_LINE_END = reply(
    554, "5.6.0", "The message holds a CR or LF by itself; lines must end in CRLF (RFC 5321 2.3.8)", then=Then.CLOSE
)

# -- AUTH (RFC 4954)

AUTH_SYNTAX = reply(501, "5.5.4", "Bad syntax: AUTH mechanism", counted=True)
AUTH_CANCELLED = reply(501, "5.7.0", "Authentication cancelled")
AUTH_LINE_TOO_LONG = reply(500, "5.5.6", "Authentication exchange line too long", counted=True)
UNKNOWN_MECHANISM = reply(504, "5.5.4", "Unrecognized authentication mechanism", counted=True)
ENCRYPTION_REQUIRED = reply(538, "5.7.11", "Encryption required for this mechanism; send STARTTLS first", counted=True)

# -- bugs

BUG = reply(451, "4.3.0", "Internal error; try again later")
BUG_IN_CONTENT = reply(421, "4.3.0", "Internal error; try again later", then=Then.CLOSE)

HELP = reply(
    214,
    "2.0.0",
    "HELO EHLO MAIL RCPT DATA RSET NOOP VRFY QUIT\nSTARTTLS and AUTH where EHLO offers them\n"
    "See RFC 5321 for what they mean",
)
LMTP_HELP = reply(
    214,
    "2.0.0",
    "LHLO MAIL RCPT DATA RSET NOOP VRFY QUIT\nSTARTTLS where LHLO offers it\nSee RFC 2033 and RFC 5321 for what they mean",
)


class OfHost:
    """The replies that begin with the host's name (RFC 5321 4.2)."""

    def __init__(self, hostname: str, speaks: str = "ESMTP") -> None:
        """@param speaks: the protocol, as the greeting names it."""
        self._hostname = hostname
        self.greeting = reply(220, "", f"{hostname} {speaks}")
        self.helo = reply(250, "", hostname)
        self.goodbye = reply(221, "2.0.0", f"{hostname} closes the connection", then=Then.CLOSE)
        self.timed_out = self._closing("4.4.2", "waited too long for you")
        self.draining = self._closing("4.3.2", "is going down; try again later")
        self.too_many_connections = self._closing("4.7.0", "has too many connections; try again later")
        self.too_many_errors = self._closing("4.7.0", "has seen too many errors")

    def _closing(self, status: str, text: str) -> Reply:
        return reply(421, status, f"{self._hostname} {text}", then=Then.CLOSE)

    def ehlo(self, extensions: Iterable[str]) -> Reply:
        return reply(250, "", "\n".join([self._hostname, *extensions]))


def accepted(unique_id: str) -> Reply:
    """The message is durable."""
    said = f"250 2.0.0 Message accepted, id {unique_id}"
    return Reply(said.encode("ascii") + b"\r\n", said)


def challenge(octets: bytes) -> Reply:
    """@param octets: plain, before base64."""
    return Reply(b"334 " + sasl.encode(octets) + b"\r\n", "334")


# -- refusals

_REFUSALS: dict[type[refusal.Refusal], Reply] = {
    grammar.BadSyntax: reply(501, "5.5.4", "Bad syntax", counted=True),
    grammar.BadReversePath: reply(501, "5.1.7", "Bad reverse-path", counted=True),
    grammar.BadForwardPath: reply(501, "5.1.3", "Bad forward-path", counted=True),
    grammar.BadParameter: reply(501, "5.5.4", "Bad parameter", counted=True),
    grammar.UnknownParameter: reply(555, "5.5.4", "Parameter not recognized or not implemented", counted=True),
    grammar.NonASCIIAddress: reply(553, "5.6.7", "Address beyond ASCII, and SMTPUTF8 is not offered"),
    BareLineEnd: BARE_LINE_END,
    sasl.Malformed: reply(501, "5.5.2", "Bad authentication response", counted=True),
    refusal.NoSuchMaildrop: reply(550, "5.1.1", "No such mailbox here"),
    refusal.RelayDenied: reply(550, "5.7.1", "Relaying denied"),
    refusal.MaildropFull: reply(452, "4.2.2", "Mailbox full"),
    refusal.SenderNotAllowed: reply(553, "5.7.1", "Your login may not use this reverse-path"),
    refusal.Loop: reply(554, "5.4.6", "The message has been here before, or passed too many hosts"),
    refusal.MessageTooLarge: reply(552, "5.3.4", "Message too large"),
    refusal.TooManyForwardPaths: reply(452, "4.5.3", "Too many recipients; send the others in another transaction"),
    refusal.SpoolUnavailable: reply(451, "4.3.0", "Cannot take mail now; try again later"),
    refusal.SpoolFull: reply(452, "4.3.1", "No room for mail now; try again later"),
    refusal.MaildropInUse: reply(450, "4.2.0", "Mailbox busy; try again later"),
    refusal.LoginFailed: reply(535, "5.7.8", "Unknown account or wrong password", counted=True),
    refusal.LoginUnsupported: UNKNOWN_MECHANISM,
    refusal.LoginUnavailable: reply(454, "4.7.0", "Cannot check logins now; try again later"),
    refusal.LoginRequired: reply(530, "5.7.0", "Authentication required"),
    refusal.LoginForbidden: reply(535, "5.7.1", "This account may not send mail here", counted=True),
    refusal.TookTooLong: reply(451, "4.3.0", "This takes too long here; try again later"),
    refusal.TemporaryRefusal: reply(451, "4.3.0", "Not now; try again later"),
    refusal.Refusal: reply(554, "5.3.0", "Refused"),
}

# An operator may choose that a full maildrop is final.
_MAILDROP_FULL_FOR_GOOD = reply(552, "5.2.2", "Mailbox full")


def to_refusal(why: refusal.Refusal) -> Reply:
    """How SMTP says it."""
    if isinstance(why, refusal.Worded):
        return _worded(why)
    if isinstance(why, refusal.MaildropFull) and not why.temporary:
        return _detailed(_MAILDROP_FULL_FOR_GOOD, why.detail)
    plain = next(_REFUSALS[kind] for kind in type(why).__mro__ if kind in _REFUSALS)
    return _detailed(plain, why.detail)


def _detailed(plain: Reply, detail: str) -> Reply:
    """A reply with what is particular to this case behind its text."""
    if not detail:
        return plain
    said = f"{plain.said}: {_printable(detail)}"[:_TEXT_OCTETS]
    return plain._replace(octets=said.encode("ascii") + b"\r\n", said=said)


def _worded(why: refusal.Worded) -> Reply:
    """Somebody else's words, made fit to be sent.  421 says that the connection is closed, so it is."""
    status = why.status
    if not re.fullmatch(rf"{why.code // 100}\.\d{{1,3}}\.\d{{1,3}}", status):
        status = f"{why.code // 100}.0.0"
    lines = [_printable(line)[:_TEXT_OCTETS] for line in why.detail.splitlines()] or ["Refused"]
    return reply(why.code, status, "\n".join(lines), then=Then.CLOSE if why.code == 421 else Then.GO_ON)


def _printable(text: str) -> str:
    return _UNPRINTABLE.sub("?", text)
