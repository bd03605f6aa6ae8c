"""Replies: their form, and one for every refusal there is."""

from __future__ import annotations

import re

import pytest

from mailhost import refusal, sasl
from mailhost.pop3 import replies
from mailhost.pop3.grammar import BadSyntax
from mailhost.pop3.replies import Reply
from mailhost.refusal import Refusal

CONSTANTS = {name: value for name, value in vars(replies).items() if isinstance(value, Reply)}
KINDS = [kind for kind in vars(refusal).values() if isinstance(kind, type) and issubclass(kind, Refusal)]

WANTED = {
    "NoSuchMessage": b"no such message",
    "LoginFailed": b"[AUTH] ",
    "LoginForbidden": b"[SYS/PERM] ",
    "LoginUnsupported": b"[SYS/PERM] ",
    "LoginUnavailable": b"[SYS/TEMP] ",
    "LoginTooSoon": b"[LOGIN-DELAY] ",
    "MaildropInUse": b"[IN-USE] ",
    "MaildropLost": b"[SYS/TEMP] ",
    "ContentDamaged": b"[SYS/PERM] ",
    "SpoolUnavailable": b"[SYS/TEMP] ",
    "SpoolFull": b"[SYS/TEMP] ",
    "TookTooLong": b"[SYS/TEMP] ",
}


def a(kind: type[Refusal], detail: str = "") -> Refusal:
    return kind(451, "4.0.0", detail) if kind is refusal.Worded else kind(detail)  # type: ignore[arg-type, call-arg]


class TestConstants:
    @pytest.mark.parametrize("name", sorted(set(CONSTANTS) - {"BROKEN_OFF", "END_OF_MESSAGE"}))
    def test_form(self, name: str) -> None:
        """A status, a text that begins with no bracket but a response code's, one line of at most 512 octets."""
        octets = CONSTANTS[name].octets
        code = rb"(?:\[(?:AUTH|IN-USE|SYS/TEMP|SYS/PERM)\] )?"
        assert re.fullmatch(rb"(?:\+OK|-ERR) " + code + rb"[!-Z\\-~][ !-~]*\r\n", octets)
        assert len(octets) <= 512

    def test_there_are_some(self) -> None:
        """The test above looks at what it means to look at."""
        assert len(CONSTANTS) > 25

    def test_the_greeting_offers_no_apop(self) -> None:
        """Clients take anything in angle brackets for APOP's timestamp."""
        assert replies.greeting("pop.example.test").octets == b"+OK pop.example.test ready\r\n"


class TestRefusals:
    @pytest.mark.parametrize("kind", KINDS)
    def test_every_refusal_has_a_reply(self, kind: type[Refusal]) -> None:
        """With the response code that is right for it; temporary ones never ask for new credentials or for help."""
        octets = replies.refused(a(kind)).octets
        assert octets.startswith(b"-ERR " + WANTED.get(kind.__name__, b""))
        if a(kind).temporary and kind not in (refusal.ContentDamaged, refusal.LoginTooSoon, refusal.MaildropInUse):
            assert octets.startswith(b"-ERR [SYS/TEMP] ")

    def test_a_kind_nobody_has_seen(self) -> None:
        """It is answered by what it says of itself."""

        class Strange(Refusal):
            pass

        strange = Strange()
        assert replies.refused(strange).octets.startswith(b"-ERR [SYS/PERM] ")
        strange.temporary = True
        assert replies.refused(strange).octets.startswith(b"-ERR [SYS/TEMP] ")

    def test_worded_by_its_code(self) -> None:
        """A foreign refusal says itself whether it will pass; its text is kept, on one line."""
        assert replies.refused(refusal.Worded(451, "", "busy\nbee")).octets.endswith(b"later: busy bee\r\n")
        assert replies.refused(refusal.Worded(550, "", "no")).octets == b"-ERR [SYS/PERM] refused: no\r\n"

    def test_details_cannot_break_the_line(self) -> None:
        """Neither line ends nor length nor letters beyond ASCII."""
        octets = replies.refused(refusal.SpoolUnavailable("a\r\n+OK é" + "x" * 9999)).octets
        assert octets.count(b"\r\n") == 1
        assert len(octets) <= 512
        assert octets.isascii()

    def test_control_characters_do_not_pass(self) -> None:
        """Nothing that a terminal would obey."""
        assert b"\x1b" not in replies.refused(refusal.SpoolUnavailable("a\x1b[2J\0b")).octets

    def test_causes_stay_here(self) -> None:
        """They are the log's."""
        assert b"/var" not in replies.refused(refusal.SpoolUnavailable(cause="/var/spool")).octets

    def test_syntax_and_sasl(self) -> None:
        """Mistakes have no response code."""
        assert replies.refused(BadSyntax("so")).octets == b"-ERR syntax: so\r\n"
        assert replies.refused(sasl.Malformed("so")).octets.startswith(b"-ERR this is no response")


class TestCapabilities:
    def test_without_passwords(self) -> None:
        """Neither USER nor SASL where neither can be used."""
        said = replies.capabilities([], stls=True).octets.split(b"\r\n")
        assert said[0].startswith(b"+OK")
        assert said[-2:] == [b".", b""]
        assert set(said[1:-2]) == {
            b"TOP",
            b"UIDL",
            b"RESP-CODES",
            b"AUTH-RESP-CODE",
            b"PIPELINING",
            b"LANG",
            b"STLS",
            b"UTF8",
            b"EXPIRE NEVER",
            b"IMPLEMENTATION mailhost",
        }

    def test_with_passwords(self) -> None:
        """USER goes with PLAIN: both take a password as it is."""
        said = replies.capabilities([b"SCRAM-SHA-256", b"PLAIN"], stls=False).octets.split(b"\r\n")
        assert b"USER" in said
        assert b"SASL SCRAM-SHA-256 PLAIN" in said
        assert b"STLS" not in said
        assert b"USER" not in replies.capabilities([b"SCRAM-SHA-256"], stls=False).octets
