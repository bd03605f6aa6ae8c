"""Replies: their form on the wire, and how each refusal is worded."""

from __future__ import annotations

import re

import pytest

from mailhost import octets, refusal, sasl
from mailhost.refusal import Refusal, Worded
from mailhost.smtp import content, grammar, replies
from mailhost.smtp.replies import OfHost, Reply, to_refusal
from mailhost.wire.conversation import Then

LINE = re.compile(rb"[2-5]\d\d[ -][ -~]+\r\n")
STATUS = re.compile(rb"([245])\d\d[ -](\1)\.\d{1,3}\.\d{1,3} ")

NAMED = {name: value for name, value in vars(replies).items() if isinstance(value, Reply)}
OF_HOST = {name: value for name, value in vars(OfHost("mx.example.test")).items() if isinstance(value, Reply)}


def lines(reply: Reply) -> list[bytes]:
    return reply.octets.splitlines(keepends=True)


@pytest.mark.parametrize(("name", "reply"), sorted({**NAMED, **OF_HOST}.items()))
def test_form(name: str, reply: Reply) -> None:
    """Every line has the same code, all but the last a hyphen, none is too long; the status is of the code's class."""
    *first, last = lines(reply)
    assert all(line[3:4] == b"-" for line in first)
    assert last[3:4] == b" "
    for line in (*first, last):
        assert LINE.fullmatch(line)
        assert len(line) <= 512
        assert line[:3] == reply.octets[:3]
        if not (line.startswith(b"3") or name in ("greeting", "helo")):
            assert STATUS.match(line)


def refusals() -> list[type[Refusal]]:
    """Every refusal that SMTP can meet."""
    found: list[type[Refusal]] = []
    for module in (refusal, grammar, content, sasl):
        found += [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, Refusal)]
    return sorted({*found} - {Refusal, Worded}, key=lambda kind: kind.__name__)


# What only a maildrop's session meets.
OF_MAILDROPS = {refusal.NoSuchMessage, refusal.MaildropLost, refusal.ContentDamaged, refusal.LoginTooSoon}


@pytest.mark.parametrize("kind", refusals())
def test_every_refusal_has_its_words(kind: type[Refusal]) -> None:
    """Temporary ones are 4xx, permanent ones 5xx, and only the bases and POP3's have no words of their own."""
    why = kind()
    reply = to_refusal(why)
    assert reply.octets.startswith(b"4" if why.temporary else b"5")
    assert STATUS.match(reply.octets)
    general = replies._REFUSALS[Refusal], replies._REFUSALS[refusal.TemporaryRefusal]
    assert (reply in general) == (kind in OF_MAILDROPS | {refusal.TemporaryRefusal})


def test_unknown_refusals() -> None:
    """One that somebody else defines is worded as what it is derived from."""

    class Mine(refusal.SpoolFull):
        pass

    class Other(Refusal):
        pass

    assert to_refusal(Mine()) is to_refusal(refusal.SpoolFull())
    assert to_refusal(Other()).octets == b"554 5.3.0 Refused\r\n"
    assert to_refusal(octets.BareLineFeed()).octets.startswith(b"554 ")


def test_full_for_good() -> None:
    """An operator may choose that a full maildrop is final."""
    why = refusal.MaildropFull()
    assert to_refusal(why).octets.startswith(b"452 4.2.2 ")
    why.temporary = False
    assert to_refusal(why).octets.startswith(b"552 5.2.2 ")


def test_detail() -> None:
    """What is particular stands behind the text, on one line, in ASCII, never too long; the cause is never told."""
    assert to_refusal(refusal.RelayDenied("not yet")).octets == b"550 5.7.1 Relaying denied: not yet\r\n"
    hostile = to_refusal(refusal.RelayDenied("a\r\n250 OK\0ä" + "x" * 2000, cause="disk on fire"))
    assert hostile.octets.startswith(b"550 5.7.1 Relaying denied: a??250 OK??xxx")
    assert len(lines(hostile)) == 1
    assert len(hostile.octets) <= 512
    assert b"fire" not in hostile.octets
    assert hostile.said.encode("ascii") + b"\r\n" == hostile.octets


def test_detail_keeps_what_follows() -> None:
    """A reply that closes, or that counts, does so with a detail too."""
    assert to_refusal(content.BareLineEnd("in line 7")).then is Then.CLOSE
    assert to_refusal(grammar.BadParameter("SIZE=octets")).counted


def test_worded() -> None:
    """Somebody else's words are said as they are, if they can be."""
    assert to_refusal(Worded(550, "5.7.1", "Go away")).octets == b"550 5.7.1 Go away\r\n"
    assert to_refusal(Worded(451, "4.7.1", "Grey\nlisted")).octets == b"451-4.7.1 Grey\r\n451 4.7.1 listed\r\n"
    assert to_refusal(Worded(550, "", "No status")).octets == b"550 5.0.0 No status\r\n"
    assert to_refusal(Worded(550, "4.7.1", "Wrong class")).octets == b"550 5.0.0 Wrong class\r\n"
    assert to_refusal(Worded(550, "5.7.1\r\n250", "x")).octets == b"550 5.0.0 x\r\n"
    assert to_refusal(Worded(550, "5.7.1", "")).octets == b"550 5.7.1 Refused\r\n"
    assert to_refusal(Worded(550, "5.7.1", "a\r\nb\rc\x85d\u2028e\0")).octets.endswith(b"550 5.7.1 e?\r\n")
    assert len(to_refusal(Worded(550, "5.7.1", "x" * 3000)).octets) <= 512


def test_worded_that_closes() -> None:
    """421 says that the connection is closed (RFC 5321 3.8), so it is."""
    assert to_refusal(Worded(421, "4.7.0", "Enough")).then is Then.CLOSE
    assert to_refusal(Worded(450, "4.7.0", "Later")).then is Then.GO_ON


def test_what_counts() -> None:
    """Mistakes of syntax and sequence and failed logins count; our own 4xx, unknown recipients and optional commands do not."""
    counted = {name for name, reply in NAMED.items() if reply.counted}
    assert {"UNKNOWN_COMMAND", "EHLO_FIRST", "LINE_TOO_LONG", "NO_ARGUMENT", "AUTH_LINE_TOO_LONG"} <= counted
    assert not counted & {
        "NOT_IMPLEMENTED",
        "CANNOT_VERIFY",
        "MAIL_REFUSED",
        "NO_FORWARD_PATHS",
        "BUG",
        "AUTH_CANCELLED",
    }
    assert to_refusal(refusal.LoginFailed()).counted
    assert not to_refusal(refusal.LoginUnavailable()).counted
    assert not to_refusal(refusal.NoSuchMaildrop()).counted
    assert not [name for name in counted if NAMED[name].octets.startswith(b"4")]


def test_signed() -> None:
    """The session's name ends the last line; what the log is told stays as it was, since the name has a field there."""
    refused = to_refusal(refusal.NoSuchMaildrop())
    signed = replies.signed(refused, "5b1816c1a")
    assert signed.octets == b"550 5.1.1 No such mailbox here (session 5b1816c1a)\r\n"
    assert signed.said == refused.said
    lines = replies.signed(to_refusal(Worded(450, "4.7.1", "Grey\nlisted")), "s1").octets
    assert lines == b"450-4.7.1 Grey\r\n450 4.7.1 listed (session s1)\r\n"
    assert replies.signed(replies.BARE_LINE_END, "s1").then is Then.CLOSE


@pytest.mark.parametrize("why", [refusal.RelayDenied("x" * 900), Worded(554, "5.255.255", "x" * 900)])
def test_signed_is_never_too_long(why: Refusal) -> None:
    """RFC 5321 4.5.3.1.5, with the longest name that a session can get in a lifetime."""
    assert len(replies.signed(to_refusal(why), "f" * 24).octets) <= 512


def test_accepted() -> None:
    """The client gets the message's unique-id, by which it can be found in the log."""
    assert replies.accepted("65f0a1").octets == b"250 2.0.0 Message accepted, id 65f0a1\r\n"


def test_challenge() -> None:
    """In base64, and never in the log."""
    assert replies.challenge(b"").octets == b"334 \r\n"
    assert replies.challenge(b"Username:") == Reply(b"334 VXNlcm5hbWU6\r\n", "334")
